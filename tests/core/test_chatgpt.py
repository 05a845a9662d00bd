"""ChatGPT's export: what a person saw there is imported with its versions and pictures; anything else is refused."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from impchat import images, settings
from impchat.errors import HistoryError
from impchat.history import archive
from impchat.history.store import History

ME = "me"


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    history = History(tmp_path / "history.db")
    yield history
    history.close()


def png(colour: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (24, 16), colour).save(out, "PNG")
    return out.getvalue()


def node(
    key: str, parent: str | None, children: list[str], role: str = "", *parts: Any, kind: str = "text", **more: Any
) -> dict[str, Any]:
    content = {"content_type": kind, "parts": list(parts)}
    message = {"id": key, "author": {"role": role}, "content": content, "create_time": 1700000000.25, **more}
    return {"id": key, "parent": parent, "children": children, "message": message if role else None}


def pointer(name: str) -> dict[str, Any]:
    return {"content_type": "image_asset_pointer", "asset_pointer": name, "width": 24, "height": 16}


def conversation(*nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "conversation_id": "6790c1de-aaaa-8001-bbbb-000000000001",
        "title": "Shapes 图形",
        "create_time": 1700000000.0,
        "update_time": 1700000600.5,
        "mapping": {n["id"]: n for n in nodes},
        **more,
    }


TALK = conversation(
    node("root", None, ["system"]),
    node("system", "root", ["q1"], "system", "", metadata={"is_visually_hidden_from_conversation": True}),
    node("q1", "system", ["tool-call", "a1b"], "user", pointer("file-service://file-AbC123"), "What is this?",
         kind="multimodal_text"),
    node("tool-call", "q1", ["tool"], "assistant", "search('shape')", recipient="browser"),
    node("tool", "tool-call", ["a1"], "tool", "results"),
    node("a1", "tool", ["a1-more"], "assistant", "A red circle\ue200cite\ue202turn0\ue201.",
         metadata={"model_slug": "gpt-4o"}),
    node("a1-more", "a1", ["q2"], "assistant", "It is round."),
    node("a1b", "q1", [], "assistant", "A ball.", status="in_progress"),
    node("q2", "a1-more", ["a2"], "user", "And its colour?"),
    node("a2", "q2", [], "assistant", "Red."),
    current_node="a2",
)  # fmt: skip


def zipped(conversations: object, **files: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("conversations.json", json.dumps(conversations))
        packed.writestr("chat.html", "<html>")
        for name, data in files.items():
            packed.writestr(name, data)
    return out.getvalue()


def texts(history: History, uuid: str) -> list[str]:
    return [message.text for message in history.branch(uuid, ME)]


def refused(history: History, data: bytes) -> str:
    with pytest.raises(HistoryError) as caught:
        archive.import_file(history, data, ME)
    assert history.conversations(ME) == [] and caught.value.sentence("zh") and caught.value.sentence("en")
    return caught.value.code


def test_a_conversation_arrives_with_its_versions_pictures_and_times(history: History) -> None:
    data = zipped([TALK], **{"file-AbC123-photo.png": png("red"), "file-Unused.png": png("blue")})
    (row,) = archive.import_file(history, data, ME)
    assert (row.title, row.owner) == ("Shapes 图形", ME)
    assert (row.created_utc, row.updated_utc) == ("2023-11-14T22:13:20.000Z", "2023-11-14T22:23:20.500Z")
    assert texts(history, row.uuid) == ["What is this?", "A red circle.\n\nIt is round.", "And its colour?", "Red."]
    question, answer = history.branch(row.uuid, ME)[:2]
    assert question.images == (images.prepare(png("red")).image.sha256,)
    assert history.image_bytes(question.images[0]) == images.prepare(png("red")).data
    assert (answer.model, answer.state, answer.created_utc) == ("gpt-4o", "done", "2023-11-14T22:13:20.250Z")
    assert [(m.text, m.state) for m in history.siblings(answer.uuid, ME)[1:]] == [("A ball.", "interrupted")]
    assert len(history.pictures(ME)) == 1 and len(history.search(ME, "round")) == 1

    whole = history.messages(row.uuid, ME)
    assert archive.import_file(history, data, ME) == [row]  # nothing twice
    assert history.messages(row.uuid, ME) == whole
    assert archive.import_zip(history, archive.export_zip(history, row.uuid, ME), ME) == row


def test_the_json_alone_is_taken_without_the_pictures(history: History) -> None:
    only = conversation(
        node("q", None, ["a"], "user", pointer("sediment://file_0000"), kind="multimodal_text"),
        node("a", "q", [], "assistant", "A cat"),
        title="",
        conversation_id="another",
    )
    rows = archive.import_file(history, b"\xef\xbb\xbf " + json.dumps([TALK, only]).encode(), ME)
    assert texts(history, rows[0].uuid)[0] == "What is this?"
    assert texts(history, rows[1].uuid) == ["…", "A cat"]
    assert history.pictures(ME) == []
    assert archive.import_file(history, json.dumps(TALK).encode(), ME) == rows[:1]  # one conversation, without a list


def test_pictures_that_are_missing_damaged_or_huge_are_left_out(history: History) -> None:
    talk = conversation(
        node("q", None, [], "user", "Look", *(pointer(f"sediment://file_{n}") for n in "abc"), kind="multimodal_text")
    )
    data = zipped([talk], **{"x/file_a-sanitized.png": b"no picture", "file_b.png": png("lime")})
    (row,) = archive.import_file(history, data, ME)
    (question,) = history.branch(row.uuid, ME)
    assert question.images == (images.prepare(png("lime")).image.sha256,)


def test_a_large_export_in_numbered_files_is_taken_whole(history: History) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for n in range(3):
            one = conversation(node("q", None, [], "user", f"Question {n}"), conversation_id=f"c{n}")
            packed.writestr(f"export/conversations-00{n}.json", json.dumps([one]))
    assert [texts(history, row.uuid) for row in archive.import_file(history, out.getvalue(), ME)] == [
        ["Question 0"],
        ["Question 1"],
        ["Question 2"],
    ]


def test_a_greeting_before_the_first_question_and_an_empty_chat(history: History) -> None:
    greeting = conversation(node("a", None, ["q"], "assistant", "Hello!"), node("q", "a", [], "user", "Hi"))
    empty = conversation(node("root", None, []), conversation_id="empty")
    (row,) = archive.import_file(history, json.dumps([greeting, empty]).encode(), ME)
    assert texts(history, row.uuid) == ["…", "Hello!", "Hi"]


@pytest.mark.parametrize(
    "broken",
    [
        {"title": "no mapping"},
        {"mapping": []},
        {"mapping": {"a": None}},
        {"mapping": {"a": {"message": {"author": "me"}}}},
        {"mapping": {"a": {"message": {"author": {"role": "user"}, "content": "x"}}}},
        {"mapping": {}, "create_time": 1e300},
        7,
        None,
    ],
)
def test_a_conversation_that_cannot_be_read_is_left_out(history: History, broken: object) -> None:
    (row,) = archive.import_file(history, json.dumps([broken, TALK]).encode(), ME)
    assert row.title == TALK["title"]
    history.purge_conversation(row.uuid, ME)
    assert refused(history, json.dumps([broken]).encode()) == "archive.broken"


def test_a_tree_with_circles_or_missing_nodes_ends(history: History) -> None:
    circle = conversation(
        node("a", None, ["b", "gone"], "user", "Q"),
        node("b", "a", ["c"], "assistant", "A"),
        node("c", "b", ["b"], "user", "Q2"),
        node("lost", "nowhere", [], "user", "Lost"),
        current_node="nowhere",
    )
    (row,) = archive.import_file(history, json.dumps([circle]).encode(), ME)
    assert {m.text for m in history.messages(row.uuid, ME)} >= {"Q", "A", "Lost"}


def test_other_files_are_refused(history: History) -> None:
    for data in (b"", b"[]", b"{", b"[1, 2]", b'{"a": 1}', b"hello", b"PK", png("red"), b"[" * 100_000, zipped([])):
        assert refused(history, data) == "archive.broken"
    assert refused(history, zipped([TALK])[:-200]) == "archive.broken"
    assert refused(history, b"[" + b" " * settings.CHATGPT_JSON_BYTES) == "archive.too_large_chatgpt"
    bomb = io.BytesIO()
    with (
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed,
        packed.open("conversations.json", "w") as out,
    ):
        for _ in range(settings.CHATGPT_JSON_BYTES // 2**20 + 1):
            out.write(b" " * 2**20)
    assert refused(history, bomb.getvalue()) == "archive.too_large_chatgpt"


def test_our_exports_of_one_and_of_several_are_taken_by_the_same_function(history: History, tmp_path: Path) -> None:
    rows = archive.import_file(history, json.dumps([TALK, conversation(node("q", None, [], "user", "Q"),
                               conversation_id="other")]).encode(), ME)  # fmt: skip
    out = io.BytesIO()
    archive.export_many(history, [row.uuid for row in rows], ME, out)
    there = History(tmp_path / "there" / "history.db")
    assert archive.import_file(there, archive.export_zip(history, rows[0].uuid, ME), ME) == rows[:1]
    assert archive.import_file(there, out.getvalue(), ME) == rows
    assert there.messages(rows[0].uuid, ME) == history.messages(rows[0].uuid, ME)
    there.close()
