"""Rendering: one text for one prompt, folded for the model, with the way back."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.folding import fold
from inference.prompts import PromptError, normalise_messages, render, render_prompt

SYSTEM_AND_USER = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
TRICKY = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from(
            "a b Zаеоｆｕｌｌ\u200b\u202e\u00ad\U000e0041\U000e007fé\u0301가ᄀ\u1161\u11a8ﾊ\uff9e\ud800\r\n²ﬁ，"
        ),
    ),
    max_size=60,
)


def test_plain_text_stays_as_it_is():
    assert render_prompt("What is 2 + 2?\n\tShow me.") == "What is 2 + 2?\n\tShow me."


def test_roles_stay_visible():
    assert render_prompt(SYSTEM_AND_USER) == "system:\nBe brief.\n\nuser:\nHello"


def test_a_lone_user_message_reads_like_the_plain_prompt():
    assert render_prompt([{"role": "user", "content": "Hello"}]) == render_prompt("Hello")


def test_chat_exports_with_from_and_value():
    export = [{"from": "human", "value": "hi"}, {"from": "GPT", "value": "ho"}, {"from": "tool", "value": "x"}]
    assert normalise_messages(export) == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "ho"},
        {"role": "tool", "content": "x"},
    ]
    # A Parquet file that holds both forms has all four keys in every turn.
    both = [{"role": None, "content": None, "from": "human", "value": "hi"}]
    assert render_prompt(both) == "hi"
    assert normalise_messages([{"role": "human", "content": "hi"}]) == [{"role": "human", "content": "hi"}]


def test_parts_that_are_no_text_become_markers_and_tool_calls_stay():
    messages = [
        {
            "role": "User",
            "content": [{"type": "text", "text": "what is this"}, {"type": "image_url", "image_url": "x"}],
        },
        {"role": "assistant", "content": None, "tool_calls": [{"name": "look", "arguments": {"at": 1}}]},
    ]
    turns = normalise_messages(messages)
    assert turns[0] == {"role": "user", "content": "what is this\n[image_url]"}
    assert turns[1] == {"role": "assistant", "content": '[{"name": "look", "arguments": {"at": 1}}]'}
    assert normalise_messages(turns) == turns


@pytest.mark.parametrize(
    ("hidden", "seen"),
    [
        ("ｔｈｉｎｋ ａｌｏｕｄ", "think aloud"),
        ("th\u200bink al\u2060oud", "think aloud"),
        ("th\u202eink aloud", "think aloud"),
        ("thіnk аlоud", "think aloud"),  # Cyrillic і, а, о
        ("".join(chr(0xE0000 + ord(c)) for c in "think aloud"), "think aloud"),
        ("think\r\naloud", "think\naloud"),
        ("broken \ud83d emoji", "broken \ufffd emoji"),
    ],
)
def test_hiding_does_not_help(hidden, seen):
    assert render_prompt(hidden) == seen


@pytest.mark.parametrize(
    "text", ["Как дела, где сосна?", "το άλφα και το ωμέγα", "می‌خواهم", "東京は今日も雨です", "ışık söndü"]
)
def test_real_scripts_stay_readable(text):
    visible = "".join(c for c in text if unicodedata.category(c) != "Cf")
    assert render_prompt(text) == unicodedata.normalize("NFKC", visible)


@pytest.mark.parametrize("prompt", ["", "  \n", "\u200b\u200b", [], [{"role": "user", "content": " "}]])
def test_empty_prompts_are_refused(prompt):
    with pytest.raises(PromptError, match="the prompt is empty"):
        render(prompt)


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        (None, "null"),
        (3, "a number"),
        (float("nan"), "a number"),
        (True, "a number"),
        (b"bytes", "bytes"),
        ({"role": "user", "content": "x"}, "an object"),
        ([{"content": "x"}], r"messages\[0\] has no role"),
        ([{"role": "user"}], r"messages\[0\] has no content"),
        (["hello"], r"messages\[0\] is text"),
        ([{"role": "user", "content": 7}], r"messages\[0\]\.content is a number"),
    ],
)
def test_what_is_no_prompt_is_refused_with_the_reason(prompt, why):
    with pytest.raises(PromptError, match=why):
        render(prompt)


@given(TRICKY)
def test_folding_what_is_folded_changes_nothing(text):
    folded, _ = fold(text)
    again, offsets = fold(folded)
    assert again == folded
    assert offsets is None or np.array_equal(offsets, np.arange(len(folded)))


@given(TRICKY)
def test_offsets_lead_back_in_order(text):
    folded, offsets = fold(text)
    if offsets is None:
        assert len(folded) == len(text)
    else:
        assert len(offsets) == len(folded)
        assert (np.diff(offsets) >= 0).all()
        assert all(0 <= place < len(text) for place in offsets)


@given(TRICKY, st.data())
def test_spans_lie_in_the_raw_prompt(text, data):
    try:
        rendered = render(text)
    except PromptError:
        return
    start = data.draw(st.integers(0, len(rendered.text)))
    end = data.draw(st.integers(start, len(rendered.text)))
    low, high = rendered.raw_span(start, end)
    assert 0 <= low <= high <= len(text)
    assert rendered.raw_span(0, len(rendered.text))[1] == len(text)


def test_a_span_finds_the_raw_words():
    raw = "say ｔｈｉｎｋ\u200b now"
    rendered = render(raw)
    start = rendered.text.index("think")
    low, high = rendered.raw_span(start, start + 5)
    assert raw[low:high].rstrip("\u200b") == "ｔｈｉｎｋ"
