"""Exports for people: what they show, that pictures are in them, and that nothing in them runs or is fetched."""

from __future__ import annotations

import base64
import io
import re
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from impchat import images
from impchat.errors import HistoryError
from impchat.history import archive, documents
from impchat.history.store import History
from impchat.images import Prepared

ME = "me"


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    history = History(tmp_path / "history.db")
    yield history
    history.close()


def picture(colour: str) -> Prepared:
    out = io.BytesIO()
    Image.new("RGB", (24, 16), colour).save(out, "PNG")
    return images.prepare(out.getvalue())


def talk(history: History) -> str:
    red = history.add_image(picture("red"), ME)
    uuid = history.create_conversation(ME, "<b>Shapes</b> & 图形").uuid
    question = history.add_question(uuid, ME, parent=None, text="What <i>is</i> {this}?", images=[red.sha256])
    for text, state in (("Hidden version", "done"), ("A **circle**\n<script>alert(1)</script>", "stopped")):
        row = history.start_answer(uuid, ME, parent=question.uuid, model="imp-demo-196")
        history.finish_answer(row.uuid, text=text, state=state)  # type: ignore[arg-type]
    return uuid


class Seen(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.sources: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [str(value) for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_the_branch_with_its_pictures_and_loads_and_runs_nothing(history: History) -> None:
    page = documents.export_html(history, talk(history), ME, "en")
    seen = Seen(page)
    assert "<b>Shapes</b> & 图形" in seen.text and "What <i>is</i> {this}?" in seen.text
    assert "A **circle**\n<script>alert(1)</script>" in seen.text and "Hidden version" not in page
    assert "This answer was stopped." in seen.text and "ImpChat (imp-demo-196)" in seen.text
    assert not {"script", "b", "i"} & set(seen.tags)
    (source,) = seen.sources
    assert base64.b64decode(source.removeprefix("data:image/png;base64,")) == picture("red").data
    assert "default-src 'none'" in page and "http" not in re.sub(r"http-equiv|data:\S+", "", page)


def test_a_front_end_renders_the_markdown_of_answers_alone(history: History) -> None:
    uuid = talk(history)
    page = documents.export_html(history, uuid, ME, "zh", render=lambda text: f"<em>{len(text)}</em>")
    seen = Seen(page)
    assert seen.tags.count("em") == 1 and "What <i>is</i> {this}?" in seen.text and 'lang="zh"' in page


def test_text_has_every_message_of_the_branch(history: History) -> None:
    assert documents.export_text(history, talk(history), ME) == (
        "<b>Shapes</b> & 图形\n\nYou:\n[picture, 24 x 16 pixels]\nWhat <i>is</i> {this}?\n\n"
        "ImpChat (imp-demo-196):\nA **circle**\n<script>alert(1)</script>\n"
    )


def test_markdown_and_the_pictures_that_it_links_are_in_one_zip(history: History) -> None:
    uuid = talk(history)
    with zipfile.ZipFile(io.BytesIO(documents.export_markdown_zip(history, uuid, ME))) as packed:
        text = packed.read("conversation.md").decode()
        (link,) = re.findall(r"!\[\]\((.+?)\)", text)
        assert packed.read(link) == picture("red").data
        assert len(packed.namelist()) == 2
    assert text == archive.export_markdown(history, uuid, ME)


def test_an_empty_conversation_and_that_of_another_owner(history: History) -> None:
    uuid = history.create_conversation(ME).uuid
    for export in (documents.export_html, documents.export_text, documents.export_markdown_zip):
        assert export(history, uuid, ME)
        with pytest.raises(HistoryError):
            export(history, uuid, "somebody else")
