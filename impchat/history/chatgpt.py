"""Reads an export of ChatGPT: `conversations.json`, alone or in the zip that ChatGPT sends.

In: the bytes of the file, from any source. Out: conversations with their messages and those pictures that the zip
contains, under uuids derived from ChatGPT's, so that a second import adds nothing. Only what a person saw is read: no
system texts, tool calls or reasoning.
This file does not know where conversations are saved.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from impchat import images, settings
from impchat.errors import HistoryError, ImageError
from impchat.history import mutations, queries
from impchat.images import Prepared
from impchat.messages import Conversation, Message, Role, State

Found = tuple[Conversation, list[Message], list[Prepared]]

_INDEX = re.compile(r"(^|/)conversations(-\d+)?\.json$")  # large exports are split into numbered files
_FILE = re.compile(r"file[-_][A-Za-z0-9]+")  # ChatGPT's id of a picture; the name of its file begins with it
_CITATION = re.compile("\ue200.*?\ue201|[\ue200-\ue206]", re.DOTALL)
_UNNAMED = "…"  # the text of a question of which the export contains nothing
_NAMES = uuid5(NAMESPACE_URL, "https://chatgpt.com/")


def recognises(data: bytes) -> bool:
    """Whether `data` looks like JSON or a zip with ChatGPT's conversations, and not like another file."""
    if data[:64].removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"[", b"{"):
        return True
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            return any(_INDEX.search(name) for name in packed.namelist())
    except (zipfile.BadZipFile, ValueError, OSError):
        return False


def read(data: bytes, owner: str) -> Iterator[Found]:
    """The conversations of an export, with `owner` as their owner, parents before their children. A conversation that
    cannot be read is left out.

    Raises HistoryError "archive.broken" if none can be read, "archive.too_large_chatgpt"; both before the first one."""
    try:
        if data[:2] == b"PK":
            with zipfile.ZipFile(io.BytesIO(data)) as packed:
                yield from _read(_indexes(packed), _Pictures(packed), owner)
        else:
            _check_size(len(data))
            yield from _read([data], _Pictures(None), owner)
    except (
        zipfile.BadZipFile, zlib.error, LookupError, TypeError, ValueError, EOFError, OSError, RuntimeError,
        NotImplementedError,
    ) as exc:  # fmt: skip  # RuntimeError: an encrypted entry, or JSON nested too deeply
        raise HistoryError("archive.broken") from exc


def _check_size(size: int) -> None:
    if size > settings.CHATGPT_JSON_BYTES:
        raise HistoryError("archive.too_large_chatgpt", limit=settings.CHATGPT_JSON_BYTES // 2**20)


def _indexes(packed: zipfile.ZipFile) -> list[bytes]:
    entries = [entry for entry in packed.infolist() if _INDEX.search(entry.filename)]
    _check_size(sum(entry.file_size for entry in entries))
    return [packed.read(entry) for entry in entries]


def _read(indexes: list[bytes], pictures: _Pictures, owner: str) -> Iterator[Found]:
    parsed = [json.loads(index) for index in indexes]
    all_of_them = [raw for part in parsed for raw in (part if isinstance(part, list) else [part])]
    is_any = False
    for raw in all_of_them:
        try:
            found = _Tree(raw, pictures, owner).read()
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError, OSError):
            continue
        is_any = True
        if found[1]:
            yield found
    if not is_any:
        raise ValueError("no conversation of ChatGPT")


class _Pictures:
    """The pictures of an export by ChatGPT's ids."""

    def __init__(self, packed: zipfile.ZipFile | None) -> None:
        self._packed = packed
        self._entries: dict[str, zipfile.ZipInfo] = {}
        for entry in packed.infolist() if packed else []:
            if named := _FILE.match(entry.filename.rpartition("/")[2]):
                self._entries.setdefault(named[0], entry)

    def find(self, pointer: object) -> Prepared | None:
        """The picture that an asset pointer names; None if it is missing or unusable."""
        named = _FILE.match(pointer.rpartition("://")[2]) if isinstance(pointer, str) else None
        entry = self._entries.get(named[0]) if named else None
        if entry is None or entry.file_size > settings.IMAGE_BYTES or self._packed is None:
            return None
        try:
            return images.prepare(self._packed.read(entry))
        except (ImageError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError):
            return None


@dataclass(frozen=True, slots=True)
class _Said:
    """What one side said, from one or more nodes in a row."""

    nodes: tuple[str, ...]
    role: Role
    text: str
    images: tuple[str, ...]
    created_utc: str
    model: str | None
    state: State

    def plus(self, other: _Said) -> _Said:
        text = "\n\n".join(part for part in (self.text, other.text) if part)
        return replace(
            self,
            nodes=self.nodes + other.nodes,
            text=text,
            images=self.images + other.images,
            model=other.model or self.model,
            state=other.state,
        )


class _Tree:
    """One conversation: ChatGPT's tree of nodes -> our tree, in which questions and answers alternate."""

    def __init__(self, raw: dict[str, Any], pictures: _Pictures, owner: str) -> None:
        self._raw = raw
        self._mapping: dict[str, dict[str, Any]] = raw["mapping"]
        self._pictures = pictures
        self._owner = owner
        self._created_utc = _utc(raw.get("create_time")) or "1970-01-01T00:00:00.000Z"
        self._uuid = str(uuid5(_NAMES, str(raw.get("conversation_id") or raw.get("id") or sorted(self._mapping))))
        self._messages: dict[str, Message] = {}  # by uuid
        self._of_node: dict[str, str] = {}  # node -> uuid of its message
        self._prepared: dict[str, Prepared] = {}

    def read(self) -> Found:
        todo: list[tuple[str, str | None, _Said | None]] = [
            (node, None, None) for node, value in self._mapping.items() if value.get("parent") not in self._mapping
        ]
        seen = set()
        while todo:  # not recursive: a branch may have thousands of nodes
            node, parent, said = todo.pop()
            if node in seen or node not in self._mapping:
                continue
            seen.add(node)
            new = self._said(node)
            if new and said and new.role == said.role:
                said = said.plus(new)
            elif new:
                parent, said = (self._add(said, parent) if said else parent), new
            children = self._mapping[node].get("children") or []
            if said and not children:
                self._add(said, parent)
            todo += [(child, parent, said) for child in reversed(children)]
        messages = list(self._messages.values())
        title = self._raw.get("title") or mutations.title_from(messages[0].text if messages else "")
        updated = _utc(self._raw.get("update_time")) or (messages[-1].created_utc if messages else self._created_utc)
        conversation = Conversation(
            self._uuid,
            self._owner,
            title if isinstance(title, str) else "",
            self._created_utc,
            updated,
            leaf=self._leaf(messages),
            archived=self._raw.get("is_archived") is True,
        )
        return conversation, messages, list(self._prepared.values())

    def _leaf(self, messages: list[Message]) -> str | None:
        """The end of the branch that ChatGPT showed."""
        node = self._raw.get("current_node")
        for _ in self._mapping:  # at most once each: parents may form a circle
            if node in self._of_node or node not in self._mapping:
                break
            node = self._mapping[node].get("parent")
        return self._of_node.get(str(node)) or (messages[-1].uuid if messages else None)

    def _add(self, said: _Said, parent: str | None) -> str:
        """Add a message, unless another branch has added it. Returns its uuid."""
        if parent is None and said.role == "assistant":
            parent = self._add(replace(said, nodes=("",), role="user", text=_UNNAMED, images=(), model=None), None)
        uuid = str(uuid5(UUID(self._uuid), said.nodes[-1]))
        if uuid not in self._messages:
            state: State = said.state if said.role == "assistant" else "done"
            self._messages[uuid] = Message(
                uuid, self._uuid, parent, said.role, said.text, said.images, state, said.created_utc, model=said.model
            )
        self._of_node.update(dict.fromkeys(said.nodes, uuid))
        return uuid

    def _said(self, node: str) -> _Said | None:
        """What a person saw of this node; None if nothing."""
        message = self._mapping[node].get("message")
        if not message:
            return None
        role, content, about = message["author"]["role"], message.get("content") or {}, message.get("metadata") or {}
        if (
            role not in ("user", "assistant")
            or content.get("content_type") not in ("text", "multimodal_text")
            or about.get("is_visually_hidden_from_conversation")
            or message.get("recipient", "all") != "all"  # a call of a tool
        ):
            return None
        texts, shown, has_pictures = [], [], False
        for part in content.get("parts") or []:
            if isinstance(part, str):
                texts.append(_CITATION.sub("", part))
            elif isinstance(part, dict) and isinstance(part.get("text"), str):  # a transcript of speech
                texts.append(part["text"])
            elif isinstance(part, dict) and part.get("content_type") == "image_asset_pointer":
                has_pictures = True
                if prepared := self._pictures.find(part.get("asset_pointer")):
                    self._prepared[prepared.image.sha256] = prepared
                    shown.append(prepared.image.sha256)
        text = "\n".join(texts).strip()
        if not text and not shown:
            if not has_pictures:
                return None
            text = _UNNAMED
        return _Said(
            (node,),
            role,
            text,
            tuple(shown),
            _utc(message.get("create_time")) or self._created_utc,
            queries.clean(str(about["model_slug"])) if role == "assistant" and about.get("model_slug") else None,
            "interrupted" if message.get("status") == "in_progress" else "done",
        )


def _utc(seconds: object) -> str | None:
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return None
    return mutations.utc(datetime.fromtimestamp(seconds, UTC))
