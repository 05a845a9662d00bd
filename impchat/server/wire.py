"""The words of OpenAI's API: a request -> a prompt and a sampling; the events of an answer -> what is sent back.

In: JSON that has been read, and the pictures in it. Out: values of the core, and JSON-ready dicts.
This file does not know HTTP, nor which engine answers.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field

from impchat import images, settings
from impchat.chat import add_question
from impchat.errors import ChatError, RequestError
from impchat.messages import Dropped, Finished, Picture, Prompt, Reading, Sampling, Stats, Turn
from impchat.prompts import conversation_of

Fetch = Callable[[str], bytes]
"""An http(s) address -> the bytes behind it. Raises RequestError."""


class _Asked(BaseModel):
    """Strict: "0.5" is no number. What OpenAI knows and we do not is let pass, unless it would change the answer."""

    model_config = ConfigDict(strict=True, extra="ignore")


class TextPart(_Asked):
    type: Literal["text"]
    text: str


class ImageAddress(_Asked):
    url: str = Field(description="A data URI (data:image/png;base64,...), or an address where the server fetches those")


class ImagePart(_Asked):
    type: Literal["image_url"]
    image_url: ImageAddress


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class System(_Asked):
    role: Literal["system", "developer"]
    content: str | list[TextPart]


class User(_Asked):
    role: Literal["user"]
    content: str | list[Part]


class Assistant(_Asked):
    role: Literal["assistant"]
    content: str | list[TextPart] | None = None


Message = Annotated[System | User | Assistant, Field(discriminator="role")]


class StreamOptions(_Asked):
    include_usage: bool | None = None


class ResponseFormat(_Asked):
    type: Literal["text"]


class Question(_Asked):
    """What both a chat completion and a prefill are about."""

    model: str
    messages: list[Message] = Field(min_length=1)
    prompt_cache_key: str | None = Field(
        None, description="Names the conversation, so that its KV cache is found again"
    )


class ChatRequest(Question):
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
    return_progress: bool | None = Field(None, description="As in llama.cpp's server: tell how far the prompt is read")
    stop: str | Annotated[list[str], Field(max_length=settings.STOP_STRINGS)] | None = None
    # What would change the answer and is not there is refused, not passed over.
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    functions: Annotated[list[Any], Field(max_length=0)] | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None


class Spoken:
    """The token ids of the latest answers by their text, so that an answer that comes back in a later request is not
    tokenised anew and the KV cache matches. In memory alone; one thread keeps, any may look."""

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


def prompt_of(
    asked: Question, system: str, spoken: Spoken, fetch: Fetch | None = None, *, prefill: bool = False
) -> Prompt:
    """The prompt of a request. `system`: where the request has no system message of its own. With `prefill` the last
    question is still being typed: its pictures are read, its text is not.

    Raises RequestError "request.last_turn", "request.image_address", "request.no_fetching", ImageError."""
    turns: list[Turn] = []
    own: list[str] = []
    for message in asked.messages:
        match message:
            case System(content=content):
                own.append(_text(content))
            case User(content=content):
                add_question(turns, _text(content), _pictures(content, fetch))
            case Assistant(content=content):
                _add_answer(turns, _text(content or ""), spoken)
    if not turns or turns[-1].role != "user":
        raise RequestError("request.last_turn")
    text = "\n".join(own) if own else system
    name = conversation_of(Prompt(text, tuple(turns), asked.prompt_cache_key or ""))
    key = "api:" + hashlib.sha256(name.encode()).hexdigest()  # no conversation of the history has such a key
    if prefill:
        turns[-1] = replace(turns[-1], text="")
    return Prompt(text, tuple(turns), key, open_turn=prefill)


def _text(content: str | Sequence[TextPart | ImagePart]) -> str:
    text = content if isinstance(content, str) else "\n".join(p.text for p in content if isinstance(p, TextPart))
    return text.encode("utf-8", "replace").decode()  # half of a surrogate pair is no text


def _pictures(content: str | Sequence[TextPart | ImagePart], fetch: Fetch | None) -> tuple[Picture, ...]:
    addresses = [] if isinstance(content, str) else [p.image_url.url for p in content if isinstance(p, ImagePart)]
    if len(addresses) > settings.IMAGES_PER_MESSAGE:
        raise ChatError("question.too_many_images", count=len(addresses), limit=settings.IMAGES_PER_MESSAGE)
    found = (images.prepare(_bytes(address, fetch)) for address in addresses)
    return tuple(Picture(prepared.image.sha256, prepared.data) for prepared in found)


def _bytes(address: str, fetch: Fetch | None) -> bytes:
    scheme, _, rest = address.partition(":")
    if scheme.lower() in ("http", "https"):
        if fetch is None:
            raise RequestError("request.no_fetching")
        return fetch(address)
    head, comma, data = rest.partition(",")
    if scheme.lower() != "data" or not comma or not head.lower().endswith(";base64"):
        raise RequestError("request.image_address")
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise RequestError("request.image_address") from exc


def _add_answer(turns: list[Turn], text: str, spoken: Spoken) -> None:
    if turns and turns[-1].role == "assistant":  # sides must alternate in a prompt
        text = "\n".join(t for t in (turns.pop().text, text) if t)
    turns.append(Turn("assistant", text, tokens=spoken.find(text)))


def sampling_of(asked: ChatRequest, recommended: Sampling) -> Sampling:
    """What the request asks for, and what the model recommends where it does not say."""
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
    """The JSON of one answer, whole or in pieces."""

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
        """How far the part of the prompt is read that was not in the KV cache."""
        told = {"total": reading.total, "cache": 0, "processed": reading.done}
        return {**self._head, "object": "chat.completion.chunk", "choices": [], "prompt_progress": told}

    def piece(self, text: str) -> dict[str, Any]:
        return self._chunk({"content": text})

    def ends(self, end: Finished, dropped: Dropped | None, with_usage: bool) -> Iterator[dict[str, Any]]:
        """The last chunks: why it ended, then, where asked for, what it took."""
        yield self._chunk({}, end.finish_reason) | {"impchat": receipt(end.stats, dropped)}
        if with_usage:
            yield {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage(end.stats)}

    def _chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}


def usage(stats: Stats) -> dict[str, Any]:
    """Token counts as OpenAI names them; those of a picture count too."""
    return {
        "prompt_tokens": stats.prompt_tokens,
        "completion_tokens": stats.generated_tokens,
        "total_tokens": stats.prompt_tokens + stats.generated_tokens,
        "prompt_tokens_details": {"cached_tokens": stats.cached_tokens},
    }


def receipt(stats: Stats, dropped: Dropped | None) -> dict[str, Any]:
    """What OpenAI has no words for: `messages.Stats`, and what the model could no longer read of the conversation."""
    return {"stats": asdict(stats), "dropped": asdict(dropped) if dropped else None}
