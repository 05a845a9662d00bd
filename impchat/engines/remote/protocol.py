"""The client side of OpenAI's API, with the extensions of llama.cpp's server and of ImpChat.

In: a prompt and a sampling; JSON from a server. Out: the JSON of a request; the content of a chunk or of an error.
This file does not know how anything is sent.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields
from email.utils import mktime_tz, parsedate_tz
from typing import Any

from impchat import settings
from impchat.errors import EngineError
from impchat.messages import Dropped, Picture, Prompt, Reading, Sampling, Stats, Turn

# Fields that only some servers support. A refused one is left out from then on, or sent under its other name.
_OTHER_NAMES = {"max_tokens": "max_completion_tokens"}
_NEEDED = ("model", "messages")
_EXTRA = (
    "top_k", "min_p", "repeat_penalty", "prompt_cache_key", "return_progress", "stream_options", "seed",
    "add_generation_prompt", "continue_final_message",
)  # fmt: skip

_TOO_LONG = re.compile(r"context[ _](length|size|window)|prompt is too long|too many (input )?tokens", re.IGNORECASE)
_LIMIT = re.compile(r"(?:maximum context length is|context window of|context size \()\s*(\d+)")
_FOUND = re.compile(r"(\d+) in the messages|resulted in (\d+) tokens|(\d+) input tokens|request \((\d+) tokens\)")
_BLIND = re.compile(
    r"(image|vision|multimodal|multi-modal)\b.*\b(not|n't|only)\b|\bnot\b.*(image|vision|multimodal)", re.I
)
_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "reasoning_details")  # the names that servers use
_MOST = 10**12  # a count or time of this size or more is ignored as invalid

Json = dict[str, Any]


def request(
    prompt: Prompt, sampling: Sampling | None, model: str, address: Callable[[Picture], str], refused: Collection[str]
) -> Json:
    """The body of a chat completion, or of a prefill if `sampling` is None. `address`: returns the data URI of a
    picture. `refused`: fields to leave out."""
    asked: Json = {"model": model, "messages": messages(prompt, address)}
    if prompt.key:
        asked["prompt_cache_key"] = prompt.key
    if prompt.turns[-1].role == "assistant":  # vLLM's names; llama.cpp's server and ImpChat need neither
        asked |= {"add_generation_prompt": False, "continue_final_message": True}
    if sampling:
        asked |= _how(sampling)
    for name in refused:
        value = asked.pop(name, None)
        other = _OTHER_NAMES.get(name)
        if other and value is not None and other not in refused:
            asked[other] = value
    return asked


def _how(sampling: Sampling) -> Json:
    """The fields of a chat completion that say how to answer."""
    asked: Json = {
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_progress": True,  # llama.cpp's field: report how much of the prompt has been read
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repeat_penalty,
        "max_tokens": sampling.max_tokens,
    }
    if sampling.seed is not None:
        asked["seed"] = sampling.seed
    if stop := [s for s in sampling.stop if s]:
        asked["stop"] = stop[: settings.REMOTE_STOP_STRINGS]
    return asked


def messages(prompt: Prompt, address: Callable[[Picture], str]) -> list[Json]:
    """The turns as OpenAI's messages. Pictures come first in their turn."""
    said: list[Json] = [{"role": "system", "content": prompt.system}] if prompt.system else []
    greeted = len(prompt.turns) > 1 and prompt.turns[0] == Turn("user", "")  # the empty question before a greeting
    for turn in prompt.turns[greeted:]:
        parts: list[Json] = [{"type": "image_url", "image_url": {"url": address(p)}} for p in turn.pictures]
        if parts and turn.text:
            parts.append({"type": "text", "text": turn.text})
        said.append({"role": turn.role, "content": parts or turn.text})
    return said


# Responses


@dataclass(frozen=True, slots=True)
class Chunk:
    """The content of one piece of an answer."""

    text: str = ""
    finish_reason: str = ""  # "": not finished
    reading: Reading | None = None
    dropped: Dropped | None = None
    thoughts: bool = False  # contains reasoning, which is not part of the answer
    tools: bool = False  # contains tool calls
    stats: Mapping[str, Any] = field(default_factory=dict)  # the fields of `Stats` that the server reports
    error: str | None = None  # the answer ends with this error
    own: EngineError | None = None  # the same error, if the server is ImpChat


def chunk(data: Any) -> Chunk:
    """Parse a chunk of a stream, or a whole answer. Malformed fields are ignored.

    Raises ValueError for JSON that is not part of an answer."""
    if not isinstance(data, dict):
        raise ValueError("no object")
    if error := data.get("error"):
        return Chunk(error=_message(error) or "?", own=_own(error))
    choices = data.get("choices", ())
    if not isinstance(choices, list | None):
        if error := _message(data):  # how some servers report an error
            return Chunk(error=error)
        raise ValueError("no choices")
    choice = choices[0] if choices and isinstance(choices[0], dict) else {}
    said = _dict(choice.get("delta") or choice.get("message") or choice)
    reason = choice.get("finish_reason")
    own = _dict(data.get("impchat"))
    progress = _dict(data.get("prompt_progress"))
    total, cached, done = (_count(progress.get(name)) for name in ("total", "cache", "processed"))
    dropped = _dict(own.get("dropped"))
    return Chunk(
        text=_content(said.get("content")) or _content(said.get("refusal")) or _content(said.get("text")),
        thoughts=any(said.get(name) for name in _THOUGHTS),
        tools=bool(said.get("tool_calls") or said.get("function_call")),
        finish_reason=reason if isinstance(reason, str) else "",
        reading=Reading(max(0, done - cached), max(0, total - cached)) if progress else None,
        dropped=Dropped(_count(dropped.get("turns")), _count(dropped.get("tokens"))) if dropped else None,
        stats=stats_fields(data),
    )


def _content(content: Any) -> str:
    """The text of a message's content: a string, a part, or a list of either."""
    if isinstance(content, list):
        return "".join(map(_content, content))
    if isinstance(content, dict):
        content = content.get("text")
    return content if isinstance(content, str) else ""


def stats_fields(data: Json) -> Json:
    """The fields of `Stats` that a response reports. ImpChat's stats take precedence over llama.cpp's timings, and
    these over OpenAI's usage."""
    found: Json = {}
    if usage := _dict(data.get("usage")):
        found["prompt_tokens"] = _count(usage.get("prompt_tokens"))
        found["generated_tokens"] = _count(usage.get("completion_tokens"))
        found["cached_tokens"] = _count(_dict(usage.get("prompt_tokens_details")).get("cached_tokens"))
    if timings := _dict(data.get("timings")):
        found["cached_tokens"] = _count(timings.get("cache_n"))
        found["prompt_tokens"] = found["cached_tokens"] + _count(timings.get("prompt_n"))
        found["generated_tokens"] = _count(timings.get("predicted_n"))
        found["prefill_s"] = _number(timings.get("prompt_ms")) / 1000
        found["decode_s"] = _number(timings.get("predicted_ms")) / 1000
    if stats := _dict(_dict(data.get("impchat")).get("stats")):
        for known in fields(Stats):
            value = stats.get(known.name)
            found[known.name] = _count(value) if known.name.endswith("_tokens") else _number(value)
    return found


@dataclass(frozen=True, slots=True)
class Refusal:
    """A response with an error status."""

    status: int
    body: str = field(repr=False)
    message: str  # the server's message, in one line
    code: str  # the server's error code or type; "": none
    wait_s: float | None  # Retry-After, in seconds
    place: str  # the Location header
    own: EngineError | None = None  # the same error, if the server is ImpChat

    @property
    def too_long(self) -> bool:
        return self.status in (400, 413, 422, 500) and (
            self.code in ("context_length_exceeded", "exceed_context_size_error")
            or bool(_TOO_LONG.search(self.message))
        )

    @property
    def lengths(self) -> tuple[int, int]:
        """For a prompt that is too long: its number of tokens and the model's limit; 0 for a number not reported."""
        if self.own and self.own.code == "prompt.too_long":
            return _count(self.own.values["tokens"]), _count(self.own.values["limit"])
        error = _dict(_dict(_parsed(self.body)).get("error"))
        found, limit = _FOUND.search(self.message), _LIMIT.search(self.message)
        return (
            _count(error.get("n_prompt_tokens")) or int(next(filter(None, found.groups()), 0) if found else 0),
            _count(error.get("n_ctx")) or int(limit[1] if limit else 0),
        )

    @property
    def blind(self) -> bool:
        """Whether the server says that the model does not accept pictures."""
        return self.status in (400, 415, 422, 500, 501) and bool(_BLIND.search(self.message))

    def fields(self, sent: Collection[str]) -> set[str]:
        """The fields of `sent` that the server rejects: those it names, or else all that only some servers support."""
        if self.status not in (400, 422):
            return set()
        optional = [name for name in sent if name not in _NEEDED]
        named = {name for name in optional if re.search(rf"(?<![A-Za-z0-9_]){name}(?![A-Za-z0-9_])", self.body)}
        return named or {name for name in optional if name in _EXTRA}


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> Refusal:
    text = body.decode("utf-8", "replace")
    parsed = _parsed(text)
    error = _dict(_dict(parsed).get("error"))
    code = error.get("code") or error.get("type") or ""
    return Refusal(
        status,
        text,
        _message(parsed),
        code if isinstance(code, str) else str(error.get("type", "")),  # llama.cpp's code is the HTTP status
        _seconds(headers.get("retry-after", "")),
        headers.get("location", "")[:200],
        _own(error),
    )


def failure(
    refused: Refusal, url: str, model: str, known: Collection[str], *, keyed: bool, pictures: bool
) -> EngineError:
    """The EngineError for `refused`. `known`: the server's models; `keyed`: a key was sent; `pictures`: the request
    had pictures."""
    status, said = refused.status, refused.message
    place = {"url": url, "model": model, "known": ", ".join(known) or "?", "status": status, "detail": said or "?"}
    if 300 <= status < 400:
        return EngineError("remote.redirect", to=refused.place or "?", **place)
    if status in (401, 403):
        return EngineError("remote.key_wrong" if keyed else "remote.key_missing", **place)
    if refused.too_long:
        tokens, limit = refused.lengths
        if tokens and limit:
            return EngineError("prompt.too_long", tokens=tokens, limit=limit)
        return EngineError("remote.too_long", **place)
    unlisted = known and model not in known and model in said
    unknown = unlisted or "model_not_found" in refused.code or (status == 404 and "model" in said.lower())
    if status in (400, 404, 422) and unknown:
        return EngineError("remote.no_model", **place)
    if status in (404, 405):
        return EngineError("remote.not_openai", **place)
    if status == 413:
        return EngineError("remote.too_large", **place)
    if pictures and refused.blind:
        return EngineError("remote.no_vision", **place)
    if status == 429:
        if refused.wait_s is None:
            return EngineError("remote.busy", **place)
        return EngineError("remote.rate_limited", seconds=max(1, round(refused.wait_s)), **place)
    if refused.own:
        return refused.own
    if status >= 500:
        return EngineError("remote.broken", **place)
    return EngineError("remote.answered", **place)


def _own(error: Any) -> EngineError | None:
    """The error that an ImpChat server reports, so that it can be shown in the reader's language; None if it is not one
    that this version can render."""
    fields = _dict(_dict(error).get("impchat"))
    code, values = fields.get("code"), _dict(fields.get("values"))
    if not isinstance(code, str) or not all(isinstance(value, str | int | float) for value in values.values()):
        return None
    try:
        own = EngineError(code, **{str(k): v if not isinstance(v, str) else v[:300] for k, v in values.items()})
        return own if own.sentence() else None
    except (KeyError, ValueError, TypeError, IndexError):  # from a newer ImpChat, or malformed
        return None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _message(error: Any) -> str:
    """The message in an error body, as one line of at most 300 characters. Handles the formats of different servers;
    empty for anything but JSON."""
    return " ".join(" ".join(_words(error, 0)).split())[:300]


def _words(error: Any, depth: int) -> Iterator[str]:
    if isinstance(error, str):
        yield error
    elif isinstance(error, list) and depth < 4:
        for one in error[:4]:
            yield from _words(one, depth + 1)
    elif isinstance(error, dict) and depth < 4:
        for name in ("error", "message", "detail", "msg", "loc"):
            yield from _words(error.get(name), depth + 1)


def _seconds(value: str) -> float | None:
    """The seconds in a Retry-After header, which holds seconds or a date; None if it is neither."""
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value.strip()):
        return float(value)
    parsed = parsedate_tz(value)
    try:
        return max(0.0, mktime_tz(parsed) - time.time()) if parsed else None
    except (ValueError, OverflowError):
        return None


def _dict(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _MOST  # false for NaN
    return value if good else 0.0


def _count(value: Any) -> int:
    return int(_number(value))
