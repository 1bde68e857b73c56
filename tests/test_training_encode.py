"""From records to windows: chats as chats or as flat text, and labels in the run's own order."""

import pytest
from tokenizers import Tokenizer

from data.records import Record
from inference.windows import Windower
from training.encode import choose_prompts, encode, flat_text, label_row, load_split, records_of, share_of


@pytest.fixture(scope="module")
def windower(encoder, run_config):
    return Windower(Tokenizer.from_file(str(encoder / "tokenizer.json")), run_config.windows.spec())


def test_a_share_of_the_chats_is_read_flat(built, windower):
    split = load_split(built, "train")
    records = records_of(split)
    chats = [record.messages is not None and len(record.messages) > 1 for record in records]
    assert sum(chats) > 10
    kept, flat, half = (encode(split, windower, flatten=share, seed=3)["windows"] for share in (0, 1, 0.5))
    for i, record in enumerate(records):
        as_flat = [prompt.ids for prompt in windower([flat_text(record)])][0] if chats[i] else kept[i]
        assert flat[i] == as_flat
        assert (kept[i] != flat[i]) == chats[i]
        assert half[i] == (flat[i] if chats[i] and share_of(record.id, 3) < 0.5 else kept[i])
    changed = sum(a != b for a, b in zip(kept, half, strict=True))
    assert 0.2 * sum(chats) < changed < 0.8 * sum(chats)


def test_flat_text_holds_the_turns_and_no_roles():
    turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "why is bread brown"}]
    record = Record(id="1", source="made", messages=turns, labels=())
    assert flat_text(record) == "be brief\n\nwhy is bread brown"


def test_labels_follow_the_runs_order():
    judged = ("censorship_probing", "capability_sweep")
    names = ("capability_sweep", "reasoning_trace_extraction")
    assert label_row(["capability_sweep"], judged, names) == [1.0, -1.0]


def test_the_prompts_of_a_smaller_run_stay_when_data_grows(built):
    split = load_split(built, "train")
    some = choose_prompts(split, 50, 7)["id"]
    fewer = choose_prompts(split.select(range(0, len(split), 2)), 50, 7)["id"]
    rest = set(split.select(range(0, len(split), 2))["id"])
    assert {name for name in some if name in rest} <= set(fewer)
    assert len(some) == 50 and list(choose_prompts(split, 50, 8)["id"]) != list(some)
