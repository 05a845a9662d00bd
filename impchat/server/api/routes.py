"""The API as one ASGI application: OpenAI's routes, and ImpChat's additions.

In: an open App. Out: a FastAPI application for `impchat serve` and `impchat web`.
This file does not know sockets, certificates or access checks; `middleware` does the checks.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Any, TypeVar, assert_never

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic.json_schema import models_json_schema
from sse_starlette import EventSourceResponse
from sse_starlette.sse import SendTimeoutError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from impchat import settings
from impchat.app import App
from impchat.deferred import DeferredHandle
from impchat.engines import Handle
from impchat.errors import EngineError, ImpChatError, RequestError
from impchat.messages import Dropped, Encoding, Failed, Finished, Progress, Queued, Reading, Ready, Text
from impchat.server import devices, phone_app
from impchat.server.api import schemas
from impchat.server.api.admission import Admission, AdmissionQueue
from impchat.server.api.schemas import ChatRequest, Fetch, Question, TokenCache
from impchat.server.http import body, errors, responses
from impchat.server.http.errors import refusal
from impchat.server.http.middleware import SHORT, AccessMiddleware
from impchat.server.tokens import Access

T = TypeVar("T")

PATHS = ("/v1/", *SHORT, "/health", "/metrics", "/openapi.json", phone_app.PATH, *devices.PATHS)
"""The prefixes of the paths that the API serves."""

_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": errors.ErrorBody} for status in (400, 401, 403, 404, 405, 408, 413, 415, 429, 500, 502, 503, 504)
}
_EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "description": "Each event of the stream"}
_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"model": responses.Completion, "content": {"text/event-stream": {"schema": _EVENT}}}
}

_BODIES = (ChatRequest, Question, devices.Pairing)
_ASKING = body.reads(ChatRequest, schemas.check_lengths)
_READING = body.reads(Question, schemas.check_lengths)


def build_api(
    app: App,
    *,
    queue: AdmissionQueue | None = None,
    hosts: Collection[str] = (),
    origins: Collection[str] = (),
    access: Access | None = None,
    token_needed: bool = False,
    fetch: Fetch | None = None,
) -> FastAPI:
    """The API of `app`.

    `queue`: the admission queue, if several APIs share one engine. `hosts`: names of this server in addition to its own
    addresses. `origins`: sites whose pages may use it from a browser; "*": all. `access`: the access tokens; adds the
    routes for devices. `token_needed`: require a token. `fetch`: fetches pictures from http(s) URLs; without it they
    are rejected."""
    security = [Depends(HTTPBearer(auto_error=False))] if token_needed else []  # for the OpenAPI document
    api = FastAPI(title="ImpChat", docs_url=None, redoc_url=None, responses=_REFUSALS, dependencies=security)
    _add_errors(api)
    _add_models(api, app)
    _add_answers(api, app, queue := queue or AdmissionQueue(settings.QUEUE_REQUESTS), fetch)
    _add_state(api, app, queue)
    if access:
        devices.add_to(api, app, access)
        phone_app.add_to(api, app.data)
    _add_heads(api)
    _describe_bodies(api)
    api.add_middleware(AccessMiddleware, hosts=hosts, origins=origins, access=access, token_needed=token_needed)
    if origins:  # outermost, so that pages can also read the error responses of the middleware above
        api.add_middleware(
            CORSMiddleware,
            allow_origins=[*origins],
            allow_credentials="*" not in origins,
            allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE"],
            allow_headers=["*"],
            expose_headers=["retry-after"],
        )
    return api


def _add_heads(api: FastAPI) -> None:
    """Add a HEAD route for every GET route."""
    for route in [*api.routes]:
        if isinstance(route, APIRoute) and "GET" in (route.methods or ()):
            api.add_api_route(
                route.path,
                route.endpoint,
                methods=["HEAD"],
                include_in_schema=False,
                response_model=route.response_model,
                response_class=route.response_class,
            )


def _describe_bodies(api: FastAPI) -> None:
    """Add the models of bodies that `body.reads` parses to the OpenAPI document."""
    described = api.openapi

    def openapi() -> dict[str, Any]:
        document = described()
        template = "#/components/schemas/{model}"
        _, found = models_json_schema([(model, "validation") for model in _BODIES], ref_template=template)
        document["components"]["schemas"] |= found["$defs"]
        return document

    api.openapi = openapi  # type: ignore[method-assign]


def _add_errors(api: FastAPI) -> None:
    @api.exception_handler(ImpChatError)
    async def report(_: Request, error: ImpChatError) -> JSONResponse:
        return refusal(error)

    @api.exception_handler(ClientDisconnect)
    async def left(_: Request, error: ClientDisconnect) -> Response:
        return _nobody()

    @api.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> JSONResponse:
        """A bug in ImpChat. Starlette logs it as well."""
        return refusal(EngineError("answer.no_end"))

    @api.exception_handler(HTTPException)
    async def plain(_: Request, error: HTTPException) -> JSONResponse:
        kind = "server_error" if error.status_code >= 500 else "invalid_request_error"
        content = errors.body(str(error.detail), kind, None, None)
        return JSONResponse(content, error.status_code, dict(error.headers or {}))


def _add_models(api: FastAPI, app: App) -> None:
    @api.get("/v1/models", response_model=responses.Models)
    def models() -> Any:
        return {"object": "list", "data": [_model(app)]}

    @api.get("/v1/models/{model:path}", response_model=responses.Model)
    def model(model: str) -> Any:
        _check_model(app, model)
        return _model(app)


def _model(app: App) -> dict[str, Any]:
    """The entry of the model in /v1/models. Does not load the model."""
    bundle = app.bundle
    context = bundle.context_tokens if bundle else app.engine.info.context_tokens
    takes = ["text", "image"] if bundle or app.engine.info.vision else ["text"]
    return {
        "id": app.model, "object": "model", "created": 0, "owned_by": "impchat", "context_length": context,
        "image_tokens": bundle.image.tokens if bundle else app.engine.info.image_tokens,
        "input_modalities": takes, "sampling": asdict(app.sampling), "demo": app.demo, "unverified": app.unverified,
    }  # fmt: skip


def _check_model(app: App, model: str) -> None:
    if model != app.model:
        raise RequestError("request.model_unknown", model=model, known=app.model)


def _add_answers(api: FastAPI, app: App, queue: AdmissionQueue, fetch: Fetch | None) -> None:
    spoken = TokenCache()

    @api.post(
        "/v1/chat/completions", responses=_STREAMED, response_model=None, openapi_extra=body.described(ChatRequest)
    )
    async def complete(asked: Annotated[ChatRequest, Depends(_ASKING)], request: Request) -> Response:
        _check_model(app, asked.model)

        def start(engine: Any, prompt: Any) -> Handle:
            handle: Handle = engine.start(prompt, schemas.sampling_of(asked, engine.info.sampling))
            return handle

        gone = threading.Event()
        handle = DeferredHandle(
            app.opened, lambda: schemas.prompt_of(asked, app.system, spoken, fetch, gone=gone.is_set), start
        )
        job = queue.take(handle, gone)
        reply = schemas.Reply(app.model)
        try:
            if asked.stream:
                # Wait a while for the first text before sending headers: an early failure then has an error status.
                passed = (Queued, Encoding, Dropped, *(() if asked.return_progress else (Reading,)))
                first = await _unless_gone(request, job.first(passed, settings.SSE_PING_S))
                if not isinstance(first, Failed):
                    usage = bool(asked.stream_options and asked.stream_options.include_usage)
                    pieces = _pieces(job, reply, spoken, usage, bool(asked.return_progress))
                    streamed, job = _Streamed(job, pieces), None  # type: ignore[assignment]
                    return streamed
            return await _unless_gone(request, _whole(job, reply, spoken)) or _nobody()
        finally:
            if job:
                job.close()

    @api.post(
        "/v1/images/prefill",
        response_model=None,
        responses={200: {"model": responses.Prefilled}},
        openapi_extra=body.described(Question),
    )
    async def prefill(asked: Annotated[Question, Depends(_READING)], request: Request) -> Response:
        """Read the pictures and the complete words of a question that is still being typed. The question itself then
        costs only what was not read."""
        _check_model(app, asked.model)
        gone = threading.Event()
        handle = DeferredHandle(
            app.opened,
            lambda: schemas.prompt_of(
                asked, app.system, spoken, fetch, prefill=True, reads_typed=app.reads_typed, gone=gone.is_set
            ),
            lambda engine, prompt: engine.prefill(prompt),
        )
        job = queue.take(handle, gone)
        try:
            return await _unless_gone(request, _ready(job, app.model)) or _nobody()
        finally:
            job.close()


async def _whole(job: Admission, reply: schemas.Reply, spoken: TokenCache) -> Response:
    progress = Progress()
    async for event in job.events():
        progress = progress.plus(event)
    match progress.end:
        case Failed() as error:
            return refusal(error)
        case Finished(reason) as end if reason != "stopped":
            spoken.keep(progress.text, end.tokens)
            return JSONResponse(reply.whole(progress.text, end, progress.dropped))
        case _:
            return refusal(EngineError("engine.closed"))


async def _pieces(
    job: Admission, reply: schemas.Reply, spoken: TokenCache, usage: bool, with_progress: bool
) -> AsyncIterator[dict[str, str]]:
    """The answer as server-sent events."""
    progress = Progress()
    yield _event(reply.begin())
    async for event in job.events():
        progress = progress.plus(event)
        match event:
            case Text(piece):
                yield _event(reply.piece(piece))
            case Reading():
                if with_progress:
                    yield _event(reply.progress(event))
            case Finished(reason) if reason != "stopped":
                spoken.keep(progress.text, event.tokens)
                for chunk in reply.ends(event, progress.dropped, usage):
                    yield _event(chunk)
            case Failed(code, values):
                yield _event(errors.status_and_body(code, values)[1])
            case Finished() | Ready():
                yield _event(errors.status_and_body("engine.closed", {})[1])
            case Queued() | Encoding() | Dropped():
                pass  # reported in the last chunk, or not at all
            case _:
                assert_never(event)
    yield {"data": "[DONE]"}


def _event(chunk: dict[str, Any]) -> dict[str, str]:
    # ASCII only: clients that split lines as Python does would cut an event at U+2028 or U+0085.
    return {"data": json.dumps(chunk, separators=(",", ":"))}


async def _ready(job: Admission, model: str) -> Response:
    async for event in job.events():
        match event:
            case Ready(stats):
                content = {"object": "image.prefill", "model": model, "usage": schemas.usage(stats)}
                return JSONResponse(content | {"impchat": schemas.receipt(stats, None)})
            case Failed():
                return refusal(event)
    return refusal(EngineError("engine.closed"))


class _Streamed(EventSourceResponse):
    """A stream of server-sent events that closes its job however sending ends, even before it begins."""

    def __init__(self, job: Admission, content: AsyncIterator[dict[str, str]]) -> None:
        super().__init__(content, ping=settings.SSE_PING_S, sep="\n", send_timeout=settings.SEND_S)
        self._job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with suppress(SendTimeoutError):
                await super().__call__(scope, receive, send)
        finally:
            self._job.close()


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`, or None as soon as the client disconnects."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, waiting = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        waiting.cancel()


def _nobody() -> Response:
    return Response(status_code=499)  # for the log; the client has disconnected


def _add_state(api: FastAPI, app: App, queue: AdmissionQueue) -> None:
    @api.get("/health", response_model=responses.Health, openapi_extra={"security": []})
    async def health() -> Any:
        return {"status": "ok", "model": app.model}

    @api.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def metrics() -> Response:
        return Response(generate_latest(queue.metrics.registry), media_type=CONTENT_TYPE_LATEST)
