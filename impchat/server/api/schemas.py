"""The schemas of OpenAI's API: a request -> a prompt and a sampling; the events of an answer -> response JSON.

In: parsed JSON, with the pictures in it. Out: values of the core, and JSON-ready dicts.
This file does not know HTTP, nor which engine answers.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any, ClassVar, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field

from impchat import images, settings
from impchat.chat import add_question
from impchat.errors import ChatError, EngineError, RequestError
from impchat.messages import Dropped, Finished, Picture, Prompt, Reading, Sampling, Stats, Turn
from impchat.prompts import complete_words, conversation_of

Fetch = Callable[[str], bytes]
"""An http(s) URL -> the bytes at it. Raises RequestError."""

_decoding = threading.BoundedSemaphore(settings.PICTURES_AT_ONCE)


class _Asked(BaseModel):
    """Base of request models. Strict: "0.5" is not a number. Unknown fields are ignored; those that would change the
    answer are declared in `ChatRequest` and rejected."""

    model_config = ConfigDict(strict=True, extra="ignore")


class TextPart(_Asked):
    type: Literal["text"]
    text: str


class ImageAddress(_Asked):
    url: str = Field(description="A data URI (data:image/png;base64,...), or an address where the server fetches those")


class ImagePart(_Asked):
    type: Literal["image_url"]
    image_url: str | ImageAddress

    @property
    def address(self) -> str:
        return self.image_url if isinstance(self.image_url, str) else self.image_url.url


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class System(_Asked):
    role: Literal["system", "developer"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True)]


class User(_Asked):
    role: Literal["user"]
    content: str | Annotated[list[Part], Field(fail_fast=True)]


class Assistant(_Asked):
    role: Literal["assistant"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True)] | None = None


Message = Annotated[System | User | Assistant, Field(discriminator="role")]


Stop = Annotated[str, Field(max_length=settings.STOP_CHARS)]


class StreamOptions(_Asked):
    include_usage: bool | None = None


class ResponseFormat(_Asked):
    type: Literal["text"]


class Question(_Asked):
    """The fields that a chat completion and a prefill share."""

    model: str
    messages: list[Message] = Field(min_length=1, max_length=settings.MESSAGES, fail_fast=True)
    prompt_cache_key: str | None = Field(
        None, description="Names the conversation, so that its KV cache is found again"
    )


class ChatRequest(Question):
    UNSUPPORTED: ClassVar = (
        "n", "logprobs", "response_format", "tools", "functions", "logit_bias", "frequency_penalty", "presence_penalty",
    )  # fmt: skip  # rejected, because ignoring them would change the answer; neutral values are accepted

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0, le=1000)
    min_p: float | None = Field(None, ge=0, le=1)
    repeat_penalty: float | None = Field(None, ge=0.5, le=2)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    return_progress: bool | None = Field(
        None, description="As in llama.cpp's server: report how far the prompt is read"
    )
    stop: Stop | Annotated[list[Stop], Field(max_length=settings.STOP_STRINGS, fail_fast=True)] | None = None
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    functions: Annotated[list[Any], Field(max_length=0)] | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None


class TokenCache:
    """A cache: text -> token ids of the latest `settings.SPOKEN_KEPT` answers. An answer that a later request sends
    back is then not tokenised again and matches the KV cache. Call `keep` from one thread, `find` from any."""

    def __init__(self) -> None:
        self._tokens: dict[bytes, tuple[int, ...]] = {}

    def keep(self, text: str, tokens: tuple[int, ...]) -> None:
        if tokens:
            self._tokens[self._key(text)] = tokens
            if len(self._tokens) > settings.SPOKEN_KEPT:
                del self._tokens[next(iter(self._tokens))]

    def find(self, text: str) -> tuple[int, ...] | None:
        return self._tokens.get(self._key(text))

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(text.strip().encode()).digest()


def check_lengths(asked: Question) -> None:
    """Raises RequestError "request.message_long" or "request.long" for text above the limits in `settings`."""
    total = 0
    for at, message in enumerate(asked.messages):
        total += (chars := len(_text(message.content or "")))
        if chars > settings.MESSAGE_CHARS:
            raise RequestError(
                "request.message_long", place=f"messages[{at}]", chars=chars, limit=settings.MESSAGE_CHARS
            )
    if total > settings.REQUEST_CHARS:
        raise RequestError("request.long", chars=total, limit=settings.REQUEST_CHARS)


def prompt_of(
    asked: Question,
    system: str,
    spoken: TokenCache,
    fetch: Fetch | None = None,
    *,
    prefill: bool = False,
    reads_typed: bool = True,
    gone: Callable[[], bool] = lambda: False,
) -> Prompt:
    """The prompt of a request. `system`: the system text if the request has no system message. `prefill`: the last
    question is still being typed, so its pictures are used and, with
    `reads_typed`, its complete words. `gone`: returns whether the client has
    disconnected; then no further picture is decoded.

    Raises RequestError "request.last_turn", "request.image_address", "request.no_fetching", and as `fetch`; ChatError
    "question.too_many_images", ImageError, and EngineError "engine.closed" once `gone` returns True."""
    turns: list[Turn] = []
    own: list[str] = []
    for message in asked.messages:
        match message:
            case System(content=content):
                own.append(_text(content))
            case User(content=content):
                add_question(turns, _text(content), _pictures(content, fetch, gone))
            case Assistant(content=content):
                _add_answer(turns, _text(content or ""), spoken)
    if not any(turn.role == "user" for turn in turns) or (prefill and turns[-1].role != "user"):
        raise RequestError("request.last_turn")
    text = "\n".join(own) if own else system
    greeted = turns[0].role == "assistant"  # the empty question below must not name the conversation
    name = conversation_of(Prompt(text, tuple(turns[greeted:]), asked.prompt_cache_key or ""))
    if greeted:
        turns.insert(0, Turn("user", ""))  # a prompt begins with a question
    key = "api:" + hashlib.sha256(name.encode()).hexdigest()  # cannot equal the key of a conversation in the history
    if prefill:
        turns[-1] = replace(turns[-1], text=complete_words(turns[-1].text) if reads_typed else "")
    return Prompt(text, tuple(turns), key, open_turn=prefill)


def _text(content: str | Sequence[TextPart | ImagePart]) -> str:
    return content if isinstance(content, str) else "\n".join(p.text for p in content if isinstance(p, TextPart))


def _pictures(
    content: str | Sequence[TextPart | ImagePart], fetch: Fetch | None, gone: Callable[[], bool]
) -> tuple[Picture, ...]:
    addresses = [] if isinstance(content, str) else [p.address for p in content if isinstance(p, ImagePart)]
    if len(addresses) > settings.IMAGES_PER_MESSAGE:
        raise ChatError("question.too_many_images", count=len(addresses), limit=settings.IMAGES_PER_MESSAGE)
    return tuple(_picture(address, fetch, gone) for address in addresses)


def _picture(address: str, fetch: Fetch | None, gone: Callable[[], bool]) -> Picture:
    data = b"" if gone() else _bytes(address, fetch)
    with _decoding:
        if gone():
            raise EngineError("engine.closed")
        prepared = images.prepare(data)
    return Picture(prepared.image.sha256, prepared.data)


_PIECE = 1 << 20  # characters; a multiple of four


def _bytes(address: str, fetch: Fetch | None) -> bytes:
    scheme, _, rest = address.partition(":")
    if scheme.lower() in ("http", "https"):
        if fetch is None:
            raise RequestError("request.no_fetching")
        return fetch(address)
    head, comma, data = rest.partition(",")
    if scheme.lower() != "data" or not comma or not head.lower().endswith(";base64"):
        raise RequestError("request.image_address")
    plain = "".join(data.split()).rstrip("=").replace("-", "+").replace("_", "/")
    plain += "=" * (-len(plain) % 4)
    try:  # in pieces: decoding 64 MB at once would block every other thread for half a second
        pieces = (base64.b64decode(plain[at : at + _PIECE], validate=True) for at in range(0, len(plain), _PIECE))
        return b"".join(pieces)
    except (binascii.Error, ValueError) as exc:
        raise RequestError("request.image_address") from exc


def _add_answer(turns: list[Turn], text: str, spoken: TokenCache) -> None:
    if turns and turns[-1].role == "assistant":  # questions and answers must alternate in a prompt
        text = "\n".join(t for t in (turns.pop().text, text) if t)
    turns.append(Turn("assistant", text, tokens=spoken.find(text)))


def sampling_of(asked: ChatRequest, recommended: Sampling) -> Sampling:
    """The sampling of a request; fields that it leaves out have the `recommended` values."""
    chosen = {
        name: value
        for name in ("temperature", "top_p", "top_k", "min_p", "repeat_penalty")
        if (value := getattr(asked, name)) is not None
    }
    most = asked.max_completion_tokens or asked.max_tokens
    if most is not None:  # the context ends an answer earlier than a larger number would
        chosen["max_tokens"] = min(most, int(settings.SAMPLING_RANGES["max_tokens"][1]))
    if asked.seed is not None:
        chosen["seed"] = asked.seed % int(settings.SAMPLING_RANGES["seed"][1])
    if asked.stop is not None:
        chosen["stop"] = tuple(s for s in ([asked.stop] if isinstance(asked.stop, str) else asked.stop) if s)
    return replace(recommended, **chosen)


class Reply:
    """The response JSON of one answer, complete or in chunks."""

    def __init__(self, model: str) -> None:
        self._head = {"id": f"chatcmpl-{uuid4().hex}", "created": int(time.time()), "model": model}

    def whole(self, text: str, end: Finished, dropped: Dropped | None) -> dict[str, Any]:
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None,
            "finish_reason": end.finish_reason,
        }
        rest = {"usage": usage(end.stats), "impchat": receipt(end.stats, dropped)}
        return {**self._head, "object": "chat.completion", "choices": [choice]} | rest

    def begin(self) -> dict[str, Any]:
        return self._chunk({"role": "assistant", "content": ""})

    def progress(self, reading: Reading) -> dict[str, Any]:
        """A chunk with the progress through the part of the prompt that was not in the KV cache, in tokens."""
        progress = {"total": reading.total, "cache": 0, "processed": reading.done}
        return {**self._head, "object": "chat.completion.chunk", "choices": [], "prompt_progress": progress}

    def piece(self, text: str) -> dict[str, Any]:
        return self._chunk({"content": text})

    def ends(self, end: Finished, dropped: Dropped | None, with_usage: bool) -> Iterator[dict[str, Any]]:
        """The last chunks: the finish reason, then, if `with_usage`, the usage."""
        yield self._chunk({}, end.finish_reason) | {"impchat": receipt(end.stats, dropped)}
        if with_usage:
            yield {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage(end.stats)}

    def _chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}


def usage(stats: Stats) -> dict[str, Any]:
    """Token counts in OpenAI's format, including the tokens of pictures."""
    return {
        "prompt_tokens": stats.prompt_tokens,
        "completion_tokens": stats.generated_tokens,
        "total_tokens": stats.prompt_tokens + stats.generated_tokens,
        "prompt_tokens_details": {"cached_tokens": stats.cached_tokens},
    }


def receipt(stats: Stats, dropped: Dropped | None) -> dict[str, Any]:
    """ImpChat's extension of a response: `messages.Stats`, and the turns that were dropped from the prompt."""
    return {"stats": asdict(stats), "dropped": asdict(dropped) if dropped else None}
