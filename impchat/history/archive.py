"""Export and import of a conversation: a zip that another ImpChat imports, or Markdown for people.

In: a history, a conversation and its owner; or the bytes of a zip from any source. Out: bytes or text; or the
conversation, saved in the history. The zip contains only `conversation.json` and `images/<sha256>.<jpg|png>`, and equal
conversations give equal bytes. Import treats the zip as untrusted and accepts it completely or not at all.
This file does not know SQL, nor where files are saved.

Exports of every earlier version stay importable, and a missing field takes its default. Therefore a new field of
`Conversation`, `Message`, `Image` or `Stats` needs a default, and a field, a value or an error code that is removed or
renamed must still be read. Raise `FORMAT` with every change that an older ImpChat would refuse, such as a new field or
a new `State`, so that it raises "archive.newer" instead of "archive.broken".
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import MISSING, asdict, fields
from typing import IO, Any, get_args
from uuid import UUID

from impchat import images, settings
from impchat.errors import HistoryError, ImageError, ImpChatError
from impchat.history import chatgpt
from impchat.history.store import History
from impchat.images import Prepared
from impchat.messages import Conversation, Failed, Feedback, FinishReason, Image, Message, Role, State, Stats
from impchat.texts import say

FORMAT = 2  # of the zip; earlier ones are imported too, a newer one is refused

_INDEX = "conversation.json"
_KEPT_APART = {"owner", "deleted_utc"}  # fields not exported: they concern only the local history
_READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_SUFFIX = {"image/jpeg": "jpg", "image/png": "png"}


def export_zip(history: History, conversation: str, owner: str) -> bytes:
    """The whole conversation as a zip, with all branches and pictures.

    An answer that is being written is exported as far as it got, with state "interrupted".
    Raises HistoryError "history.no_conversation" or "history.image_missing"."""
    whole, messages = history.tree(conversation, owner)
    pictures = _pictures(history, whole, messages)
    index = {
        "format": FORMAT,
        "conversation": {name: value for name, value in asdict(whole).items() if name not in _KEPT_APART},
        "messages": [_message_to_dict(message) for message in messages],
        "images": [asdict(image) for image in pictures],
    }
    files = {_INDEX: json.dumps(index, ensure_ascii=False, indent=1, sort_keys=True).encode()}
    files |= {image_name(image): history.image_bytes(image.sha256) for image in pictures}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:  # zlib versions differ in their output
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o600 << 16
            archive.writestr(entry, data)
    return out.getvalue()


def import_zip(history: History, data: bytes, owner: str) -> Conversation:
    """Import an exported zip as a conversation of `owner`, under its own UUIDs if they are free.

    If `owner` has it already, missing messages are added. Of a message that both sides have, a finished version
    replaces a partial one; two different texts are both kept. Title, folder, tags, pin, archive flag, draft and shown
    branch come from the side that was updated last, and so does the feedback that both have. Deleted messages of the
    zip and a deleted conversation are restored. A second import changes nothing.
    Raises HistoryError "archive.broken", "archive.newer" or "archive.too_large", and changes nothing."""
    return history.merge(*read_zip(data, owner))


def import_file(history: History, data: bytes, owner: str) -> list[Conversation]:
    """Import any supported file: an export of one conversation (`import_zip`) or of several (`export_many`), or
    ChatGPT's export, its zip or the `conversations.json` in it. Returns the imported conversations.

    Raises HistoryError "archive.broken", "archive.newer", "archive.too_large" or "archive.too_large_chatgpt". If one of
    several fails, those before it stay imported; importing the file again adds nothing twice."""
    if chatgpt.recognises(data):
        return [history.merge(*found) for found in chatgpt.read(data, owner)]
    imported = [import_zip(history, one, owner) for one in _zips(data)]
    return imported or [import_zip(history, data, owner)]


def export_many(history: History, conversations: Iterable[str], owner: str, out: IO[bytes]) -> None:
    """Write a zip with the export of each of the `conversations` to `out`, a file opened for writing.

    Raises HistoryError as `export_zip`."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for conversation in conversations:
            archive.writestr(f"{conversation}.zip", export_zip(history, conversation, owner))


def _zips(data: bytes) -> Iterator[bytes]:
    """The exports in a zip that `export_many` wrote; none if it is another file."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [entry for entry in archive.infolist() if not _ADDED.search(entry.filename.casefold())]
            if not all(entry.filename.endswith(".zip") for entry in entries):
                return
            for entry in entries:
                if entry.file_size > settings.IMPORT_BYTES:
                    raise HistoryError("archive.too_large", limit=settings.IMPORT_BYTES // 2**20)
                yield archive.read(entry)
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, RuntimeError) as exc:
        raise HistoryError("archive.broken") from exc


def read_zip(data: bytes, owner: str) -> tuple[Conversation, list[Message], list[Prepared]]:
    """The content of an exported zip, with `owner` as its owner. Raises as `import_zip`."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > settings.IMPORT_BYTES:
                raise HistoryError("archive.too_large", limit=settings.IMPORT_BYTES // 2**20)
            files = _files(archive)
            _require(files[_INDEX].file_size <= settings.IMPORT_INDEX_BYTES)
            index = json.loads(archive.read(files[_INDEX]))
            if isinstance(index, dict) and type(index.get("format")) is int and index["format"] > FORMAT:
                raise HistoryError("archive.newer")
            conversation, messages, described = _read_index(index, owner)
            _require(sorted(files) == sorted([_INDEX, *map(image_name, described)]))
            pictures = [_read_picture(archive.read(files[image_name(image)]), image) for image in described]
    except (
        ImageError, zipfile.BadZipFile, zlib.error, LookupError, TypeError, ValueError, EOFError, OSError, RuntimeError,
    ) as exc:  # fmt: skip  # RuntimeError: an encrypted entry, or JSON nested too deeply
        raise HistoryError("archive.broken") from exc
    return conversation, messages, pictures


def export_markdown(history: History, conversation: str, owner: str, language: str = "en") -> str:
    """The shown branch as Markdown. It links pictures by their names in the zip: save `image_files` next to it.

    Raises HistoryError "history.no_conversation"."""
    whole = history.conversation(conversation, owner)
    lines = [f"# {whole.title or say('archive.untitled', language)}", ""]
    for message in history.branch(conversation, owner):
        speaker = say(f"archive.{message.role}", language, model=message.model or "")
        lines += [f"## {speaker}", f"<small>{message.created_utc}</small>", ""]
        lines += [f"![]({image_name(history.image(sha256))})\n" for sha256 in message.images]
        lines += [message.text, ""] if message.text else []
        if message.state != "done":
            lines += [f"*{say(f'archive.{message.state}', language)}*", ""]
    return "\n".join(lines)


def image_files(history: History, conversation: str, owner: str) -> dict[str, bytes]:
    """Name -> bytes of a conversation's pictures, with the names of `export_markdown` and the zip."""
    pictures = _pictures(history, *history.tree(conversation, owner))
    return {image_name(image): history.image_bytes(image.sha256) for image in pictures}


def image_name(image: Image) -> str:
    """The name of a picture within an export."""
    return f"images/{image.sha256}.{_SUFFIX[image.mime]}"


def _pictures(history: History, conversation: Conversation, messages: list[Message]) -> list[Image]:
    used = {sha256 for message in messages for sha256 in message.images} | set(conversation.draft_images)
    return [history.image(sha256) for sha256 in sorted(used)]


def _message_to_dict(message: Message) -> dict[str, Any]:
    data = asdict(message)
    del data["conversation"]
    if message.state == "streaming":
        data["state"] = "interrupted"
    return data


# Files that file managers of macOS, Windows and Linux add to a folder.
_ADDED = re.compile(r"(^|/)(__macosx/.*|\._[^/]*|\.ds_store|thumbs\.db|desktop\.ini|\.directory)$")


def _files(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files of an export by their original names. Accepts a zip that was unpacked and packed again: with folder
    entries, inside another folder, with backslashes, in other case, or with files that a file manager added."""
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        name = entry.filename.replace("\\", "/").removeprefix("./").casefold()
        if _ADDED.search(name) or (name.endswith("/") and entry.file_size == 0):
            continue
        _require(name not in found and entry.compress_type in _READABLE)
        found[name] = entry
    (index,) = (name for name in found if name.rpartition("/")[2] == _INDEX)
    top = index.removesuffix(_INDEX)
    _require(all(name.startswith(top) for name in found))
    return {name.removeprefix(top): entry for name, entry in found.items()}


def _read_picture(data: bytes, image: Image) -> Prepared:
    """A picture of the zip. Raises ValueError unless it is exactly what ImpChat would store: hash, size, no
    metadata."""
    prepared = images.prepare(data)
    _require(prepared.data == data and prepared.image == image)
    return prepared


def _read_index(index: Any, owner: str) -> tuple[Conversation, list[Message], list[Image]]:
    """The values in `conversation.json`. Raises ValueError for anything that ImpChat would not have written."""
    _match(index, {"format": _is_format, "conversation": _is_any, "messages": _is_list(_is_any),
                   "images": _is_list(_is_any)})  # fmt: skip
    conversation = Conversation(
        **_match(index["conversation"], _CONVERSATION_CHECKS, _defaulted(Conversation)), owner=owner
    )
    described = [Image(**_match(image, _IMAGE, _defaulted(Image))) for image in index["images"]]
    messages = [_read_message(message, conversation.uuid) for message in index["messages"]]

    roles: dict[str | None, str] = {None: "assistant"}  # questions follow answers, or come first
    for message in messages:
        _require(message.uuid not in roles and roles.get(message.parent, message.role) != message.role)
        roles[message.uuid] = message.role
    _require(conversation.leaf in roles)
    used = {sha256 for message in messages for sha256 in message.images} | set(conversation.draft_images)
    _require(sorted(used) == [image.sha256 for image in described])
    return conversation, messages, described


def _read_message(data: Any, conversation: str) -> Message:
    values = _match(data, _MESSAGE_CHECKS, _defaulted(Message))
    for name, kind in (("stats", Stats), ("error", Failed), ("feedback", Feedback)):
        if values.get(name) is not None:
            values[name] = kind(**values[name])
    return Message(**values, conversation=conversation)


# Validation of the values in the JSON

_Check = Callable[[Any], bool]


def _require(fact: bool) -> None:
    if not fact:
        raise ValueError("not a file that ImpChat exported")


def _match(data: Any, checks: Mapping[str, _Check], optional: Set[str] = frozenset()) -> dict[str, Any]:
    """The fields of `data`, with lists as tuples. Raises ValueError unless it is an object, each of its fields has a
    check and passes it, and no field is missing except those in `optional`."""
    _require(isinstance(data, dict) and checks.keys() - optional <= data.keys() <= checks.keys())
    _require(all(checks[name](value) for name, value in data.items()))
    return {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}


def _defaulted(kind: type[Any]) -> set[str]:
    """The fields of a dataclass that have a default."""
    return {f.name for f in fields(kind) if (f.default, f.default_factory) != (MISSING, MISSING)}


def _is_format(value: Any) -> bool:
    return type(value) is int and 1 <= value <= FORMAT


def _is_any(value: Any) -> bool:
    return True


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.encode() or True)  # raises for unpaired surrogates


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _is_number(value: Any) -> bool:
    return _is_count(value) or (isinstance(value, float) and math.isfinite(value))


def _is_uuid(value: Any) -> bool:
    return isinstance(value, str) and str(UUID(value)) == value


def _is_time(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", value, re.ASCII))


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[0-9a-f]{64}", value))


def _is_stats(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() <= {f.name for f in fields(Stats)} and all(
        map(_is_number, value.values())
    )  # fmt: skip


def _is_error(value: Any) -> bool:
    """Whether the error has a sentence that can be rendered, as front ends do."""
    if not (isinstance(value, dict) and value.keys() == {"code", "values"} and isinstance(value["values"], dict)):
        return False
    return isinstance(value["code"], str) and bool(ImpChatError(value["code"], **value["values"]).sentence())


def _is_list(check: _Check) -> _Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _is_one_of(literal: Any) -> _Check:
    return lambda value: value in get_args(literal)


def _or_none(check: _Check) -> _Check:
    return lambda value: value is None or check(value)


_CONVERSATION_CHECKS: dict[str, _Check] = {
    "uuid": _is_uuid,
    "title": _is_text,
    "created_utc": _is_time,
    "updated_utc": _is_time,
    "folder": _is_text,
    "tags": _is_list(_is_text),
    "pinned": _is_bool,
    "archived": _is_bool,
    "draft": _is_text,
    "draft_images": _is_list(_is_hash),
    "leaf": _or_none(_is_uuid),
}
_MESSAGE_CHECKS: dict[str, _Check] = {
    "uuid": _is_uuid,
    "parent": _or_none(_is_uuid),
    "role": _is_one_of(Role),
    "text": _is_text,
    "images": _is_list(_is_hash),
    "state": lambda value: value != "streaming" and _is_one_of(State)(value),
    "created_utc": _is_time,
    "finish_reason": _or_none(_is_one_of(FinishReason)),
    "model": _or_none(_is_text),
    "tokens": _or_none(_is_list(_is_count)),
    "stats": _or_none(_is_stats),
    "dropped_turns": _is_count,
    "error": _or_none(_is_error),
    "feedback": _or_none(lambda value: bool(_match(value, {"liked": _is_bool, "reason": _is_text}))),
}
_IMAGE: dict[str, _Check] = {
    "sha256": _is_hash,
    "width": _is_count,
    "height": _is_count,
    "mime": lambda value: value in list(_SUFFIX),
    "size_bytes": _is_count,
}
