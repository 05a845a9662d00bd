"""The phone app's own files, for a phone that does not have the app yet.

In: the folder `apps` of the data folder, where a person puts the APKs of a release. Out: what there is, and a route
that gives it to anybody: an app is no secret, and a phone has no token before it has the app.
This file does not know how the offer is shown.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fastapi import FastAPI, HTTPException, Response
from fastapi.responses import FileResponse

from impchat import paths

PATH = "/app/"
_APK = "application/vnd.android.package-archive"


@dataclass(frozen=True, slots=True)
class AppFile:
    """An app that can be installed."""

    name: str
    bytes: int
    sha256: str


def files(data: Path) -> list[AppFile]:
    """What the data folder `data` has, those for telephones before those for emulators."""
    found = sorted(paths.apps_dir(data).glob("*.apk"), key=lambda path: ("arm64" not in path.name, path.name))
    return [_described(path) for path in found if path.is_file()]


def _described(path: Path) -> AppFile:
    state = path.stat()
    return AppFile(path.name, state.st_size, _sha256(path, state.st_size, state.st_mtime_ns))


@lru_cache(maxsize=8)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def add_to(api: FastAPI, data: Path) -> None:
    """Add the route to `api`."""

    @api.get(f"{PATH}{{name}}", response_class=FileResponse)
    def app_file(name: str) -> Response:
        """An Android app, to be installed on a phone."""
        file = next((file for file in files(data) if file.name == name), None)
        if file is None:
            raise HTTPException(404)
        digest = base64.b64encode(bytes.fromhex(file.sha256)).decode()
        headers = {"etag": f'"{file.sha256}"', "repr-digest": f"sha-256=:{digest}:"}
        return FileResponse(paths.apps_dir(data) / name, media_type=_APK, filename=name, headers=headers)
