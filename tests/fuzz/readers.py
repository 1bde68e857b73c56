"""Reading tables out of any bytes: rows or an `InputError`. `python -m tests.fuzz.readers -runs=100000`."""

from __future__ import annotations

import datetime
import gzip
import io
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from inference.job.files import InputError
from inference.job.readers import column_names, count_rows, find_columns, read_rows
from tests.fuzz.render import SECRET, check_messages, check_render

KINDS = (".jsonl", ".csv", ".tsv", ".jsonl.gz", ".csv.gz", ".jsonl.zst", ".parquet", ".arrow", ".feather.arrow")


def check_file(path: Path) -> int:
    """Every way in which a job looks at a file; how many rows there are, or -1 where the file is refused."""
    rows = -1
    for look in (count_rows, column_names, _wanted_columns, _read_some, _read_all):
        try:
            found = look(path)
        except InputError as error:
            assert SECRET not in str(error) and str(path) in str(error), str(error)
        else:
            rows = found if look is _read_all else rows
    return rows


def _wanted_columns(path: Path) -> Any:
    return find_columns(path, ["text", "messages", "id"])


def _read_some(path: Path) -> None:
    for row in read_rows(path, ["text", "none"]):
        assert row.values.keys() <= {"text"}


def _read_all(path: Path) -> int:
    number = 0
    for number, row in enumerate(read_rows(path), 1):  # noqa: B007 (it is counted)
        assert row.error is None or (SECRET not in row.error and not row.values), row.error
        check_render(row.values.get("text"))
        if isinstance(row.values.get("messages"), str):
            check_messages(row.values["messages"])
    return number


@cache
def sound(kind: str) -> bytes:
    """A sound file of a kind, with values of many types."""
    day = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    messages = [[{"role": "user", "content": f"{SECRET} {i}"}] for i in range(20)]
    table = pyarrow.table(
        {
            "id": range(20),
            "text": [f"{SECRET} {i}\n" if i % 3 else None for i in range(20)],
            "messages": messages,
            "time": [day] * 20,
            "day": pyarrow.array([day] * 20, pyarrow.date32()),
            "price": pyarrow.array([1] * 20, pyarrow.decimal128(9, 2)),
            "kind": pyarrow.array(["a", "b"] * 10).dictionary_encode(),
            "map": pyarrow.array([[("a", 1)]] * 20, pyarrow.map_(pyarrow.string(), pyarrow.int64())),
            "bytes": [b"\xff"] * 20,
        }
    )
    sink = io.BytesIO()
    if kind == ".parquet":
        pyarrow.parquet.write_table(table, sink, row_group_size=7)
    elif kind in (".arrow", ".feather.arrow"):
        opener = pyarrow.ipc.new_stream if kind == ".arrow" else pyarrow.ipc.new_file
        with opener(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=9)
    elif kind.startswith(".jsonl"):
        sink.write(b"".join(b'{"id": %d, "text": "%s \\u00e9"}\n' % (i, SECRET.encode()) for i in range(20)))
    else:
        mark = b"\t" if kind == ".tsv" else b","
        rows = [b'%d%s"%s, ""%d""\n"' % (i, mark, SECRET.encode(), i) for i in range(20)]
        sink.write(b"\n".join([b"id" + mark + b"text", *rows]))
    return packed(kind, sink.getvalue())


def packed(kind: str, data: bytes) -> bytes:
    """The bytes as the file's ending says."""
    if kind.endswith(".gz"):
        return gzip.compress(data, 1, mtime=0)
    return pyarrow.compress(data, codec="zstd", asbytes=True) if kind.endswith(".zst") else data


def changed(kind: str, changes: bytes) -> bytes:
    """A sound file with bytes changed: each three of `changes` are a place and what is put there."""
    data = bytearray(sound(kind))
    for i in range(0, len(changes) - 2, 3):
        data[int.from_bytes(changes[i : i + 2], "little") % len(data)] = changes[i + 2]
    return bytes(data)


FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))


def one_input(data: bytes) -> None:
    """What atheris calls."""
    if not data:
        return
    kind = KINDS[data[0] % len(KINDS)]
    how = data[0] // len(KINDS) % 4
    rest = data[1:]
    if how == 0:
        content = rest
    elif how == 1:
        content = packed(kind, rest)
    elif how == 2:
        content = changed(kind, rest)
    else:
        content = sound(kind)[: int.from_bytes(rest[:2], "little")] + rest[2:]
    path = FOLDER / f"input{kind}"
    path.write_bytes(content)
    check_file(path)


if __name__ == "__main__":
    from tests.fuzz import run

    run(one_input)
