"""Whatever is read, rendered and folded: the result or one clear error, without the prompt, in bounded time and memory."""

import gzip
import io
import itertools
import random
import time
import tracemalloc
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from inference import windows
from inference.folding import _normalize, fold
from inference.job.files import InputError, read_lines
from inference.job.readers import read_rows
from inference.prompts import PromptError, normalise_messages, render
from inference.windows import Windower, WindowSpec
from tests.fuzz import readers as tables
from tests.fuzz import render as rendering
from tests.test_inference_hostile import byte_tokenizer

LINES = st.lists(st.sampled_from([b"\n", b"a", b"bb", b"\r", b"\n\n", b"\xff" * 9, b"c" * 40]), max_size=40).map(
    b"".join
)
MARKS = "".join(
    char
    for char in map(chr, range(0x110000))
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Mc") and unicodedata.decomposition(char)
)
HEAVY = st.text(
    st.one_of(st.sampled_from(MARKS), st.sampled_from("ae가각\u1161\u11a8ﾊ\uff9eǺﬃ\u0344\u0f73 ")), max_size=300
)
WORDS = st.lists(
    st.sampled_from(
        [
            *("the", "my", "bread", "don't", "3.5", "12,345", "naïve", "中文", "🙂", "x-y", "ﷺ"),
            *("<s>", "[CLS]", "\u2581", "\xa0", "\u3000", "\n", ""),
        ]
    ),
    max_size=60,
)


# Lines of files


@settings(max_examples=400)
@given(LINES, st.integers(1, 50), st.integers(1, 30))
def test_lines_are_those_of_the_stream_but_for_the_too_long(data, limit, buffer):
    expected = [line if len(line) <= limit else None for line in io.BytesIO(data).readlines()]
    packed = gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(data)))
    for stream in (io.BytesIO(data), io.BufferedReader(io.BytesIO(data), buffer), packed):
        assert list(read_lines(stream, limit)) == expected


def test_a_line_without_end_takes_bounded_memory(tmp_path):
    member = gzip.compress(b"a" * (16 << 20), 1)
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "') + member * 12 + gzip.compress(b'"}\n{"text": "after"}\n'))
    with gzip.open(path) as stream:
        tracemalloc.start()
        lines = list(read_lines(stream, 1 << 20))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert lines == [None, b'{"text": "after"}\n']
    assert peak < 4 << 20


@pytest.mark.parametrize("kind", [".jsonl.gz", ".csv.gz", ".jsonl.zst"])
def test_a_compressed_file_that_is_cut_off_or_broken_is_refused(tmp_path, kind):
    path = tmp_path / f"a{kind}"
    whole = tables.packed(kind, b"\n".join(b'"%d %s","b"' % (i, str(i * i).encode()) for i in range(9000)))
    path.write_bytes(whole)
    assert len(list(read_rows(path))) >= 8999
    for broken in (
        whole[: len(whole) // 2],
        whole[:-6],
        whole[:500] + bytes(len(whole) - 500),
        b"\x1f\x8b" + bytes(99),
    ):
        path.write_bytes(broken)
        with pytest.raises(InputError, match=f"a{kind}: "):
            list(read_rows(path))


@settings(max_examples=60)
@given(st.sampled_from(tables.KINDS), st.sampled_from(["raw", "packed", "changed"]), st.binary(max_size=200))
def test_any_bytes_are_rows_or_an_input_error(tmp_path_factory, kind, how, data):
    path = tmp_path_factory.getbasetemp() / f"any{kind}"
    content = {
        "raw": lambda: data,
        "packed": lambda: tables.packed(kind, data),
        "changed": lambda: tables.changed(kind, data),
    }
    path.write_bytes(content[how]())
    tables.check_file(path)


@pytest.mark.parametrize("kind", tables.KINDS)
def test_sound_files_of_every_kind_are_read(tmp_path, kind):
    (tmp_path / f"sound{kind}").write_bytes(tables.sound(kind))
    assert tables.check_file(tmp_path / f"sound{kind}") == 20


# Prompts


@settings(max_examples=400)
@given(st.binary(max_size=150))
@example(b"\0" * 40)
def test_any_value_is_text_or_a_prompt_error(data):
    rendering.one_input(data)


@settings(max_examples=400)
@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.binary(max_size=9)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(st.sampled_from(["role", "content", "from", "value", "tool_calls", "type", "text"]), inner),
            st.lists(inner, max_size=3).map(lambda items: np.array([*items, None], dtype=object)),
        ),
        max_leaves=12,
    )
)
def test_any_structure_is_text_or_a_prompt_error(value):
    rendering.check_render(value)
    rendering.check_render([{"role": "user", "content": value, "tool_calls": value}])


def test_tool_calls_from_an_array_read_like_those_from_a_list():
    calls = [{"name": "look", "arguments": {"at": 1}}]
    turns = [{"role": "assistant", "content": None, "tool_calls": calls}]
    array = [{"role": "assistant", "content": None, "tool_calls": np.array(calls, dtype=object)}]
    assert normalise_messages(array) == normalise_messages(turns)
    empty = np.array([], dtype=object)
    assert normalise_messages([{"role": "user", "content": "x", "tool_calls": empty}]) == [
        {"role": "user", "content": "x"}
    ]


def test_what_cannot_be_written_as_json_is_refused_without_a_quote():
    around = []
    around.append(around)
    deep = "xqzjv"
    for _ in range(100_000):
        deep = [deep]
    for calls in (around, [10**5000], [{("xqzjv",): 1}], deep):
        with pytest.raises(PromptError, match=r"^messages\[0\]\.tool_calls cannot be written as JSON$"):
            render([{"role": "user", "content": "x", "tool_calls": calls}])
    with pytest.raises(PromptError, match="holds a part whose type cannot be written"):
        render([{"role": "user", "content": [{"type": 10**5000}]}])
    while isinstance(deep, list):  # one by one: freed at once, so deep a list would overflow the stack of old Pythons
        deep = deep[0]


# Folding


@settings(max_examples=400)
@given(HEAVY)
def test_marks_in_any_number_are_composed_as_the_standard_says(text):
    assert _normalize(text) == unicodedata.normalize("NFKC", text)


@settings(max_examples=400)
@given(HEAVY)
def test_folding_many_marks_is_folding_for_good(text):
    rendering.check_fold(text)


@pytest.mark.parametrize("marks", ["\u0301\u0327\u0323\u05b0\u0345", "\u0f73"])
def test_half_a_million_marks_are_folded_in_seconds(marks):
    text = "a" + "".join(random.Random(0).choices(marks, k=500_000))
    start = time.perf_counter()
    folded, offsets = fold(text)
    assert time.perf_counter() - start < 30  # the library alone takes minutes
    assert len(folded) == len(offsets) > 400_000


# Windows


@given(texts=st.lists(st.tuples(WORDS, st.sampled_from([" ", "  ", "\n"])).map(lambda t: t[1].join(t[0])), max_size=4))
@pytest.mark.parametrize("kind", ["words", "bytes"])
def test_a_long_text_in_pieces_becomes_the_same_windows(encoder, kind, texts):
    tokenizer = Tokenizer.from_file(str(encoder / "tokenizer.json")) if kind == "words" else BYTES
    windower = Windower(tokenizer, WindowSpec(16, 4, 5))
    whole = windower(texts)
    with pytest.MonkeyPatch.context() as patch:
        for size in (2, 11, 40):
            patch.setattr(windows, "_TOGETHER", size)
            assert windower(texts) == whole


def test_texts_are_read_in_groups_of_bounded_size():
    texts = ["a" * n for n in (5, 5, 1, 30, 1, 1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "_TOGETHER", 10)
        groups = list(windows._groups(texts))
    assert [len(group) for group in groups] == [2, 1, 1, 2]
    assert list(itertools.chain(*groups)) == texts
    assert list(windows._groups([])) == []


BYTES = byte_tokenizer()
