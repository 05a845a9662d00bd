"""The data types of the domain: plain values that can cross threads, processes and networks.

In: nothing. Out: frozen dataclasses for a conversation, its messages and pictures, for the input of an engine
(`Prompt`, `Sampling`) and for its output (the events of an answer and their `Stats`).
This file does not know where values are stored, which engine answers, or how a result is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, assert_never

from impchat import settings

Role = Literal["user", "assistant"]

State = Literal["done", "streaming", "stopped", "failed", "interrupted"]
"""done: complete. streaming: a running process is writing it. stopped: a person stopped it; the text so far is kept.
failed: an error ended it; the text so far is kept. interrupted: its process died before the end (crash, power cut)."""

FinishReason = Literal["stop", "length", "stopped"]
"""stop: the model ended its answer, or a stop string was found. length: max_tokens or the end of the context was
reached. stopped: a person stopped it."""


@dataclass(frozen=True, slots=True)
class Image:
    """A picture in the history: upright RGB without metadata, each side at most `settings.IMAGE_STORED_SIDE` pixels."""

    sha256: str  # of the stored bytes; identifies the picture
    width: int  # pixels, as stored
    height: int
    mime: str  # "image/jpeg" or "image/png"
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as input of a model: the stored bytes and their hash."""

    sha256: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is sampled. `temperature` 0 always takes the most likely token."""

    temperature: float = settings.TEMPERATURE
    top_k: int = settings.TOP_K  # 0: off
    top_p: float = settings.TOP_P  # 1.0: off
    min_p: float = settings.MIN_P  # 0.0: off
    repeat_penalty: float = settings.REPEAT_PENALTY  # 1.0: off
    seed: int | None = None  # None: random
    max_tokens: int = settings.MAX_TOKENS
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """A question or an answer in a prompt. An answer that the model itself generated keeps its token ids in `tokens`,
    so that it is not tokenised again and matches the KV cache."""

    role: Role
    text: str
    pictures: tuple[Picture, ...] = ()
    tokens: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """The input of an engine: the system text and the turns, oldest first.

    The first turn is the user's. If the last one is the assistant's, the answer continues its text. With `open_turn`
    the user is still typing: the last turn has the pictures and the complete words so far, and the prompt ends after
    them. `key` names the conversation, so that its next prompt finds its KV cache.
    `prefix`: token ids of an answer that another engine of the same model could not finish. The answer continues after
    them, and only the new text is reported."""

    system: str
    turns: tuple[Turn, ...]
    key: str = ""
    open_turn: bool = False
    prefix: tuple[int, ...] = ()

    @property
    def is_continued(self) -> bool:
        """Whether the answer directly continues a text, so that a space at its beginning is part of it."""
        last = self.turns[-1] if self.turns else Turn("user", "")
        return last.role == "assistant" and last.text[-1:] not in ("", " ")


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts and times of an answer or a prefill. Token counts include the vision tokens of pictures."""

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
class Queued:
    """The request waits, because no slot of the KV cache is free."""

    place: int  # 1: it gets the next free slot


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
    """A piece of the answer, in whole characters. The answer is the concatenation of all pieces."""

    text: str
    tokens: tuple[int, ...] = ()  # the ids since the last piece; empty if unknown


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of an answer that did not fail."""

    finish_reason: FinishReason
    stats: Stats
    tokens: tuple[int, ...] = ()  # the answer's token ids, without eos; empty if unknown


@dataclass(frozen=True, slots=True)
class Failed:
    """The last event of a prefill or an answer that an error ended, with the fields of `errors.ImpChatError`."""

    code: str
    values: Mapping[str, Any]


End = Ready | Finished | Failed
Event = Queued | Encoding | Reading | Dropped | Text | End


@dataclass(frozen=True, slots=True)
class Progress:
    """What the events of an answer or a prefill add up to so far. Front ends show this and need not read events."""

    text: str = ""
    queued: Queued | None = None  # it waits for a slot; Encoding or Reading follows
    is_encoding: bool = False  # a picture is being encoded; Reading follows
    reading: Reading | None = None
    dropped: Dropped | None = None
    end: End | None = None

    @property
    def percent(self) -> int | None:
        """Share of the prompt that has been read, 0 to 100. None: nothing is being read yet."""
        if self.is_encoding:
            return 0
        return 100 * self.reading.done // max(self.reading.total, 1) if self.reading else None

    def plus(self, event: Event) -> Progress:
        """The progress once `event` has arrived. A type checker reports any kind of event that is not handled."""
        match event:
            case Queued():
                return replace(self, queued=event)
            case Encoding():
                return replace(self, queued=None, is_encoding=True)
            case Reading():
                return replace(self, queued=None, is_encoding=False, reading=event)
            case Dropped():
                return replace(self, dropped=event)
            case Text(piece):
                return replace(self, queued=None, is_encoding=False, text=self.text + piece)
            case Ready() | Finished() | Failed():
                return replace(self, queued=None, is_encoding=False, end=event)
            case _:
                assert_never(event)


@dataclass(frozen=True, slots=True)
class Feedback:
    """A person's opinion of an answer. `reason`: in their words; may be empty."""

    liked: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One question or answer in a conversation's tree. `parent` None: a first message of the conversation."""

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
    dropped_turns: int = 0  # turns left out of the prompt of this answer
    error: Failed | None = None  # why it failed
    feedback: Feedback | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation without its messages. `leaf`: the last message of the branch that is shown."""

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
    archived: bool = False  # kept out of the list of conversations
