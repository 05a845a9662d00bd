"""The words of the domain: plain values that may cross a thread, a process or a network.

In: nothing. Out: frozen dataclasses for a conversation, its messages and pictures, for what is asked of an
engine (`Prompt`, `Sampling`) and for what comes back (the events of an answer and their `Stats`).
This file does not know where values are stored, which engine answers, or who looks at the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from impchat import settings

Role = Literal["user", "assistant"]

State = Literal["done", "streaming", "stopped", "failed", "interrupted"]
"""done: complete. streaming: a living writer adds to it. stopped: a person stopped it, the text so far is kept.
failed: an error ended it, the text so far is kept. interrupted: its writer died (crash, power) before the end."""

FinishReason = Literal["stop", "length", "stopped"]
"""stop: the model ended its answer or a stop string came up. length: max_tokens or the context was reached.
stopped: a person stopped it."""


@dataclass(frozen=True, slots=True)
class Image:
    """A picture kept in the history: upright RGB, without metadata, at most `settings.IMAGE_STORED_SIDE` pixels."""

    sha256: str  # of the stored bytes; the picture's only name
    width: int  # pixels, as stored
    height: int
    mime: str  # "image/jpeg" or "image/png"
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture on its way into a model: the stored bytes and their hash."""

    sha256: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. `temperature` 0 always takes the likeliest token."""

    temperature: float = settings.TEMPERATURE
    top_k: int = settings.TOP_K  # 0: off
    top_p: float = settings.TOP_P  # 1.0: off
    min_p: float = settings.MIN_P  # 0.0: off
    repeat_penalty: float = settings.REPEAT_PENALTY  # 1.0: off
    seed: int | None = None  # None: a new one each time
    max_tokens: int = settings.MAX_TOKENS
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """One side's words in a prompt. An assistant turn that this model generated keeps its token ids, so that it
    is never tokenised again and the KV cache always matches."""

    role: Role
    text: str
    pictures: tuple[Picture, ...] = ()
    tokens: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """What an engine is asked to read: the system text and the turns, oldest first.

    The first turn is the user's. Where the last one is the assistant's, the answer goes on after its text. With
    `open_turn` the user is still typing: its pictures are there, its text is not, and the prompt ends right behind the
    last picture (prefill on attach).
    `key` names the conversation, so that its next prompt finds the KV cache of its last one.
    `begun` is how the answer begins, where another engine of the same model was cut off in it: the answer goes on
    behind these token ids, and only what follows them is told."""

    system: str
    turns: tuple[Turn, ...]
    key: str = ""
    open_turn: bool = False
    begun: tuple[int, ...] = ()

    @property
    def is_continued(self) -> bool:
        """Whether the answer follows a text directly, so that a space at its beginning belongs to it."""
        last = self.turns[-1] if self.turns else Turn("user", "")
        return last.role == "assistant" and last.text[-1:] not in ("", " ")


@dataclass(frozen=True, slots=True)
class Stats:
    """The receipt of an answer or of a prefill. Token counts include the vision tokens of pictures."""

    prompt_tokens: int = 0  # the whole prompt
    cached_tokens: int = 0  # of these, found in the KV cache
    new_tokens: int = 0  # of these, read now (prompt_tokens = cached_tokens + new_tokens)
    generated_tokens: int = 0
    vision_s: float = 0.0  # T_VE: seconds spent encoding pictures
    prefill_s: float = 0.0  # seconds spent reading new_tokens
    decode_s: float = 0.0  # seconds spent generating
    first_token_s: float = 0.0  # from start() to the first token

    @property
    def prompt_tokens_per_s(self) -> float:
        """S_prompt of the paper's table."""
        return self.new_tokens / self.prefill_s if self.prefill_s else 0.0

    @property
    def generated_tokens_per_s(self) -> float:
        """S_gen of the paper's table."""
        return self.generated_tokens / self.decode_s if self.decode_s else 0.0


@dataclass(frozen=True, slots=True)
class Encoding:
    """A picture is being turned into embeddings."""

    image: str  # sha256


@dataclass(frozen=True, slots=True)
class Reading:
    """Progress through the part of the prompt that was not cached, in tokens."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Ready:
    """A prefill is complete: the next question costs only its own tokens. The last event of a prefill."""

    stats: Stats


@dataclass(frozen=True, slots=True)
class Dropped:
    """The conversation outgrew the context: its oldest turns are no longer read by the model."""

    turns: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer; whole characters only. The answer is the join of all pieces."""

    text: str
    tokens: tuple[int, ...] = ()  # the ids it was made of, behind those of the last piece; empty where none are known


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of an answer that did not fail."""

    finish_reason: FinishReason
    stats: Stats
    tokens: tuple[int, ...] = ()  # the answer's token ids, without eos; empty where the engine has none to give


@dataclass(frozen=True, slots=True)
class Failed:
    """The last event of an answer that an error ended; the fields are those of `errors.ImpChatError`."""

    code: str
    values: Mapping[str, Any]


Event = Encoding | Reading | Ready | Dropped | Text | Finished | Failed

_EVENTS: dict[str, type[Any]] = {
    t.__name__.lower(): t for t in (Encoding, Reading, Ready, Dropped, Text, Finished, Failed)
}


def event_to_dict(event: Event) -> dict[str, Any]:
    """A JSON-ready dict of an event: its fields and `type`, the class name in lower case."""
    return {"type": type(event).__name__.lower()} | asdict(event)


def event_from_dict(data: Mapping[str, Any]) -> Event:
    """The event that `event_to_dict` described. Raises KeyError for an unknown type or a missing field."""
    kind = _EVENTS[data["type"]]
    values = {f.name: data[f.name] for f in fields(kind)}
    if "stats" in values:
        values["stats"] = Stats(**values["stats"])
    if "tokens" in values and kind in (Text, Finished):
        values["tokens"] = tuple(values["tokens"])
    event: Event = kind(**values)
    return event


@dataclass(frozen=True, slots=True)
class Message:
    """One question or answer in a conversation's tree. `parent` None: the first of the conversation."""

    uuid: str
    conversation: str
    parent: str | None
    role: Role
    text: str
    images: tuple[str, ...]  # sha256 of each picture, in the order shown
    state: State
    created_utc: str  # ISO 8601 with milliseconds and "Z"
    finish_reason: FinishReason | None = None
    model: str | None = None  # id of the bundle that generated it
    tokens: tuple[int, ...] | None = None  # its token ids in that model
    stats: Stats | None = None
    dropped_turns: int = 0  # turns the model could no longer read when it answered
    error: Failed | None = None  # why it failed


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation without its messages. `leaf` is the message at which the shown branch ends."""

    uuid: str
    owner: str
    title: str
    created_utc: str
    updated_utc: str
    folder: str = ""
    tags: tuple[str, ...] = ()
    pinned: bool = False
    draft: str = ""
    draft_images: tuple[str, ...] = ()
    leaf: str | None = None
    deleted_utc: str | None = None
