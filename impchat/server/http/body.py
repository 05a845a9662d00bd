"""Parsing a request body: JSON -> a pydantic model, or an error that names the field and the rule it breaks.

In: a request, and the model that its body must match. Out: an instance of the model. Parsing and validation run on a
worker thread, because a body may have many megabytes.
This file does not know what a request means.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Collection
from typing import Any, TypeVar

from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from impchat import settings
from impchat.errors import RequestError

T = TypeVar("T", bound=BaseModel)
Place = tuple[str | int, ...]

_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # a surrogate as JSON escapes it
_RULES = {  # pydantic's error type -> ImpChat's error code
    "missing": "request.field_missing",
    "union_tag_not_found": "request.field_missing",
    "union_tag_invalid": "request.field_choice",
    "literal_error": "request.field_choice",
    "string_type": "request.field_text",
    "int_type": "request.field_integer",
    "int_from_float": "request.field_integer",
    "float_type": "request.field_number",
    "bool_type": "request.field_boolean",
    "list_type": "request.field_list",
    "model_type": "request.field_object",
    "model_attributes_type": "request.field_object",
    "dict_type": "request.field_object",
    "too_long": "request.field_many",
    "too_short": "request.field_few",
    "string_too_long": "request.field_long",
    "greater_than_equal": "request.field_least",
    "less_than_equal": "request.field_most",
    "less_than": "request.field_most",
}
_EITHER = {  # error types at a field that accepts several types -> error code
    frozenset({"string_type", "list_type"}): "request.field_text_or_list",
    frozenset({"string_type", "model_type"}): "request.field_text_or_object",
}
_LIMITS = ("max_length", "min_length", "ge", "le", "lt")  # the keys of the bound in pydantic's errors


def reads(model: type[T], check: Callable[[T], object] = lambda asked: None) -> Callable[[Request], Awaitable[T]]:
    """A FastAPI dependency that parses the body as `model`; `check` may reject the result by raising.

    Raises RequestError "request.many", "request.content_type", "request.not_json", "request.field_...", and what
    `check` raises."""

    async def read(request: Request) -> T:
        data = b"".join([piece async for piece in request.stream()])  # Request.body() would keep it in memory

        def work() -> T:
            asked = _read(model, data, request.headers.get("content-type", ""))
            check(asked)
            return asked

        return await run_in_threadpool(work)

    return read


def described(model: type[BaseModel]) -> dict[str, Any]:
    """The `openapi_extra` of a route whose body is parsed by `reads(model)`."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _read(model: type[T], data: bytes, kind: str) -> T:
    body = _parsed(data, kind)
    try:
        return model.model_validate(body)
    except ValidationError as exc:
        raise _refusal(exc, body, getattr(model, "UNSUPPORTED", ())) from exc


def _parsed(data: bytes, kind: str) -> Any:
    """The JSON in `data`, regardless of the Content-Type: curl -d declares a form."""
    if (values := sum(map(data.count, (b"{", b"[", b",")))) > settings.BODY_VALUES:
        raise RequestError("request.many", count=values, limit=settings.BODY_VALUES)
    try:
        text = data.decode(json.detect_encoding(data))  # json.loads(bytes) would accept invalid surrogates
        body = json.loads(text)
        return _whole(body) if _HALF.search(text) else body
    except (ValueError, RecursionError) as exc:
        media = kind.partition(";")[0].strip().lower()
        if media != "application/json" and not media.endswith("+json"):
            raise RequestError("request.content_type", kind=media[:100] or "-") from exc
        at = exc if isinstance(exc, json.JSONDecodeError) else json.JSONDecodeError("", "", 0)
        raise RequestError("request.not_json", line=at.lineno, column=at.colno) from exc


def _whole(value: Any) -> Any:
    """`value` with each unpaired surrogate replaced by U+FFFD, because such text cannot be stored or sent."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole(each) for each in value]
    if isinstance(value, dict):
        return {_whole(name): _whole(each) for name, each in value.items()}
    return value


def _refusal(error: ValidationError, body: Any, unsupported: Collection[str]) -> RequestError:
    """The error at the first faulty field. If that field accepts several types, pydantic reports an error for each; the
    deepest one, or one that is not about the type itself, belongs to the type that was meant."""
    found = [(_place(each, body), each) for each in error.errors(include_url=False, include_input=False)]
    first = found[0][0]
    alike = [(place, each) for place, each in found if place[: len(first)] == first]
    place, worst = max(alike, key=lambda one: (len(one[0]), not one[1]["type"].endswith("_type")))
    named = _written(place)
    if place and place[0] in unsupported:
        return RequestError("request.field_unsupported", place=place[0])
    code = _RULES.get(worst["type"], "request.field_wrong")
    code = _EITHER.get(frozenset(each["type"] for at, each in alike if at == place), code)
    context = worst.get("ctx", {})
    if code == "request.field_choice":
        allowed = (
            str(context.get("expected_tags") or context.get("expected", "")).replace("'", "").replace(" or ", ", ")
        )
        return RequestError(code, place=named, allowed=allowed)
    limit = next((context[name] for name in _LIMITS if name in context), None)
    return RequestError(code, place=named) if limit is None else RequestError(code, place=named, limit=limit)


def _place(error: Any, body: Any) -> Place:
    """The path of an error in `body`, without the names that pydantic adds for the members of a union."""
    loc: Place = error["loc"]
    place: list[str | int] = []
    for step in loc:
        if isinstance(body, list) if isinstance(step, int) else isinstance(body, dict) and step in body:
            body = body[step]
            place.append(step)
    if error["type"] == "missing":
        place.append(loc[-1])
    elif error["type"].startswith("union_tag"):
        place.append(error["ctx"]["discriminator"].strip("'"))
    return tuple(place)


def _written(place: Place) -> str:
    """A path in programming notation, such as messages[0].content[1]; "body" if it is empty."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).lstrip(".") or "body"
