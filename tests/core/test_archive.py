"""Export and import: an exported conversation is imported unchanged to the last byte; everything else is refused as
a whole."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from impchat import images, settings
from impchat.errors import HistoryError
from impchat.history import archive
from impchat.history.store import History
from impchat.images import Prepared
from impchat.messages import Conversation, Failed, Message, Stats

ME, OTHER = "me", "somebody else"


def picture(colour: str, kind: str = "PNG") -> Prepared:
    out = io.BytesIO()
    Image.new("RGB", (24, 16), colour).save(out, kind)
    return images.prepare(out.getvalue())


@pytest.fixture
def histories(tmp_path: Path) -> Iterator[tuple[History, History]]:
    here, there = History(tmp_path / "here" / "history.db"), History(tmp_path / "there" / "history.db")
    yield here, there
    here.close()
    there.close()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A zip of a conversation with every feature."""
    history = History(tmp_path_factory.mktemp("exported") / "history.db")
    data = archive.export_zip(history, rich_conversation(history), ME)
    history.close()
    return data


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """A history for imports that fail; `refused` checks that it is unchanged."""
    history = History(tmp_path_factory.mktemp("refusing") / "history.db")
    rich_conversation(history)
    yield history
    history.close()


@pytest.fixture
def here(histories: tuple[History, History]) -> History:
    return histories[0]


@pytest.fixture
def there(histories: tuple[History, History]) -> History:
    return histories[1]


def rich_conversation(history: History) -> str:
    """Add a conversation with every feature; return its uuid."""
    red, photo, blue = (history.add_image(p, ME) for p in (picture("red"), picture("olive", "JPEG"), picture("blue")))
    uuid = history.create_conversation(ME, "Shapes 图形").uuid
    question = history.add_question(uuid, ME, parent=None, text="这是什么？\0 🐱", images=[red.sha256, photo.sha256])
    first = history.start_answer(uuid, ME, parent=question.uuid, model="imp-demo-196")
    stats = Stats(prompt_tokens=236, cached_tokens=200, new_tokens=36, generated_tokens=4, vision_s=0.1, decode_s=1 / 3)
    history.finish_answer(
        first.uuid, text="A red circle.", state="done", finish_reason="stop", stats=stats, tokens=(1, 0, 51199)
    )
    follow = history.add_question(uuid, ME, parent=first.uuid, text="And its colour?")
    failed = history.start_answer(uuid, ME, parent=follow.uuid, model="imp-demo-196")
    error = Failed("image.too_many_pixels", {"limit": 120})
    history.finish_answer(failed.uuid, text="It", state="failed", error=error, dropped_turns=1)
    second = history.start_answer(uuid, ME, parent=question.uuid, model="imp-v1.5-3b-196")
    history.finish_answer(second.uuid, text="", state="stopped", finish_reason="stopped", tokens=())
    history.add_question(uuid, ME, parent=None, text="What is this?")
    history.update_conversation(
        uuid, ME, folder="School", tags=["maths", "图形"], pinned=True, draft="And then", draft_images=[blue.sha256],
        leaf=failed.uuid,
    )  # fmt: skip
    return uuid


def parts(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    return out.getvalue()


def changed(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """The zip with a change to its conversation.json."""
    files = parts(data)
    index = json.loads(files["conversation.json"])
    change(index)
    return zipped(files | {"conversation.json": json.dumps(index).encode()})


def everything(history: History) -> tuple[object, ...]:
    """All visible content of a history, and its files."""
    listed = [*history.conversations(ME), *history.conversations(OTHER), *history.conversations(ME, deleted=True)]
    messages = [history.messages(conversation.uuid, conversation.owner) for conversation in listed]
    folder = history._database.path.parent / "images"
    return listed, messages, sorted(str(path) for path in folder.rglob("*.*"))


def refused(history: History, data: bytes) -> str:
    before = everything(history)
    with pytest.raises(HistoryError) as caught:
        archive.import_zip(history, data, ME)
    assert everything(history) == before
    assert caught.value.sentence("en") and caught.value.sentence("zh")
    return caught.value.code


def test_import_then_export_gives_equal_bytes(here: History, there: History) -> None:
    uuid = rich_conversation(here)
    data = archive.export_zip(here, uuid, ME)
    arrived = archive.import_zip(there, data, OTHER)
    assert archive.export_zip(there, arrived.uuid, OTHER) == data

    assert arrived.uuid == uuid and arrived.owner == OTHER
    for one, other in zip(here.messages(uuid, ME), there.messages(uuid, OTHER), strict=True):
        assert one == other
    assert there.branch(uuid, OTHER) == here.branch(uuid, ME)
    for message in there.messages(uuid, OTHER):
        for sha256 in message.images:
            assert there.image_of(OTHER, sha256) and there.image_bytes(sha256) == here.image_bytes(sha256)
    assert len(there.search(OTHER, "什么")) == 1 and len(there.search(OTHER, "circle")) == 1


def test_an_empty_conversation_can_be_exported_and_imported(here: History, there: History) -> None:
    uuid = here.create_conversation(ME).uuid
    data = archive.export_zip(here, uuid, ME)
    archive.import_zip(there, data, ME)
    assert archive.export_zip(there, uuid, ME) == data


def test_equal_conversations_give_equal_bytes_at_any_time(here: History) -> None:
    uuid = rich_conversation(here)
    assert archive.export_zip(here, uuid, ME) == archive.export_zip(here, uuid, ME)


def test_a_zip_holds_readable_json_and_pictures_by_hash_and_no_owner(here: History) -> None:
    uuid = rich_conversation(here)
    files = parts(archive.export_zip(here, uuid, ME))
    index = json.loads(files.pop("conversation.json"))
    assert index["format"] == 2 and index["conversation"]["title"] == "Shapes 图形"
    assert "owner" not in index["conversation"] and "somebody" not in json.dumps(index)
    assert sorted(files) == sorted(archive.image_files(here, uuid, ME))
    assert all(re.fullmatch(r"images/[0-9a-f]{64}\.(jpg|png)", name) for name in files) and len(files) == 3


def test_a_running_answer_is_exported_with_its_text_so_far(here: History, there: History) -> None:
    uuid = here.create_conversation(ME).uuid
    question = here.add_question(uuid, ME, parent=None, text="Q")
    answer = here.start_answer(uuid, ME, parent=question.uuid, model="m")
    here.flush_answer(answer.uuid, "The first words")
    data = archive.export_zip(here, uuid, ME)
    archive.import_zip(there, data, ME)
    assert there.message(answer.uuid, ME).state == "interrupted"
    assert there.message(answer.uuid, ME).text == "The first words"
    assert archive.export_zip(there, uuid, ME) == data
    assert here.message(answer.uuid, ME).state == "streaming"


def test_another_owners_conversation_cannot_be_exported(here: History) -> None:
    uuid = rich_conversation(here)
    for export in (archive.export_zip, archive.export_markdown, archive.image_files):
        with pytest.raises(HistoryError) as caught:
            export(here, uuid, OTHER)
        assert caught.value.code == "history.no_conversation"


# Exports of earlier versions

# An export of format 1, written by hand. It must stay importable: do not change it together with the code.
RED = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000030000000208020000001216f14d0000001049444154789c63fccf00054c30060300132901"
    "03f0d807840000000049454e44ae426082"
)
RED_SHA256 = "e3912111240cc23d3907176b114871cb7c9c47e3f55202afa61554de07f4baa9"
FORMAT_1: dict[str, Any] = {
    "format": 1,
    "conversation": {
        "uuid": "00000000-0000-4000-8000-000000000001",
        "title": "Shapes 图形",
        "created_utc": "2026-11-01T08:00:00.000Z",
        "updated_utc": "2026-11-01T08:00:30.000Z",
        "folder": "School",
        "tags": ["maths", "图形"],
        "pinned": True,
        "draft": "And then",
        "draft_images": [RED_SHA256],
        "leaf": "00000000-0000-4000-8000-000000000003",
    },
    "messages": [
        {
            "uuid": "00000000-0000-4000-8000-000000000002",
            "parent": None,
            "role": "user",
            "text": "What is this?",
            "images": [RED_SHA256],
            "state": "done",
            "created_utc": "2026-11-01T08:00:10.000Z",
            "finish_reason": None,
            "model": None,
            "tokens": None,
            "stats": None,
            "dropped_turns": 0,
            "error": None,
        },
        {
            "uuid": "00000000-0000-4000-8000-000000000003",
            "parent": "00000000-0000-4000-8000-000000000002",
            "role": "assistant",
            "text": "A red",
            "images": [],
            "state": "failed",
            "created_utc": "2026-11-01T08:00:11.000Z",
            "finish_reason": "length",
            "model": "imp-demo-196",
            "tokens": [1, 0, 51199],
            "stats": {
                "prompt_tokens": 236,
                "cached_tokens": 200,
                "new_tokens": 36,
                "generated_tokens": 3,
                "vision_s": 0.25,
                "prefill_s": 0.5,
                "decode_s": 1.5,
                "first_token_s": 0.75,
            },
            "dropped_turns": 2,
            "error": {"code": "image.too_many_pixels", "values": {"limit": 120}},
        },
    ],
    "images": [{"sha256": RED_SHA256, "width": 3, "height": 2, "mime": "image/png", "size_bytes": 73}],
}
CONVERSATION = Conversation(
    "00000000-0000-4000-8000-000000000001", ME, "Shapes 图形", "2026-11-01T08:00:00.000Z", "2026-11-01T08:00:30.000Z",
    "School", ("maths", "图形"), True, "And then", (RED_SHA256,), "00000000-0000-4000-8000-000000000003",
)  # fmt: skip
QUESTION = Message(
    "00000000-0000-4000-8000-000000000002", CONVERSATION.uuid, None, "user", "What is this?", (RED_SHA256,), "done",
    "2026-11-01T08:00:10.000Z",
)  # fmt: skip
ANSWER = Message(
    "00000000-0000-4000-8000-000000000003", CONVERSATION.uuid, QUESTION.uuid, "assistant", "A red", (), "failed",
    "2026-11-01T08:00:11.000Z", "length", "imp-demo-196", (1, 0, 51199), Stats(236, 200, 36, 3, 0.25, 0.5, 1.5, 0.75),
    2, Failed("image.too_many_pixels", {"limit": 120}),
)  # fmt: skip


def by_hand(index: dict[str, Any]) -> bytes:
    return zipped({"conversation.json": json.dumps(index).encode(), f"images/{RED_SHA256}.png": RED})


def names(kind: type[Any], index: dict[str, Any], *, defaulted: bool) -> list[str]:
    """The fields of `index` that have, or do not have, a default in the dataclass."""
    return [f.name for f in fields(kind) if f.name in index and (f.default is not MISSING) == defaulted]


def test_an_export_of_format_1_is_taken(here: History) -> None:
    assert archive.import_zip(here, by_hand(FORMAT_1), ME) == CONVERSATION
    assert here.messages(CONVERSATION.uuid, ME) == [QUESTION, ANSWER]
    assert here.image_bytes(RED_SHA256) == RED


@pytest.mark.parametrize("name", names(Conversation, FORMAT_1["conversation"], defaulted=True))
def test_a_field_of_the_conversation_that_an_export_lacks_takes_its_default(name: str) -> None:
    index = deepcopy(FORMAT_1)
    del index["conversation"][name]
    default = {f.name: f.default for f in fields(Conversation)}[name]
    read, messages, _ = archive.read_zip(by_hand(index), ME)
    assert read == replace(CONVERSATION, **{name: default}) and messages == [QUESTION, ANSWER]


@pytest.mark.parametrize("name", names(Message, FORMAT_1["messages"][1], defaulted=True))
def test_a_field_of_a_message_that_an_export_lacks_takes_its_default(name: str) -> None:
    index = deepcopy(FORMAT_1)
    for message in index["messages"]:
        del message[name]
    default = {f.name: f.default for f in fields(Message)}[name]
    read, messages, _ = archive.read_zip(by_hand(index), ME)
    assert read == CONVERSATION and messages == [QUESTION, replace(ANSWER, **{name: default})]


@pytest.mark.parametrize("name", asdict(Stats()))
def test_a_number_of_the_stats_that_an_export_lacks_is_0(name: str) -> None:
    index = deepcopy(FORMAT_1)
    del index["messages"][1]["stats"][name]
    assert ANSWER.stats
    assert archive.read_zip(by_hand(index), ME)[1][1].stats == replace(ANSWER.stats, **{name: 0})


def test_an_export_with_the_required_fields_alone_is_taken(here: History) -> None:
    index = deepcopy(FORMAT_1)
    for kind, part in ((Conversation, index["conversation"]), *((Message, part) for part in index["messages"])):
        for name in names(kind, part, defaulted=True):
            del part[name]
    archive.import_zip(here, by_hand(index), ME)
    assert [message.text for message in here.messages(CONVERSATION.uuid, ME)] == ["What is this?", "A red"]


@pytest.mark.parametrize(
    ("part", "name"),
    [
        *(("conversation", name) for name in names(Conversation, FORMAT_1["conversation"], defaulted=False)),
        *(("messages", name) for name in names(Message, FORMAT_1["messages"][0], defaulted=False)),
        *(("images", name) for name in FORMAT_1["images"][0]),
        *((None, name) for name in FORMAT_1),
    ],
)
def test_an_export_without_a_required_field_is_refused(refusing: History, part: str | None, name: str) -> None:
    index = deepcopy(FORMAT_1)
    lacking = index[part] if part else index
    del (lacking[0] if isinstance(lacking, list) else lacking)[name]
    assert refused(refusing, by_hand(index)) == "archive.broken"


# Importing into a history with content


def test_importing_twice_changes_nothing(here: History) -> None:
    uuid = rich_conversation(here)
    data = archive.export_zip(here, uuid, ME)
    before = everything(here)
    assert archive.import_zip(here, data, ME).uuid == uuid
    assert everything(here) == before


def test_an_older_copy_is_completed_by_a_newer_one(here: History, there: History) -> None:
    uuid = rich_conversation(here)
    archive.import_zip(there, archive.export_zip(here, uuid, ME), ME)
    here.add_question(uuid, ME, parent=None, text="One more", images=[here.add_image(picture("pink"), ME).sha256])
    here.update_conversation(uuid, ME, title="New title", tags=["new"], pinned=False)
    data = archive.export_zip(here, uuid, ME)
    archive.import_zip(there, data, ME)
    assert archive.export_zip(there, uuid, ME) == data


def test_a_newer_copy_keeps_its_content_when_an_older_one_is_imported(here: History) -> None:
    uuid = rich_conversation(here)
    old = archive.export_zip(here, uuid, ME)
    here.add_question(uuid, ME, parent=None, text="One more")
    here.update_conversation(uuid, ME, title="New title")
    before = everything(here)
    archive.import_zip(here, old, ME)
    assert everything(here) == before


def test_importing_restores_a_deleted_conversation_and_a_purged_one(here: History) -> None:
    uuid = rich_conversation(here)
    data = archive.export_zip(here, uuid, ME)
    here.delete_conversation(uuid, ME)
    assert archive.import_zip(here, data, ME).deleted_utc is None
    here.purge_conversation(uuid, ME)
    archive.import_zip(here, data, ME)
    assert archive.export_zip(here, uuid, ME) == data


def test_a_conversation_of_another_owner_is_kept_and_a_copy_is_made(here: History) -> None:
    uuid = rich_conversation(here)
    data = archive.export_zip(here, uuid, ME)
    before = here.tree(uuid, ME)
    copy = archive.import_zip(here, data, OTHER)
    assert copy.uuid != uuid and here.tree(uuid, ME) == before
    mine, theirs = here.messages(uuid, ME), here.messages(copy.uuid, OTHER)
    assert [m.text for m in mine] == [m.text for m in theirs]
    assert not {m.uuid for m in mine} & {m.uuid for m in theirs}
    assert [m.text for m in here.branch(copy.uuid, OTHER)] == [m.text for m in here.branch(uuid, ME)]
    assert (copy.tags, copy.pinned, copy.folder) == (("maths", "图形"), True, "School")


def test_messages_whose_uuid_is_taken_are_copied_under_new_ones(here: History) -> None:
    uuid = rich_conversation(here)
    data = archive.export_zip(here, uuid, ME)
    before = here.tree(uuid, ME)
    elsewhere = changed(data, lambda index: index["conversation"].update(uuid="11111111-1111-4111-8111-111111111111"))
    copy = archive.import_zip(here, elsewhere, ME)
    assert here.tree(uuid, ME) == before and copy.uuid != uuid
    assert [m.text for m in here.messages(copy.uuid, ME)] == [m.text for m in before[1]]


def test_a_zip_that_was_recompressed_is_accepted(here: History, there: History) -> None:
    uuid = rich_conversation(here)
    data = archive.export_zip(here, uuid, ME)
    archive.import_zip(there, zipped(parts(data), zipfile.ZIP_DEFLATED), ME)
    assert archive.export_zip(there, uuid, ME) == data


def test_a_zip_that_was_unpacked_and_packed_again_is_accepted(here: History, there: History, tmp_path: Path) -> None:
    uuid = rich_conversation(here)
    data = archive.export_zip(here, uuid, ME)
    files = parts(data)
    folders = {"images/": b""}
    mac = {"__MACOSX/": b"", "__MACOSX/._conversation.json": b"Mac OS X", "__MACOSX/images/._x.png": b"Mac OS X"}
    litter = {".DS_Store": b"Bud1", "images/.DS_Store": b"Bud1", "Thumbs.db": b"x", "images/desktop.ini": b"x"}

    def under(folder: str, files: dict[str, bytes]) -> dict[str, bytes]:
        return {folder: b""} | {folder + name: content for name, content in files.items()}

    packed_again = {
        "zip -r": zipped(folders | files, zipfile.ZIP_DEFLATED),
        "macOS": zipped(under("My trip/", folders | files) | mac, zipfile.ZIP_DEFLATED),
        "a folder in a folder": zipped(under("旅行/", under("export/", files))),
        "file managers": zipped(files | litter),
        "exFAT": zipped(files | {"._conversation.json": b"Mac OS X", "images/._x.png": b"Mac OS X"}),
        "Windows": zipped({("trip/" + name).replace("/", "\\"): content for name, content in files.items()}),
        "capitals": zipped({name.upper(): content for name, content in files.items()}),
        "from here": zipped({f"./{name}": content for name, content in files.items()}),
        "another order": zipped(dict(sorted(files.items(), reverse=True))),
    }
    large = io.BytesIO()
    with zipfile.ZipFile(large, "w") as packed:
        for name, content in files.items():
            with packed.open(name, "w", force_zip64=True) as out:
                out.write(content)
    packed_again["zip64"] = large.getvalue()
    for way, again in packed_again.items():
        archive.import_zip(there, again, ME)
        assert archive.export_zip(there, uuid, ME) == data, way
        there.purge_conversation(uuid, ME)


# Refused imports


def test_files_that_are_not_exports_are_refused(refusing: History) -> None:
    for data in (b"", b"Dear diary", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), os.urandom(5000), picture("red").data):
        assert refused(refusing, data) == "archive.broken"
    assert refused(refusing, zipped({"other.json": b"{}"})) == "archive.broken"


def test_two_exports_in_one_zip_are_refused(exported: bytes, refusing: History) -> None:
    files = parts(exported)
    both = {f"{folder}/{name}": content for folder in ("one", "two") for name, content in files.items()}
    assert refused(refusing, zipped(both)) == "archive.broken"
    assert refused(refusing, zipped(files | {"two/conversation.json": files["conversation.json"]})) == (
        "archive.broken"
    )
    assert refused(refusing, zipped({f"one/{name}": content for name, content in files.items()} | {"note": b""})) == (
        "archive.broken"
    )


@pytest.mark.parametrize(
    "index",
    [b"", b"{", b"null", b"[]", b"1", b'"x"', b"{}", b'{"format": 1}', b"\xff\xfe", b"[" * 100_000, b'{"format": "1"}',
     b'{"format": true, "conversation": {}, "messages": [], "images": []}', b"9" * 5000],
    ids=range(13),
)  # fmt: skip
def test_an_index_that_is_no_conversation_is_refused(refusing: History, index: bytes) -> None:
    assert refused(refusing, zipped({"conversation.json": index})) == "archive.broken"


def test_an_export_of_a_newer_impchat_is_refused_by_name(exported: bytes, refusing: History) -> None:
    newer = changed(exported, lambda index: index.update(format=archive.FORMAT + 1, dreams=[]))
    assert refused(refusing, newer) == "archive.newer"


def test_a_truncated_zip_is_refused_wherever_it_ends(exported: bytes, refusing: History) -> None:
    for length in range(0, len(exported), 97):
        assert refused(refusing, exported[:length]) == "archive.broken"


def test_a_damaged_zip_is_refused_or_imported_whole(exported: bytes, there: History) -> None:
    for place in range(0, len(exported), 61):
        damaged = exported[:place] + bytes([exported[place] ^ 0x40]) + exported[place + 1 :]
        try:
            arrived = archive.import_zip(there, damaged, ME)  # the damage was to a date or the like
        except HistoryError as error:
            assert error.code in ("archive.broken", "archive.newer", "archive.too_large")
        else:
            assert archive.export_zip(there, arrived.uuid, ME) == exported


@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/passwd", "images/../../evil.png", "images\\evil.png", "images/", "conversation.json/",
     "images/" + "0" * 64 + ".png", "C:evil", "\u202egnp.exe"],
)  # fmt: skip
def test_a_file_that_the_index_does_not_name_is_refused(exported: bytes, refusing: History, name: str) -> None:
    assert refused(refusing, zipped(parts(exported) | {name: b"evil"})) == "archive.broken"


def test_a_missing_or_exchanged_picture_is_refused(exported: bytes, refusing: History) -> None:
    files = parts(exported)
    name = next(name for name in files if name.endswith(".png"))
    assert refused(refusing, zipped({n: d for n, d in files.items() if n != name})) == "archive.broken"
    for other in (b"", b"not a picture", picture("black").data, files[name] + b"trailer"):
        assert refused(refusing, zipped(files | {name: other})) == "archive.broken"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_duplicate_name_is_refused(exported: bytes, refusing: History) -> None:
    out = io.BytesIO(exported)
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("conversation.json", b"{}")
    assert refused(refusing, out.getvalue()) == "archive.broken"


def test_a_picture_with_metadata_is_refused_though_its_hash_is_right(here: History, refusing: History) -> None:
    exif = Image.Exif()
    exif[0x010F] = "SECRET camera"
    out = io.BytesIO()
    Image.new("RGB", (24, 16), "red").save(out, "JPEG", exif=exif)
    data = out.getvalue()
    sha256 = hashlib.sha256(data).hexdigest()
    uuid = here.create_conversation(ME).uuid
    here.add_question(uuid, ME, parent=None, text="Q", images=[here.add_image(picture("red"), ME).sha256])

    def with_metadata(index: dict[str, Any]) -> None:
        index["messages"][0]["images"] = [sha256]
        index["images"] = [{"sha256": sha256, "width": 24, "height": 16, "mime": "image/jpeg", "size_bytes": len(data)}]

    files = parts(changed(archive.export_zip(here, uuid, ME), with_metadata))
    only = {"conversation.json": files["conversation.json"], f"images/{sha256}.jpg": data}
    assert refused(refusing, zipped(only)) == "archive.broken"


def test_a_zip_bomb_is_refused_without_unpacking_it(refusing: History) -> None:
    bomb = zipped({"conversation.json": bytes(settings.IMPORT_INDEX_BYTES + 1)}, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 10**6 and refused(refusing, bomb) == "archive.broken"
    claim = bytearray(zipped({"conversation.json": b"{}"}))
    directory = claim.index(b"PK\x01\x02")
    claim[directory + 24 : directory + 28] = (settings.IMPORT_BYTES + 1).to_bytes(4, "little")
    assert refused(refusing, bytes(claim)) == "archive.too_large"


BAD: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("an unknown field", lambda i: i.update(more=1)),
    ("an unknown field of the conversation", lambda i: i["conversation"].update(owner="me")),
    ("an unknown field of a message", lambda i: i["messages"][1].update(mood="good")),
    ("an unknown field of a picture", lambda i: i["images"][0].update(mood="good")),
    ("a format below 1", lambda i: i.update(format=0)),
    ("a missing field", lambda i: i["conversation"].pop("title")),
    ("a conversation uuid that is none", lambda i: i["conversation"].update(uuid="../../x")),
    ("a conversation uuid in another form", lambda i: i["conversation"].update(uuid=i["conversation"]["uuid"].upper())),
    ("a time that is none", lambda i: i["conversation"].update(created_utc="yesterday")),
    ("a time in Arabic digits", lambda i: i["conversation"].update(created_utc="٢٠٢٦-01-01T00:00:00.000Z")),
    ("a title that is a number", lambda i: i["conversation"].update(title=1)),
    ("tags that are a text", lambda i: i["conversation"].update(tags="abc")),
    ("a tag that is a list", lambda i: i["conversation"].update(tags=[["a"]])),
    ("a pin that is a number", lambda i: i["conversation"].update(pinned=1)),
    ("a leaf that is not there", lambda i: i["conversation"].update(leaf="11111111-1111-4111-8111-111111111111")),
    ("a draft picture that is not there", lambda i: i["conversation"].update(draft_images=["0" * 64])),
    ("messages that are none", lambda i: i.update(messages={})),
    ("a message that is a text", lambda i: i["messages"].append("x")),
    ("a message twice", lambda i: i["messages"].append(i["messages"][0])),
    ("a child before its parent", lambda i: i["messages"].reverse()),
    ("a message that is its own parent", lambda i: i["messages"][1].update(parent=i["messages"][1]["uuid"])),
    ("an answer to nothing", lambda i: i["messages"][1].update(parent=None)),
    ("a question to a question", lambda i: i["messages"][2].update(parent=i["messages"][0]["uuid"])),
    ("an unknown role", lambda i: i["messages"][0].update(role="system")),
    ("half a character", lambda i: i["messages"][0].update(text="a\ud800")),
    ("an unknown state", lambda i: i["messages"][0].update(state="dreaming")),
    ("a state that is a list", lambda i: i["messages"][0].update(state=[])),
    ("a streaming message", lambda i: i["messages"][1].update(state="streaming")),
    ("an unknown end", lambda i: i["messages"][1].update(finish_reason="bored")),
    ("tokens that are texts", lambda i: i["messages"][1].update(tokens=["1"])),
    ("tokens below zero", lambda i: i["messages"][1].update(tokens=[-1])),
    ("tokens too large", lambda i: i["messages"][1].update(tokens=[2**70])),
    ("tokens that are truths", lambda i: i["messages"][1].update(tokens=[True])),
    ("unknown stats", lambda i: i["messages"][1]["stats"].update(mood=1)),
    ("stats that are no number", lambda i: i["messages"][1]["stats"].update(decode_s="1")),
    ("stats that are not a number", lambda i: i["messages"][1]["stats"].update(decode_s=float("nan"))),
    ("stats without end", lambda i: i["messages"][1]["stats"].update(decode_s=float("inf"))),
    ("an unknown error", lambda i: i["messages"][3].update(error={"code": "no.such", "values": {}})),
    ("an error without its values", lambda i: i["messages"][3].update(error={"code": "image.truncated", "values": {}})),
    ("an error with odd values", lambda i: i["messages"][3]["error"]["values"].update(self=1, code=2, language=3)),
    ("dropped turns below zero", lambda i: i["messages"][1].update(dropped_turns=-1)),
    ("a picture by a path", lambda i: i["messages"][0].update(images=["../../x"])),
    ("a picture not described", lambda i: i["images"].pop()),
    ("a picture not used", lambda i: i["conversation"].update(draft_images=[])),
    ("a picture of another size", lambda i: i["images"][0].update(width=25)),
    ("a picture of an unknown kind", lambda i: i["images"][0].update(mime="image/svg+xml")),
    ("a kind that is a list", lambda i: i["images"][0].update(mime=[])),
]


@pytest.mark.parametrize("change", [change for _, change in BAD], ids=[name for name, _ in BAD])
def test_content_that_impchat_would_not_have_written_is_refused(
    exported: bytes, refusing: History, change: Callable[[dict[str, Any]], object]
) -> None:
    assert refused(refusing, changed(exported, change)) == "archive.broken"


def test_a_full_disk_during_an_import_leaves_nothing(exported: bytes, there: History) -> None:
    larger = changed(exported, lambda index: index["messages"][0].update(text="x" * 3_000_000))
    with there._database.read() as db:
        db.execute(f"pragma max_page_count = {db.execute('pragma page_count').fetchone()[0] + 20}")
    assert refused(there, larger) == "history.disk_full"


# Markdown


def test_markdown_shows_the_selected_branch(here: History) -> None:
    uuid = rich_conversation(here)
    text = archive.export_markdown(here, uuid, ME)
    assert text.startswith("# Shapes 图形\n")
    places = [text.index(part) for part in ("这是什么？", "A red circle.", "And its colour?", "It\n")]
    assert places == sorted(places)
    assert "What is this?" not in text  # text of another branch
    assert "This answer ended with an error" in text and "imp-demo-196" in text
    named = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert len(named) == 2 and set(named) <= set(archive.image_files(here, uuid, ME))


def test_markdown_is_written_in_chinese(here: History) -> None:
    uuid = here.create_conversation(ME).uuid
    here.add_question(uuid, ME, parent=None, text="")
    assert archive.export_markdown(here, uuid, ME, "zh").startswith("# 对话\n\n## 你\n")


# Two copies that continued separately


def both(history: History, other: History) -> tuple[str, str]:
    """Put a conversation with a running answer into both histories; return the uuids of the conversation and the
    answer."""
    row = history.create_conversation(ME)
    question = history.add_question(row.uuid, ME, parent=None, text="What is it?")
    answer = history.start_answer(row.uuid, ME, parent=question.uuid, model="imp-test")
    history.flush_answer(answer.uuid, "A red")
    hand_over(history, other, row.uuid)
    return row.uuid, answer.uuid


def hand_over(source: History, target: History, uuid: str) -> None:
    archive.import_zip(target, archive.export_zip(source, uuid, ME), ME)


def answers(history: History, uuid: str) -> list[tuple[str, str]]:
    return sorted((m.text, m.state) for m in history.messages(uuid, ME) if m.role == "assistant")


def test_the_end_of_an_answer_replaces_its_beginning_whichever_is_imported_later(here: History, there: History) -> None:
    uuid, answer = both(here, there)
    assert answers(there, uuid) == [("A red", "interrupted")]
    here.finish_answer(answer, text="A red circle.", state="done", finish_reason="stop")
    hand_over(there, here, uuid)
    assert answers(here, uuid) == [("A red circle.", "done")]
    hand_over(here, there, uuid)
    assert answers(there, uuid) == [("A red circle.", "done")]
    assert [hit.message for hit in there.search(ME, "circle")] == [answer]


def test_two_different_ends_are_both_kept_once_in_both_copies(here: History, there: History) -> None:
    uuid, answer = both(here, there)
    here.finish_answer(answer, text="A red circle.", state="done", finish_reason="stop")
    there.finish_answer(answer, text="A red square.", state="done", finish_reason="stop")
    for side in (here, there):  # each continues below its own
        question = side.add_question(uuid, ME, parent=answer, text="And the colour?")
        below = side.start_answer(uuid, ME, parent=question.uuid, model="imp-test")
        side.finish_answer(below.uuid, text="Red.", state="done", finish_reason="stop")
    for _ in range(3):
        hand_over(here, there, uuid)
        hand_over(there, here, uuid)
    for side in (here, there):
        assert len(side.conversations(ME)) == 1
        assert answers(side, uuid) == [
            ("A red circle.", "done"), ("A red square.", "done"), ("Red.", "done"), ("Red.", "done"),
        ]  # fmt: skip
        threads = set()
        for leaf in (m for m in side.messages(uuid, ME) if m.text == "Red."):
            threads.add(" ".join(m.text for m in side.branch(uuid, ME, leaf.uuid)))
        assert threads == {
            "What is it? A red circle. And the colour? Red.", "What is it? A red square. And the colour? Red.",
        }  # fmt: skip
