"""The routes that change a picture of the draft, preview it, and cut out a part of a picture.

In: an open App; hashes of stored pictures, and edits as JSON (`impchat.images.edit`). Out: pictures, and the progress
of reading a changed one.
This file does not know what the editor or the viewer look like.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from impchat import images, settings
from impchat.app import App
from impchat.deferred import Attachment
from impchat.errors import HistoryError, ImageError
from impchat.images import detail, edit
from impchat.images.marks import BoxMark
from impchat_web import languages

PATH = "/pictures/"
_EDITS_BYTES = 2_000_000  # eight lines of 2,000 points each
_DRAWING = b"\x89PNG"

Progress = Callable[[str | None, Attachment, str], Iterator[str]]


def loses_small_print(app: App, data: bytes) -> bool:
    """Whether the model loses small print of the picture in `data`; False if another machine looks at it."""
    if not app.bundle:
        return False
    rule = app.bundle.image
    return detail.loses_small_print(data, rule.size, rule.aspect)


def add_to(
    web: FastAPI, app: App, owner: str, language: str | None, progress: Progress, stream: dict[str, Any]
) -> None:
    """Add the routes to `web`. `progress`: the lines about an attachment; `stream`: how they are sent."""

    def stored(image: str) -> bytes:
        if not app.history.image_of(owner, image):
            raise HistoryError("history.no_image", image=image)
        return app.history.image_bytes(image)

    async def sent(request: Request) -> tuple[tuple[edit.Edit, ...], bytes]:
        """The edits, and the picture that follows them after a line break; b"" without one. The page sends the original
        of a picture that it has replaced before, because the history has forgotten it."""
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > _EDITS_BYTES + settings.IMAGE_BYTES:
                raise ImageError("edit.invalid", detail="size")
        edits, _, original = bytes(body).partition(b"\n")
        try:
            return edit.read(json.loads(edits)), original
        except ValueError:
            raise ImageError("edit.invalid", detail="JSON") from None

    def edited(image: str, edits: tuple[edit.Edit, ...], original: bytes) -> bytes:
        data = original or stored(image)
        return edit.apply(data, edits) if edits else data

    def picture(data: bytes) -> Response:
        return Response(data, media_type="image/png" if data.startswith(_DRAWING) else "image/jpeg")

    @web.post(f"{PATH}edit")
    async def change(request: Request, c: str, image: str) -> StreamingResponse:
        """Replace a picture of a draft by the one that the edits in the body make of it, or of the picture that follows
        them. The first line has the legend of the marks."""
        edits, original = await sent(request)
        spoken = languages.choose(request.headers.get("accept-language", ""), language)

        def work() -> tuple[str | None, Attachment]:
            chat = app.chat(c, owner)
            data = edited(image, edits, original)
            app.history.add_image(images.prepare(data), owner)  # first: on a full disk the draft stays as it is
            draft = app.history.conversation(c, owner).draft_images
            if image not in draft:
                raise HistoryError("history.no_image", image=image)
            chat.detach(image)
            return chat.conversation, chat.attach(data, draft.index(image))

        conversation, attachment = await run_in_threadpool(work)

        def lines() -> Iterator[str]:
            yield json.dumps({"type": "edited", "legend": edit.legend(edits, spoken)}) + "\n"
            yield from progress(conversation, attachment, spoken)

        return StreamingResponse(lines(), **stream)

    @web.post(f"{PATH}seen")
    async def seen(request: Request, image: str) -> Response:
        """The picture with the edits in the body, as the model sees it; 204 if another machine looks at it."""
        edits, original = await sent(request)
        if not app.bundle:
            return Response(status_code=204)
        rule = app.bundle.image

        def work() -> tuple[bytes, bool]:
            data = edited(image, edits, original)
            return edit.seen(data, rule.size, rule.aspect), loses_small_print(app, data)

        data, loses = await run_in_threadpool(work)
        return Response(data, media_type="image/png", headers={"x-small-print": "lost" if loses else "kept"})

    @web.post(f"{PATH}part")
    async def part(request: Request, image: str) -> Response:
        """The part of a picture to ask about: a `box` edit in the body says which."""
        match await sent(request):
            case ((BoxMark(box),), b""):
                return picture(await run_in_threadpool(lambda: edit.part(stored(image), box)))
        raise ImageError("edit.invalid", detail="part")
