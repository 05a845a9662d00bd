"""The web server: the page, the pictures it shows and takes, answers as they are written, and the guard before them.

In: an open App and a bound socket. Out: HTTP on this machine alone. Pictures come and go through routes of our own
with an owner check; Gradio's file cache is never used, and nothing is fetched from elsewhere.
This file does not know what the page looks like.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext, suppress
from functools import lru_cache
from html import escape
from importlib import metadata
from itertools import takewhile
from pathlib import Path
from typing import Any

# Gradio reads these when it starts. The second keeps it from drawing up figures of its own with pandas behind each
# event, which nobody sees.
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

from impchat import images, paths, presentation, settings
from impchat.answer import Answer
from impchat.app import App
from impchat.chat import Attachment
from impchat.errors import ChatError, ImageError, ImpChatError
from impchat.messages import Encoding, Event, Failed, Finished, Reading, Ready, Text
from impchat.server.api import routes
from impchat.server.api.admission import Desk
from impchat.server.api.routes import build_api
from impchat.server.tokens import Access
from impchat.texts import say
from impchat_web import banners, devices, guard, languages, page, render

_HERE = Path(__file__).parent
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FOREVER = {"cache-control": "private, max-age=31536000, immutable"}  # for addresses that hold a hash
_DAY = {"cache-control": "private, max-age=86400"}
_PICTURES = ("/image/", "/thumbnail/", "/sample/")
_TALK = ("/attach", "/detach", "/draft", "/follow/", "/stop/")
_OURS = (*_PICTURES, *_TALK, "/page.", "/manifest.", "/favicon.", banners.PATH, devices.PATH, *routes.PATHS)
_FOREIGN_META = re.compile(r'<meta\s+(?:property="og:|name="twitter:)[^>]*>')  # "Gradio", "Click to try out the app!"
_FILES = {"page.js": "text/javascript", "page.css": "text/css", "page.svg": "image/svg+xml"}
_THUMBNAILS = 256  # kept in memory
_STREAM: dict[str, Any] = {
    "media_type": "application/x-ndjson",
    "headers": {"content-encoding": "identity"},  # compressed, a line would wait for those after it
}
FRAME_S = 0.05  # an answer is sent at most this often
IDLE_S = 0.5  # where nothing new comes, the server looks this often whether the page has gone


def build_app(app: App, language: str | None = None, access: Access | None = None, desk: Desk | None = None) -> FastAPI:
    """The web application on `app`, which is closed when the server ends: the page, and the API for programs of this
    machine. `language` None: each browser's own. `access`: who may use ImpChat from elsewhere; the page can pair
    phones then. `desk`: shared with other APIs of `app`."""

    beside = {f"/{name}": build(app, language, f"/{name}") for name, build in _front_ends()}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for other in beside.values():
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
    _add_answers(web, app, language)
    _add_files(web)
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
    others: dict[tuple[str, ...], ASGIApp] = {routes.PATHS: build_api(app, desk=desk, access=access)}
    others |= {(f"{path}/",): other for path, other in beside.items()}
    web.add_middleware(_Crossing, others=others)
    web.add_middleware(guard.Guard, ours=_OURS, beside=tuple(beside), dress=_dress(language))
    web.add_middleware(_Compression, without=tuple(path for paths in others for path in paths))
    return web


@contextmanager
def _no_folders(data: Path) -> Iterator[None]:
    """Keep Gradio from leaving folders behind, and from failing where it cannot make them: `gradio` among the shared
    temporary files, for a mode that we do not use, and those of matplotlib, which it starts at every event if that is
    installed. In the block the application is made."""
    gradio.utils.MatplotlibBackendMananger = nullcontext  # type: ignore[assignment, misc]  # as it is spelled there
    with tempfile.TemporaryDirectory(dir=data) as folder:
        gradio.routes.DEFAULT_TEMP_DIR = folder
        yield


def _front_ends() -> Iterator[tuple[str, Callable[..., FastAPI]]]:
    """Those that can run beside the page, by name; one whose packages are not installed is left out."""
    for entry in metadata.entry_points(group="impchat.beside"):
        with suppress(ModuleNotFoundError):
            yield entry.name, entry.load()


class _Crossing:
    """ASGI middleware: what is asked of the API or of another front end goes there, all else to the page. `others`:
    the beginnings of paths -> who answers them."""

    def __init__(self, app: ASGIApp, others: Mapping[tuple[str, ...], ASGIApp]) -> None:
        self._app = app
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        chosen = self._app
        if scope["type"] in ("http", "websocket"):
            chosen = next((other for paths, other in self._others.items() if scope["path"].startswith(paths)), chosen)
        await chosen(scope, receive, send)


class _Compression(GZipMiddleware):
    """What the page loads, compressed; `without` are the beginnings of the paths of APIs and other front ends.

    No response mixes a secret with text that another site could choose (BREACH): other sites' requests are refused."""

    def __init__(self, app: ASGIApp, without: tuple[str, ...]) -> None:
        super().__init__(app, compresslevel=6)  # 9 takes twice as long for a hundredth
        self._without = without

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].startswith(self._without):
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _add_pictures(web: FastAPI, app: App) -> None:
    @lru_cache(maxsize=_THUMBNAILS)
    def small(sha256: str) -> bytes:
        return images.thumbnail(app.history.image_bytes(sha256))

    def theirs(sha256: str) -> bool:
        return bool(_SHA256.fullmatch(sha256)) and app.history.image_of(page.owner_of(None), sha256)

    @web.get("/image/{sha256}")
    def image(sha256: str) -> Response:
        if not theirs(sha256):
            return Response(status_code=404)
        mime = app.history.image(sha256).mime
        return Response(app.history.image_bytes(sha256), media_type=mime, headers=_FOREVER)

    @web.get("/thumbnail/{sha256}")
    def thumbnail(sha256: str) -> Response:
        if not theirs(sha256):
            return Response(status_code=404)
        return Response(small(sha256), media_type="image/jpeg", headers=_FOREVER)

    @web.get("/sample/{name}")
    def sample(name: str) -> Response:
        if name not in [file.name for file in paths.samples()]:
            return Response(status_code=404)
        mime = "image/png" if name.endswith(".png") else "image/jpeg"
        return Response((paths.samples_dir() / name).read_bytes(), media_type=mime, headers=_DAY)


def _add_draft(web: FastAPI, app: App, language: str | None) -> None:
    """The question that is being composed: its pictures and its text. `c` names its conversation, "" a new one."""

    @web.post("/attach")
    async def attach(request: Request, c: str = "") -> StreamingResponse:
        def refused(size: int) -> ImageError:
            return ImageError("image.too_large_bytes", megabytes=size >> 20, limit=settings.IMAGE_BYTES >> 20)

        data = await _body(request, settings.IMAGE_BYTES, refused)
        chat = await run_in_threadpool(app.chat, c or None, page.owner_of(None))
        attachment = await run_in_threadpool(chat.attach, data)
        spoken = languages.choose(request.headers.get("accept-language", ""), language)
        return StreamingResponse(_progress(chat.conversation, attachment, spoken), **_STREAM)

    @web.post("/detach")
    def detach(c: str, image: str) -> Response:
        app.chat(c, page.owner_of(None)).detach(image)
        return Response(status_code=204)

    @web.post("/draft")
    async def draft(request: Request, c: str) -> Response:
        body = await _body(request, settings.DRAFT_BYTES, lambda size: ChatError("draft.too_long"))
        text = body.decode("utf-8", "replace")
        chat = await run_in_threadpool(app.chat, c, page.owner_of(None))
        await run_in_threadpool(chat.save_draft, text)
        return Response(status_code=204)


async def _body(request: Request, limit: int, refused: Callable[[int], ImpChatError]) -> bytes:
    """The request's body. As soon as it is larger than `limit` bytes, raises what `refused` says of its size so far."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit:
            raise refused(len(data))
    return bytes(data)


def _progress(conversation: str | None, attachment: Attachment, language: str) -> Iterator[str]:
    """Lines of JSON: the picture as it is kept, how far the engine has read it, and how that ended."""
    yield _line(type="attached", conversation=conversation, image=attachment.image.sha256)
    after = 0
    while True:
        for number, event in attachment.events(after, timeout_s=IDLE_S):
            after = number
            match event:
                case Encoding():
                    yield _line(type="reading", percent=0)
                case Reading(done, total):
                    yield _line(type="reading", percent=100 * done // max(total, 1))
                case Ready():
                    yield _line(type="ready")
                    return
                case Failed():
                    yield _line(type="failed", error=presentation.sentence(event, language))
                    return
                case Finished():
                    yield _line(type="ended")
                    return
        yield "\n"  # so that the server notices a page that has gone


def _add_answers(web: FastAPI, app: App, language: str | None) -> None:
    """An answer that is being written. It belongs to the core: a page that goes ends its reading, nothing else."""

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
    """Lines of JSON whenever the answer has grown: it whole as `html`, or the blocks of its words `from` a number on,
    those before being as they were. They end when the answer ends."""
    after, text, reading, wait_s = 0, "", None, 0.0  # what is there already comes at once
    sent: list[str] = []
    while True:
        seen = after
        for after, event in _news(answer, seen, wait_s):
            if after == 1:
                text, reading, sent = "", None, []
            match event:
                case Text(piece):
                    text += piece
                case Reading():
                    reading = event
                case Finished() | Failed():
                    return
        if after == seen and wait_s:
            yield "\n"
        elif not text:
            yield _line(html=render.waiting(answer.message, reading, language))
        else:
            blocks = render.blocks(text, language)
            if sent:
                same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(sent, blocks, strict=False)))
                yield _line(**{"from": same, "html": "".join(blocks[same:])})
            else:
                yield _line(html=render.writing(answer.message, blocks))
            sent = blocks
        wait_s = IDLE_S
        time.sleep(FRAME_S)


def _news(answer: Answer, after: int, wait_s: float) -> Iterator[tuple[int, Event]]:
    """What has come behind number `after`: waits for the first, then takes what is there."""
    for number, event in answer.events(after, wait_s):
        yield number, event
        yield from answer.events(number, 0)
        return


def _line(**values: Any) -> str:
    return json.dumps(values) + "\n"


def _dress(language: str | None) -> Callable[[str, str], str]:
    """What makes Gradio's page ours: what it loads, its name and its language. The hash of a file in its address makes
    a browser fetch a changed one at once."""
    version = {name: hashlib.sha256((_HERE / name).read_bytes()).hexdigest()[:12] for name in _FILES}
    script = f'<script defer src="/page.js?{version["page.js"]}"></script>'  # runs before Gradio's
    links = (
        f'<link rel="icon" type="image/svg+xml" href="/page.svg?{version["page.svg"]}">'
        f'<link rel="stylesheet" href="/page.css?{version["page.css"]}">'
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
        return page.replace("<head>", f"<head>{script}", 1).replace("</head>", f"{names}{links}</head>", 1)

    return dress


def _add_files(web: FastAPI) -> None:
    @web.get("/page.{kind}")
    def page_file(kind: str) -> Response:
        if (mime := _FILES.get(f"page.{kind}")) is None:
            return Response(status_code=404)
        return Response((_HERE / f"page.{kind}").read_bytes(), media_type=mime, headers=_FOREVER)

    @web.get("/favicon.ico")
    def icon() -> Response:
        return page_file("svg")

    @web.get("/manifest.json")
    def manifest() -> JSONResponse:
        mark = {"src": "/page.svg", "type": "image/svg+xml", "sizes": "any"}
        return JSONResponse({"name": "ImpChat", "start_url": "/", "display": "standalone", "icons": [mark]})
