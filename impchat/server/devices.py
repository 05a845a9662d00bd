"""Routes for paired devices: pairing, downloads of models, and exchange of conversations.

In: an open App and its access tokens. Out: routes. A device sees only the data of its owner.
This file does not know how a device found this server.
"""

from __future__ import annotations

import base64
import hashlib
import platform
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field

from impchat.app import App
from impchat.bundle import MANIFEST, Bundle
from impchat.errors import HistoryError, RequestError
from impchat.history import archive
from impchat.models import library
from impchat.server.http import body, responses
from impchat.server.tokens import Access, Holder

PATHS = ("/pair", "/bundles", "/conversations")

_ZIP = {200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}}}


_ZIP_BODY = {"requestBody": {"required": True, "content": _ZIP[200]["content"]}}


class Pairing(BaseModel):
    model_config = ConfigDict(strict=True)

    code: str = Field(max_length=100)
    name: str = Field(max_length=1000)


_PAIRING = body.reads(Pairing)


def _device(request: Request) -> Holder:
    """The device that sent the request. Raises RequestError "request.device" for any other client."""
    holder = getattr(request.state, "holder", None)
    if not isinstance(holder, Holder) or holder.kind != "device":
        raise RequestError("request.device")
    return holder


_Device = Annotated[Holder, Depends(_device)]


def add_to(api: FastAPI, app: App, access: Access) -> None:
    """Add the routes of devices to `api`."""
    _add_pairing(api, app, access)
    _add_bundles(api, app)
    _add_conversations(api, app)


def _add_pairing(api: FastAPI, app: App, access: Access) -> None:
    @api.post("/pair", response_model=responses.Paired, openapi_extra={"security": [], **body.described(Pairing)})
    def pair(asked: Annotated[Pairing, Depends(_PAIRING)]) -> Any:
        """Exchange a one-time code for a token."""
        holder, token = access.redeem(asked.code, asked.name)
        return {"id": access.server, "name": platform.node(), "model": app.model, "device": holder.id, "token": token}

    @api.delete("/pair", status_code=204)
    def unpair(device: _Device) -> None:
        """Revoke the device's own token."""
        access.revoke(device.id)


def _add_bundles(api: FastAPI, app: App) -> None:
    def bundle(id: str) -> Bundle:
        found = next((row.bundle for row in library.models(app.data) if row.id == id), None)
        if found is None:
            raise RequestError("request.model_unknown", model=id, known=app.model)
        return found

    @api.get("/bundles", response_model=responses.Bundles)
    def bundles(_: _Device) -> Any:
        """The models on this machine, with the files that a device can download."""
        return {"bundles": [_described(row.bundle) for row in library.models(app.data) if row.bundle]}

    @api.get("/bundles/{id}/{name}", response_class=FileResponse)
    def file(id: str, name: str, request: Request, _: _Device) -> Response:
        """One file of a model, or a range of its bytes."""
        found = bundle(id)
        sha256 = dict(_files(found)).get(name)
        if sha256 is None:
            raise RequestError("request.model_unknown", model=f"{id}/{name}", known=app.model)
        digest = base64.b64encode(bytes.fromhex(sha256)).decode()
        headers = {"etag": f'"{sha256}"', "repr-digest": f"sha-256=:{digest}:", "accept-ranges": "bytes"}
        if f'"{sha256}"' in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return FileResponse(found.path / name, media_type="application/octet-stream", headers=headers)


def _described(bundle: Bundle) -> dict[str, Any]:
    files = [
        {"name": name, "bytes": (bundle.path / name).stat().st_size, "sha256": sha} for name, sha in _files(bundle)
    ]
    return {"id": bundle.id, "name": bundle.name, "licence": bundle.licence, "demo": bundle.demo, "files": files}


def _files(bundle: Bundle) -> list[tuple[str, str]]:
    """The names and hashes of a bundle's files. The manifest comes last, so that a copy that has it is complete."""
    manifest = hashlib.sha256(Path(bundle.path / MANIFEST).read_bytes()).hexdigest()
    return [*((file.name, file.sha256) for file in bundle.files.values()), (MANIFEST, manifest)]


def _add_conversations(api: FastAPI, app: App) -> None:
    history = app.history

    @api.get("/conversations", response_model=responses.Conversations)
    def conversations(device: _Device) -> Any:
        """The owner's conversations, pinned ones on top, then latest first."""
        rows = history.conversations(device.owner)
        return {"conversations": [{"uuid": c.uuid, "title": c.title, "updated_utc": c.updated_utc} for c in rows]}

    @api.get("/conversations/{uuid}", response_class=Response, responses=_ZIP)  # type: ignore[arg-type]
    def hand_out(uuid: str, device: _Device) -> Response:
        """One conversation with its pictures, as the zip that `impchat history export` writes."""
        return Response(archive.export_zip(history, uuid, device.owner), media_type="application/zip")

    @api.put("/conversations/{uuid}", response_model=responses.HandedOver, openapi_extra=_ZIP_BODY)
    async def take_in(uuid: str, request: Request, device: _Device) -> Any:
        """Merge such a zip into the history; nothing on either side is lost. The response has the uuid of the
        conversation, which differs if another owner's conversation has that uuid."""
        data = await request.body()

        def merge() -> str:
            parts = archive.read_zip(data, device.owner)
            if parts[0].uuid != uuid:
                raise HistoryError("archive.broken")
            return history.merge(*parts).uuid

        return {"uuid": await run_in_threadpool(merge)}
