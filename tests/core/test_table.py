"""Tables of answers: what a spreadsheet program, a browser, and the next run after a crash find in the files."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest

from impchat import table
from impchat.errors import SettingsError
from impchat.table import Row, TableFile, natural

ROWS = [
    Row("photos/a.jpg", 'Two people, "maybe" three;\nand a dog.', 1.25, "How many?"),
    Row("photos/ü 图.png", "三个人。", 0.5, "How many?"),
    Row("broken.jpg", "This file is not a picture.", None, "How many?"),
]
TRICKS = ["=1+1", "+1", "-5", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''+2", "＝1", "－2", "=cmd|' /C calc'!A0"]


def cells(data: bytes) -> list[list[str]]:
    """The cells as a spreadsheet program reads them."""
    return list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))


def test_a_csv_file_holds_what_was_answered() -> None:
    data = table.to_csv(ROWS)
    assert data.startswith(b"\xef\xbb\xbf"), "Excel reads it as UTF-8"
    assert cells(data)[0] == ["file", "answer", "seconds", "question"]
    assert cells(data)[1] == ["photos/a.jpg", 'Two people, "maybe" three;\nand a dog.', "1.25", "How many?"]
    assert table.from_csv(data) == ROWS


@pytest.mark.parametrize("trick", TRICKS)
def test_no_cell_is_run_as_a_formula_and_none_is_lost(trick: str) -> None:
    data = table.to_csv([Row(trick, trick, 1.0, trick)])
    file, answer, _, question = cells(data)[1]
    assert all(cell[0] == "'" for cell in (file, answer, question))
    [row] = table.from_csv(data)
    assert row.answer == trick.replace("\r", "\n")


def test_ordinary_cells_are_left_as_they_are() -> None:
    for text in ("a = b", "'quoted'", "5 - 3", "", "  =1"):
        assert cells(table.to_csv([Row("a", text, 1, "q")]))[1][1] == text


def test_names_that_are_not_unicode_and_control_characters_survive_a_table() -> None:
    row = Row("photo\udcff.jpg", "bell \x07 and\x00 nul", 1.0, "q")
    [found] = table.from_csv(table.to_csv([row]))
    assert (found.file, found.answer) == (row.file, "bell \ufffd and\ufffd nul")
    assert b"photo" in table.to_html([row], "en")


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_table_saved_by_a_spreadsheet_program_is_read(ends: str) -> None:
    text = f'file,answer,seconds,question{ends}a.jpg,"One,{ends}two","1,5",How many?{ends}'
    assert table.from_csv(text.encode()) == [Row("a.jpg", "One,\ntwo", 1.5, "How many?")]


def test_a_table_cut_off_anywhere_loses_at_most_its_last_row() -> None:
    whole = table.to_csv(ROWS)
    start = len(table.to_csv(ROWS[:2]))
    for end in range(start, len(whole)):
        assert table.from_csv(whole[:end]) == ROWS[:2]


@pytest.mark.parametrize(("language", "word"), [("en", "Answer"), ("zh", "回答")])
def test_a_page_shows_every_row_and_loads_nothing(language: str, word: str) -> None:
    rows = [*ROWS, Row("<img src=x>.jpg", "<script>alert(1)</script> & more", 2.0, "How many?", b"\xff\xd8jpeg")]
    page = table.to_html(rows, language).decode()
    assert f"<th>{word}</th>" in page and "三个人。" in page and "0.50" in page
    assert "<script" not in page and "<img src=x" not in page
    assert re.findall(r'(?:src|href)="([^"]{0,22})', page) == ["data:image/jpeg;base64"]
    assert "default-src 'none'" in page


def test_names_are_sorted_as_people_count() -> None:
    names = ["b10", "b9", "B 2", "a/10.jpg", "a/9.jpg", "图2", "图10", "9", "010", ""]
    assert sorted(names, key=natural) == ["", "9", "010", "a/9.jpg", "a/10.jpg", "B 2", "b9", "b10", "图2", "图10"]


def test_each_row_is_on_the_disk_before_the_next_question(tmp_path: Path) -> None:
    file = TableFile(tmp_path / "t.csv", "How many?")
    for count, row in enumerate(ROWS, 1):
        file.add(row)
        assert table.from_csv((tmp_path / "t.csv").read_bytes()) == ROWS[:count]
    assert not (tmp_path / "t.html").exists()


def test_a_table_is_continued_after_a_crash_in_the_middle_of_a_row(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(table.to_csv(ROWS[:2])[:-7])
    file = TableFile(path, "How many?")
    assert file.is_done("photos/a.jpg") and not file.is_done("photos/ü 图.png")
    file.add(ROWS[1])
    assert table.from_csv(path.read_bytes()) == ROWS[:2]


def test_a_failed_row_is_replaced_by_a_later_one(tmp_path: Path) -> None:
    file = TableFile(tmp_path / "t.csv", "How many?")
    file.add(ROWS[2])
    assert not file.is_done("broken.jpg")
    file = TableFile(tmp_path / "t.csv", "How many?")
    file.add(Row("broken.jpg", "One.", 1.0, "How many?"))
    file.add(Row("a10.jpg", "Two.", 1.0, "How many?"))
    file.add(Row("a9.jpg", "Three.", 1.0, "How many?", b"seen"))
    made: list[str] = []
    file.finish("en", lambda name: made.append(name) or b"")  # type: ignore[func-returns-value]
    found = table.from_csv((tmp_path / "t.csv").read_bytes())
    assert [(row.file, row.answer) for row in found] == [
        ("a9.jpg", "Three."),
        ("a10.jpg", "Two."),
        ("broken.jpg", "One."),
    ]
    assert made == ["a10.jpg", "broken.jpg"], "a thumbnail that is there is not made again"


def test_files_that_are_something_else_are_left_alone(tmp_path: Path) -> None:
    for name, content in (("t.csv", b"name,age\r\nAnn,7\r\n"), ("t.html", b"<h1>My page</h1>"), ("t.csv", b"\xff\0\n")):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(SettingsError) as caught:
            TableFile(tmp_path / "t.csv", "How many?")
        assert caught.value.code == "table.other_file"
        assert path.read_bytes() == content
        path.unlink()
        (tmp_path / "t.csv").unlink(missing_ok=True)


def test_another_question_does_not_mix_into_a_table(tmp_path: Path) -> None:
    TableFile(tmp_path / "t.csv", "How many?\r\nReally?").add(Row("a", "One", 1.0, "How many?\r\nReally?"))
    assert TableFile(tmp_path / "t.csv", "How many?\r\nReally?").is_done("a")
    with pytest.raises(SettingsError, match="another question, “How many\\?"):
        TableFile(tmp_path / "t.csv", "=1+1")


def test_an_empty_file_becomes_a_table_and_a_folder_does_not(tmp_path: Path) -> None:
    (tmp_path / "t.csv").touch()
    TableFile(tmp_path / "t.csv", "q")
    for path in (tmp_path, tmp_path / "no" / "t.csv"):
        with pytest.raises(SettingsError) as caught:
            TableFile(path, "q")
        assert caught.value.code in ("file.unreadable", "file.unwritable")
