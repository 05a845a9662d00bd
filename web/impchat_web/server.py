"""The web server: the page, its pictures, running answers, and the middleware in front of them.

In: an open App and a bound socket. Out: HTTP on this machine only. Pictures are served and uploaded by our own routes,
which check the owner; Gradio's file cache is not used, and nothing is loaded from other hosts.
This file does not know what the page looks like.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext, suppress
from functools import partial
from html import escape
from importlib import metadata
from itertools import takewhile
from pathlib import Path
from typing import Any

# Gradio reads these at import. The second one stops it from computing its own statistics with pandas after each event.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(2**31)

import gradio as gr
import gradio.routes
import gradio.utils
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from impchat import paths, presentation, settings
from impchat.answer import Answer
from impchat.app import App
from impchat.deferred import Attachment
from impchat.errors import ChatError, ImageError, ImpChatError
from impchat.messages import Failed, Finished, Ready
from impchat.server.api import routes
from impchat.server.api.admission import AdmissionQueue
from impchat.server.api.routes import build_api
from impchat.server.tokens import Access
from impchat.texts import say
from impchat_web import banners, devices, guard, languages, page, pictures, render, static_files
from impchat_web.static_files import FOREVER, StaticFiles

_SHA256 = re.compile(r"[0-9a-f]{64}")
_DAY = {"cache-control": "private, max-age=86400"}
_PICTURES = ("/image/", "/thumbnail/", "/sample/")
_TALK = ("/attach", "/detach", "/draft", "/typed", "/follow/", "/stop/")
_OWN = (banners.PATH, devices.PATH, pictures.PATH)  # of modules
_OURS = (*_PICTURES, *_TALK, *_OWN, static_files.PATH, "/manifest.", "/favicon.", *routes.PATHS)
_FOREIGN_META = re.compile(r'<meta\s+(?:property="og:|name="twitter:)[^>]*>')  # "Gradio", "Click to try out the app!"
_STREAM: dict[str, Any] = {
    "media_type": "application/x-ndjson",
    "headers": {"content-encoding": "identity"},  # compression would delay a line until the next ones
}
FRAME_S = 0.05  # minimum time between two updates of an answer
IDLE_S = 0.5  # without news, how often to check whether the page has disconnected


def build_app(
    app: App, language: str | None = None, access: Access | None = None, queue: AdmissionQueue | None = None
) -> FastAPI:
    """The web application for `app`, which is closed when the server stops: the page, and the API for programs on this
    machine. `language` None: each browser's. `access`: the access list; if given, the page can pair phones. `queue`:
    shared with other APIs of `app`."""

    files = StaticFiles.read()
    front_ends = {f"/{name}": build(app, language, f"/{name}") for name, build in _front_ends()}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for other in front_ends.values():
                await stack.enter_async_context(other.router.lifespan_context(other))
            yield
        await run_in_threadpool(app.close)

    web = FastAPI(title="ImpChat", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)

    @web.exception_handler(ImpChatError)
    async def refuse(request: Request, error: ImpChatError) -> JSONResponse:
        spoken = languages.choose(request.headers.get("accept-language", ""), language)
        return JSONResponse({"error": error.sentence(spoken)}, 422)

    _add_pictures(web, app)
    _add_draft(web, app, language)
    pictures.add_to(web, app, page.owner_of(None), language, partial(_progress, app), _STREAM)
    _add_answers(web, app, language)
    _add_files(web, files)
    banners.add_to(web, app)
    if access:
        devices.add_to(web, app, access, language)
    with _no_folders(app.data):
        gr.mount_gradio_app(
            web,
            page.build(app, language, pairs=access is not None),
            "/",
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            pwa=False,
            enable_monitoring=False,
            mcp_server=False,
            theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        )
    others: dict[tuple[str, ...], ASGIApp] = {routes.PATHS: build_api(app, queue=queue, access=access)}
    others |= {(f"{path}/",): other for path, other in front_ends.items()}
    web.add_middleware(_Crossing, others=others)
    web.add_middleware(guard.Guard, ours=_OURS, others=tuple(front_ends), dress=_dress(language, files))
    web.add_middleware(_Compression, without=tuple(path for paths in others for path in paths))
    return web


@contextmanager
def _no_folders(data: Path) -> Iterator[None]:
    """Keep Gradio from leaving folders on disk, and from failing if it cannot create them: its own temporary folder,
    for a mode that is not used, and those of matplotlib, which it initialises at every event if that is installed.
    Create the application inside the block."""
    gradio.utils.MatplotlibBackendMananger = nullcontext  # type: ignore[assignment, misc]  # Gradio's spelling
    with tempfile.TemporaryDirectory(dir=data) as folder:
        gradio.routes.DEFAULT_TEMP_DIR = folder
        yield


def _front_ends() -> Iterator[tuple[str, Callable[..., FastAPI]]]:
    """(name, factory) of each front end that can run next to the page and whose packages are installed."""
    for entry in metadata.entry_points(group="impchat.front_ends"):
        with suppress(ModuleNotFoundError):
            yield entry.name, entry.load()


class _Crossing:
    """ASGI middleware that routes requests by path to the API, another front end or the page. `others`: path prefixes
    -> application."""

    def __init__(self, app: ASGIApp, others: Mapping[tuple[str, ...], ASGIApp]) -> None:
        self._app = app
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        chosen = self._app
        if scope["type"] in ("http", "websocket"):
            chosen = next((other for paths, other in self._others.items() if scope["path"].startswith(paths)), chosen)
        await chosen(scope, receive, send)


class _Compression(GZipMiddleware):
    """Compresses what the page loads, except paths that begin with `without` (APIs and other front ends).

    No response combines a secret with text that another site could choose (BREACH): requests of other sites are
    refused."""

    def __init__(self, app: ASGIApp, without: tuple[str, ...]) -> None:
        super().__init__(app, minimum_size=200, compresslevel=6)  # 9 takes twice as long and saves 1 %
        self._without = without

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].startswith(self._without):
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _add_pictures(web: FastAPI, app: App) -> None:
    def theirs(sha256: str) -> bool:
        return bool(_SHA256.fullmatch(sha256)) and app.history.image_of(page.owner_of(None), sha256)

    @web.get("/image/{sha256}")
    def image(sha256: str) -> Response:
        if not theirs(sha256):
            return Response(status_code=404)
        mime = app.history.image(sha256).mime
        return Response(app.history.image_bytes(sha256), media_type=mime, headers=FOREVER)

    @web.get("/thumbnail/{sha256}")
    def thumbnail(sha256: str, sharp: bool = False) -> Response:
        if not theirs(sha256):
            return Response(status_code=404)
        return Response(app.thumbnails.get(sha256, scale=2 if sharp else 1), media_type="image/jpeg", headers=FOREVER)

    @web.get("/sample/{name}")
    def sample(name: str) -> Response:
        if name not in [file.name for file in paths.samples()]:
            return Response(status_code=404)
        mime = "image/png" if name.endswith(".png") else "image/jpeg"
        return Response((paths.samples_dir() / name).read_bytes(), media_type=mime, headers=_DAY)


def _add_draft(web: FastAPI, app: App, language: str | None) -> None:
    """Add the routes of the draft: its pictures and its text. `c`: its conversation; "" for a new one."""

    @web.post("/attach")
    async def attach(request: Request, c: str = "") -> StreamingResponse:
        def refused(size: int) -> ImageError:
            return ImageError("image.too_large_bytes", megabytes=size >> 20, limit=settings.IMAGE_BYTES >> 20)

        data = await _body(request, settings.IMAGE_BYTES, refused)
        chat = await run_in_threadpool(app.chat, c or None, page.owner_of(None))
        attachment = await run_in_threadpool(chat.attach, data)
        spoken = languages.choose(request.headers.get("accept-language", ""), language)
        return StreamingResponse(_progress(app, chat.conversation, attachment, spoken), **_STREAM)

    @web.post("/detach")
    def detach(c: str, image: str) -> Response:
        app.chat(c, page.owner_of(None)).detach(image)
        return Response(status_code=204)

    @web.post("/typed")
    async def typed(request: Request, c: str) -> Response:
        body = await _body(request, 4 * settings.QUESTION_CHARS, lambda size: ChatError("draft.too_long"))
        chat = await run_in_threadpool(app.chat, c, page.owner_of(None))
        await run_in_threadpool(chat.read_typed, body.decode("utf-8", "replace"))
        return Response(status_code=204)

    @web.post("/draft")
    async def draft(request: Request, c: str) -> Response:
        body = await _body(request, settings.DRAFT_BYTES, lambda size: ChatError("draft.too_long"))
        text = body.decode("utf-8", "replace")
        chat = await run_in_threadpool(app.chat, c, page.owner_of(None))
        await run_in_threadpool(chat.save_draft, text)
        return Response(status_code=204)


async def _body(request: Request, limit: int, refused: Callable[[int], ImpChatError]) -> bytes:
    """The request's body. Raises `refused(size)` as soon as more than `limit` bytes have arrived."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit:
            raise refused(len(data))
    return bytes(data)


def _progress(app: App, conversation: str | None, attachment: Attachment, language: str) -> Iterator[str]:
    """JSON lines: the stored picture with questions to try, whether small print in it is lost, the engine's progress in
    reading it, and the result."""
    image = attachment.image.sha256
    asks = presentation.sample_asks(paths.sample_of(image), language)
    yield _line(type="attached", conversation=conversation, image=image, asks=asks)
    with suppress(ImpChatError):  # a picture that is gone by now needs no hint
        if pictures.loses_small_print(app, app.history.image_bytes(image)):
            yield _line(type="small_print")
    seen = 0
    while True:
        before, seen = seen, attachment.latest(seen, IDLE_S)
        progress = attachment.progress
        match progress.end:
            case None if seen == before or progress.percent is None:
                yield "\n"  # lets the server notice that the page has disconnected
            case None:
                yield _line(type="reading", percent=progress.percent)
            case Ready():
                yield _line(type="ready")
            case Failed() as error:
                yield _line(type="failed", error=presentation.sentence(error, language))
            case Finished():
                yield _line(type="ended")
        if progress.end:
            return


def _add_answers(web: FastAPI, app: App, language: str | None) -> None:
    """Add the routes of a running answer. The core owns it: a page that disconnects only stops reading."""

    @web.get("/follow/{message}")
    def follow(request: Request, message: str) -> StreamingResponse:
        answer = app.answer(message, page.owner_of(None))
        spoken = languages.choose(request.headers.get("accept-language", ""), language)
        return StreamingResponse(_frames(answer, spoken), **_STREAM)

    @web.post("/stop/{message}")
    def stop(message: str) -> Response:
        app.answer(message, page.owner_of(None)).stop()
        return Response(status_code=204)


def _frames(answer: Answer, language: str) -> Iterator[str]:
    """JSON lines whenever the answer has grown: the whole answer as `html`, or the `html` of its blocks starting at
    number `from`; earlier blocks are unchanged. Ends when the answer ends."""
    seen, wait_s = 0, 0.0  # wait_s 0: send what exists at once
    sent: list[str] = []
    while True:
        before, seen = seen, answer.latest(seen, wait_s)
        progress = answer.progress
        if progress.end:
            return
        if seen == before and wait_s:
            yield "\n"
        elif not progress.text:
            yield _line(html=render.waiting(answer.message, progress, language))
        else:
            blocks = render.blocks(progress.text, language)
            if sent:
                same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(sent, blocks, strict=False)))
                yield _line(**{"from": same, "html": "".join(blocks[same:])})
            else:
                yield _line(html=render.writing(answer.message, blocks))
            sent = blocks
        wait_s = IDLE_S
        time.sleep(FRAME_S)


def _line(**values: Any) -> str:
    return json.dumps(values) + "\n"


def _dress(language: str | None, files: StaticFiles) -> Callable[[str, str], str]:
    """A function that adapts Gradio's page: our files, name and language."""
    modules = files.head()
    links = (
        f'<link rel="icon" type="image/svg+xml" href="{files.address("page.svg")}">'
        f'<link rel="stylesheet" href="{files.address("page.css")}">'
        '<meta name="theme-color" content="#fbfaf8">'
        '<meta name="theme-color" content="#1b191f" media="(prefers-color-scheme: dark)">'
    )

    def dress(page: str, accepted: str) -> str:
        spoken = languages.choose(accepted, language)
        about = escape(say("chat.welcome", spoken))
        names = (
            f'<title>ImpChat</title><meta name="description" content="{about}">'
            f'<meta property="og:title" content="ImpChat"><meta property="og:description" content="{about}">'
        )
        page = _FOREIGN_META.sub("", page).replace('lang="en"', f'lang="{spoken}"', 1)
        return page.replace("<head>", f"<head>{modules}", 1).replace("</head>", f"{names}{links}</head>", 1)

    return dress


def _add_files(web: FastAPI, files: StaticFiles) -> None:
    files.add_to(web)

    @web.get("/favicon.ico")
    def icon() -> Response:
        return files.response("page.svg")

    @web.get("/manifest.json")
    def manifest() -> JSONResponse:
        mark = {"src": files.address("page.svg"), "type": "image/svg+xml", "sizes": "any"}
        return JSONResponse({"name": "ImpChat", "start_url": "/", "display": "standalone", "icons": [mark]})
