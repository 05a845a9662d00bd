"""A table of answers, one row for each picture: as a CSV file for spreadsheet programs and as one HTML page.

In: rows. Out: bytes of both formats; a CSV file that grows by one row at a time and can be continued after a crash.
This file does not know engines, or where the pictures are.
"""

from __future__ import annotations

import base64
import csv
import io
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from impchat.errors import SettingsError
from impchat.files import write_atomic
from impchat.texts import say

COLUMNS = ("file", "answer", "seconds", "question")
_BOM = b"\xef\xbb\xbf"  # without it, Excel reads the file in the system's code page
_END = "\r\n"  # of a record; newlines within a cell are "\n", so an incomplete last record is recognised
# A spreadsheet program runs a cell that begins with one of these; some accept their wide forms, the last four, too.
_FORMULA = re.compile("'*[=+\\-@\t\n\uff1d\uff0b\uff0d\uff20]")
_CONTROL = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


@dataclass(frozen=True, slots=True)
class Row:
    """The answer about one picture. `seconds` None: it failed, and `answer` is the sentence that says why."""

    file: str  # identifies the row
    answer: str
    seconds: float | None  # from opening the picture to the end of the answer
    question: str
    thumbnail: bytes = field(default=b"", repr=False, compare=False)  # JPEG; b"": none. Not in the CSV

    @property
    def failed(self) -> bool:
        return self.seconds is None


def natural(name: str) -> list[tuple[int, int, str]]:
    """A sort key that puts "photo 9" before "photo 10", in upper and lower case alike."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name.casefold())
    # int() refuses thousands of digits
    return [(0, int(part[-300:]), part) if part.isdecimal() else (1, 0, part.strip()) for part in parts]


def to_csv(rows: Iterable[Row]) -> bytes:
    """The rows in the given order below a line of `COLUMNS`: UTF-8 with a byte order mark, separated by commas. A cell
    that a spreadsheet program would run as a formula begins with an apostrophe. `seconds` is empty for a failed row."""
    return _BOM + _record(COLUMNS) + b"".join(map(_line, rows))


def from_csv(data: bytes) -> list[Row]:
    """The rows of `to_csv`, also after a spreadsheet program has saved them. An incomplete last record, which a crash
    left, is ignored. Raises ValueError for anything else."""
    # "surrogateescape": names of files need not be valid UTF-8.
    text = data.removeprefix(_BOM).decode("utf-8", "surrogateescape")
    records = list(csv.reader(io.StringIO(text, newline="")))
    if not records or tuple(records[0]) != COLUMNS:
        raise ValueError("no table of answers")
    if not text.endswith("\n") or len(records[-1]) != len(COLUMNS):
        records = [records[0], *records[1:-1]]
    rows = []
    for record in records[1:]:
        file, answer, seconds, question = map(_unguarded, record)  # ValueError for another number of cells
        rows.append(Row(file, answer, float(seconds.replace(",", ".")) if seconds else None, question))
    return rows


def to_html(rows: Iterable[Row], language: str) -> bytes:
    """The rows in the given order as a page that needs no other file and loads nothing."""
    rows = list(rows)
    failed = sum(row.failed for row in rows)
    questions = " / ".join(dict.fromkeys(row.question for row in rows))
    summary = say("table.summary", language, count=len(rows) - failed, failed=failed)
    heads = "".join(f"<th>{escape(say(f'table.{name}', language))}</th>" for name in ("picture", "answer", "seconds"))
    page = _PAGE.format(
        language=language,
        question=escape(questions),
        summary=escape(summary),
        heads=heads,
        rows="\n".join(map(_html_row, rows)),
    )
    return page.encode("utf-8", "replace")


class TableFile:
    """The CSV file of one question. Each finished row is on the disk before `add` returns, so a crash loses only rows
    that were still in progress."""

    def __init__(self, path: Path, question: str) -> None:
        """Read the table at `path`, if it exists, to continue it.

        Raises SettingsError "file.unreadable", "file.unwritable", "table.other_file" (it is something else, which is
        left as it is), "table.other_question"."""
        self.path = path
        self.page = path.with_suffix(".html")
        self.rows: dict[str, Row] = {}  # by file
        if path.exists() and os.path.getsize(path):
            self._read(question)
        if self.page.exists() and _MADE_BY not in self._bytes(self.page)[:1000]:
            raise SettingsError("table.other_file", path=self.page)
        self._write(self.path, to_csv(self.rows.values()))

    def _read(self, question: str) -> None:
        try:
            found = from_csv(self._bytes(self.path))
        except (ValueError, csv.Error) as exc:
            raise SettingsError("table.other_file", path=self.path) from exc
        for row in found:
            if row.question != _clean(question):
                raise SettingsError("table.other_question", path=self.path, question=row.question)
            self.rows[row.file] = row

    def is_done(self, file: str) -> bool:
        """Whether there is a row for `file` that did not fail."""
        return file in self.rows and not self.rows[file].failed

    def add(self, row: Row) -> None:
        """Append `row`; it replaces an earlier one of the same file. Raises SettingsError "file.unwritable"."""
        try:
            with open(self.path, "ab") as out:
                out.write(_line(row))
                out.flush()
                os.fsync(out.fileno())
        except OSError as exc:
            raise SettingsError("file.unwritable", path=self.path, detail=exc.strerror or exc) from exc
        self.rows[row.file] = row

    def finish(self, language: str, thumbnail: Callable[[str], bytes]) -> None:
        """Sort the CSV and write the page. `thumbnail`: makes that of a file whose row has none, b"" if it cannot.
        Raises SettingsError "file.unwritable"."""
        rows = sorted(self.rows.values(), key=lambda row: natural(row.file))
        self._write(self.path, to_csv(rows))
        shown = [
            Row(row.file, row.answer, row.seconds, row.question, row.thumbnail or thumbnail(row.file)) for row in rows
        ]
        self._write(self.page, to_html(shown, language))

    @staticmethod
    def _bytes(path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as exc:
            raise SettingsError("file.unreadable", path=path, detail=exc.strerror or exc) from exc

    @staticmethod
    def _write(path: Path, data: bytes) -> None:
        try:
            write_atomic(path, data)
        except OSError as exc:
            raise SettingsError("file.unwritable", path=path, detail=exc.strerror or exc) from exc


def _line(row: Row) -> bytes:
    seconds = "" if row.seconds is None else f"{row.seconds:.2f}"
    return _record(map(_guarded, (row.file, row.answer, seconds, row.question)))


def _record(cells: Iterable[str]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator=_END).writerow(cells)
    return out.getvalue().encode("utf-8", "surrogateescape")


def _clean(text: str) -> str:
    """`text` with "\\n" as its only newline and other control characters replaced."""
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_CONTROL)


def _guarded(cell: str) -> str:
    cell = _clean(cell)
    return f"'{cell}" if _FORMULA.match(cell) else cell


def _unguarded(cell: str) -> str:
    cell = _clean(cell)
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _html_row(row: Row) -> str:
    source = base64.b64encode(row.thumbnail).decode()
    picture = f'<img alt="" src="data:image/jpeg;base64,{source}">' if source else ""
    seconds = "" if row.seconds is None else f"{row.seconds:.2f}"
    kind = ' class="failed"' if row.failed else ""
    name, answer = escape(_clean(row.file)), escape(_clean(row.answer))
    return (
        f'<tr{kind}><td><figure>{picture}<figcaption dir="auto">{name}</figcaption></figure></td>'
        f'<td class="answer" dir="auto">{answer}</td><td class="seconds">{seconds}</td></tr>'
    )


_MADE_BY = b'<meta name="generator" content="ImpChat">'
_PAGE = """<!doctype html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="generator" content="ImpChat">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{question}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.4rem; line-height: 1.3; white-space: pre-wrap; overflow-wrap: anywhere; margin: 0 0 .25rem; }}
p {{ margin: 0 0 1.5rem; opacity: .75; }}
table {{ border-collapse: collapse; width: 100%; }}
th {{ text-align: start; font-size: .875rem; }}
th, td {{ padding: .5rem .75rem .5rem 0; border-bottom: 1px solid #8886; vertical-align: top; }}
th:last-child, .seconds {{ text-align: end; padding-inline-end: 0; white-space: nowrap; }}
.seconds {{ font-variant-numeric: tabular-nums; }}
.answer {{ width: 100%; white-space: pre-wrap; overflow-wrap: anywhere; }}
figure {{ margin: 0; width: 128px; }}
img {{ display: block; max-width: 100%; border-radius: 4px; outline: 1px solid #8884; }}
figcaption {{ font-size: .8125rem; line-height: 1.35; opacity: .8; overflow-wrap: anywhere; margin-top: .25rem; }}
.failed .answer {{ color: #c62828; color: light-dark(#a12020, #ff9d94); }}
tr {{ break-inside: avoid; }}
@media (max-width: 36rem) {{ figure {{ width: 88px; }} }}
</style>
</head>
<body>
<h1 dir="auto">{question}</h1>
<p>{summary}</p>
<table>
<thead><tr>{heads}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</body>
</html>
"""
