"""The shipped corpus is sound, and varied enough to stand for what it claims."""

import json
from collections import Counter

import pytest

from data.reading import load_records
from data.records import CATEGORIES
from inference.job.files import find_files

from .conftest import ROOT

HARD_NEGATIVES = {
    "homework_show_work", "talk_about_reasoning", "think_first_product", "prompt_engineering_help",
    "sensitive_question", "journalism_and_study", "moderation_product", "teacher_quiz_and_grading",
    "interview_practice", "agent_product", "extraction_product", "own_eval_and_ci", "expert_role_request",
    "creative_with_rules", "client_scaffolding",
}  # fmt: skip


@pytest.fixture(scope="module")
def corpus():
    records, faults = load_records(find_files([str(ROOT / "data" / "seed")]))
    assert list(map(str, faults)) == []
    return records


def test_size_and_balance(corpus):
    keys = Counter(record.key for record in corpus)
    assert max(keys.values()) == 1
    assert len(corpus) >= 1000
    organic = [record for record in corpus if not record.labels]
    assert 0.45 <= len(organic) / len(corpus) <= 0.55
    for category in CATEGORIES:
        assert sum(category in record.labels for record in corpus) >= 150
    assert any(len(record.labels) > 1 for record in corpus)


def test_hard_negatives(corpus):
    organic = [record for record in corpus if not record.labels]
    families = Counter(record.style for record in organic if record.style in HARD_NEGATIVES)
    assert sum(families.values()) >= len(organic) / 3
    assert min(families[name] for name in HARD_NEGATIVES) >= 30


def test_languages_lengths_and_forms(corpus):
    for organic in (True, False):
        part = [record for record in corpus if bool(record.labels) != organic]
        languages = Counter(record.lang for record in part)
        assert min(languages["en"], languages["zh"], languages["es"]) >= len(part) / 12
        assert sum(record.messages is not None for record in part) >= len(part) / 10
        assert sum(len(record.rendered) < 150 for record in part) >= len(part) / 15
        assert sum(len(record.rendered) > 1000 for record in part) >= len(part) / 15


def test_frames_are_filled_few_times_and_pairs_differ(corpus):
    groups = Counter(record.group for record in corpus if record.group)
    assert max(groups.values()) <= 12
    assert all(record.group for record in corpus if record.origin == "composed")
    pairs = {}
    for record in corpus:
        if record.pair:
            pairs.setdefault(record.pair, []).append(record.labels)
    assert len(pairs) >= 20
    assert all(len(labels) >= 2 and len(set(labels)) >= 2 for labels in pairs.values())


def test_every_record_says_what_it_is(corpus):
    assert all(record.lang and record.style and record.source.startswith("seed-") for record in corpus)
    assert {record.license for record in corpus} == {"CC-BY-4.0"}


def test_examples_are_not_in_the_corpus(corpus):
    lines = (ROOT / "data" / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) >= 20
    assert not {json.loads(line)["text"] for line in lines} & {record.text for record in corpus}
