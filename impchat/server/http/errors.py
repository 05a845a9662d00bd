"""Errors in OpenAI's format: a status, and a body with message, type, param and code.

In: an error of the core, as exception or event. Out: a response. Messages are in English, like the whole API.
This file does not know the request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel

from impchat.errors import ImpChatError
from impchat.messages import Failed

_KNOWN: dict[str, tuple[int, str, str | None, str]] = {  # ImpChat's code -> status, type, param, OpenAI's code
    "request.model_unknown": (404, "invalid_request_error", "model", "model_not_found"),
    "request.token": (401, "authentication_error", None, "invalid_api_key"),
    "request.host": (403, "permission_error", None, "forbidden"),
    "request.origin": (403, "permission_error", None, "forbidden"),
    "pair.code": (403, "permission_error", None, "pair.code"),
    "request.device": (403, "permission_error", None, "forbidden"),
    "request.too_large": (413, "invalid_request_error", None, "request_too_large"),
    "request.slow": (408, "invalid_request_error", None, "request_timeout"),
    "request.content_type": (415, "invalid_request_error", None, "unsupported_media_type"),
    "request.many": (400, "invalid_request_error", None, "invalid_request"),
    "request.not_json": (400, "invalid_request_error", None, "invalid_request"),
    "request.message_long": (400, "invalid_request_error", "messages", "context_length_exceeded"),
    "request.long": (400, "invalid_request_error", "messages", "context_length_exceeded"),
    "request.busy": (429, "rate_limit_error", None, "rate_limit_exceeded"),
    "prompt.too_long": (400, "invalid_request_error", "messages", "context_length_exceeded"),
    "prompt.no_question": (400, "invalid_request_error", "messages", "invalid_messages"),
    "request.last_turn": (400, "invalid_request_error", "messages", "invalid_messages"),
    "remote.no_model": (404, "invalid_request_error", "model", "model_not_found"),
    "remote.too_long": (400, "invalid_request_error", "messages", "context_length_exceeded"),
    "remote.no_vision": (400, "invalid_request_error", "messages", "remote.no_vision"),
    "remote.filtered": (400, "invalid_request_error", None, "content_filter"),
    "remote.rate_limited": (429, "rate_limit_error", None, "rate_limit_exceeded"),
    "remote.busy": (429, "rate_limit_error", None, "rate_limit_exceeded"),
    "remote.no_reply": (504, "server_error", None, "remote.no_reply"),
    "remote.silent": (504, "server_error", None, "remote.silent"),
    "engine.closed": (503, "server_error", None, "unavailable"),
    "cluster.replicas_lost": (503, "server_error", None, "unavailable"),
    "engine.out_of_memory": (503, "server_error", None, "unavailable"),
}
_CHARS = 1000
_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_ASKED_WRONG = ("image.", "question.", "option.", "request.", "archive.")


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None
    impchat: dict[str, Any] | None = None  # ImpChat's code and values, for clients that translate it


class ErrorBody(BaseModel):
    """OpenAI's error body."""

    error: ErrorDetail


def status_and_body(code: str, values: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """The HTTP status and body for the error `code`. An error of a remote server keeps that server's status."""
    if code in _KNOWN:
        status, kind, param, name = _KNOWN[code]
    elif code.startswith("request.field_"):
        status, kind, param, name = 400, "invalid_request_error", values["place"], "invalid_request"
    elif code.startswith("remote."):
        reported = values.get("status", 502)
        status, param, name = reported if isinstance(reported, int) and 400 <= reported < 600 else 502, None, code
        kind = "server_error" if status >= 500 else _KINDS.get(status, "invalid_request_error")
    elif code.startswith(_ASKED_WRONG):
        status, kind, param, name = 400, "invalid_request_error", None, code
    elif code.startswith("history.no_"):
        status, kind, param, name = 404, "invalid_request_error", None, "not_found"
    else:
        status, kind, param, name = 500, "server_error", None, code
    plain = {key: value if isinstance(value, int | float) else _clean(str(value)) for key, value in values.items()}
    content = body(ImpChatError(code, **plain).sentence(), kind, param, name)
    content["error"]["impchat"] = {"code": code, "values": plain}
    return status, content


def body(message: str, kind: str, param: str | None, code: str | None) -> dict[str, Any]:
    return {"error": {"message": _clean(message), "type": kind, "param": param, "code": code}}


def _clean(text: str) -> str:
    """`text` without unpaired surrogates, at most `_CHARS` long: it may quote the request."""
    return text[:_CHARS].encode("utf-8", "replace").decode()


def refusal(error: ImpChatError | Failed) -> JSONResponse:
    """The response for `error`."""
    status, content = status_and_body(error.code, error.values)
    headers = {}
    if "seconds" in error.values and status == 429:
        headers["retry-after"] = str(error.values["seconds"])
    if status in (408, 413):
        headers["connection"] = "close"  # do not wait for the rest of the body
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(content, status, headers)
