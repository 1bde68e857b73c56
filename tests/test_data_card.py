"""`python -m data card`: the tables of a corpus' own README."""

import pytest

from data.__main__ import main
from data.corpus_card import BEGIN, END

from .conftest import labelled_rows, write_jsonl


@pytest.fixture
def folder(tmp_path):
    rows = [{**row, "style": "made"} for row in labelled_rows()]
    for name, part in (("organic", rows[::2]), ("others", rows[1::2]), ("suite", rows[:3])):
        (tmp_path / name).mkdir()
        write_jsonl(tmp_path / name / "made.jsonl", part)
    (tmp_path / "README.md").write_text(f"# Ours\n\n{BEGIN}\nold\n{END}\n\nthe end\n", encoding="utf-8")
    return tmp_path


def test_tables_between_the_marks(folder, capsys):
    assert main(["card", str(folder)]) == 0
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text.startswith(f"# Ours\n\n{BEGIN}\n") and text.endswith(f"{END}\n\nthe end\n") and "\nold\n" not in text
    assert "720 records, of which 0 carry two categories" in text  # the three of the suite are none of the corpus
    assert "- censorship_probing: " in text and "forbidden" in text
    assert main(["card", str(folder)]) == 0
    assert "up to date" in capsys.readouterr().out


@pytest.mark.parametrize(("readme", "message"), [(None, "missing; write one"), ("# Ours\n", "needs the lines")])
def test_a_readme_that_cannot_take_them(folder, capsys, readme, message):
    (folder / "README.md").unlink()
    if readme:
        (folder / "README.md").write_text(readme)
    assert main(["card", str(folder)]) == 2
    assert message in capsys.readouterr().err


def test_faults_leave_the_card_as_it_was(folder, capsys):
    before = (folder / "README.md").read_bytes()
    write_jsonl(folder / "organic" / "bad.jsonl", [{"labels": []}])
    assert main(["card", str(folder)]) == 1
    assert "bad.jsonl:1:" in capsys.readouterr().err
    assert (folder / "README.md").read_bytes() == before
