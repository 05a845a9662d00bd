"""Downloads of the phone app, for a phone that does not have it yet.

In: the folder `apps` in the data folder, where a person puts the APK files of a release. Out: a list of them, and a
route to download them without a token: the app is not secret, and a phone has no token before it has the app.
This file does not know how the download is shown.
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
    """An APK file."""

    name: str
    bytes: int
    sha256: str


def files(data: Path) -> list[AppFile]:
    """The APK files in the data folder `data`, those for phones (arm64) before those for emulators."""
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
    """Add the download route to `api`."""

    @api.get(f"{PATH}{{name}}", response_class=FileResponse)
    def app_file(name: str) -> Response:
        """An Android app to install on a phone."""
        file = next((file for file in files(data) if file.name == name), None)
        if file is None:
            raise HTTPException(404)
        digest = base64.b64encode(bytes.fromhex(file.sha256)).decode()
        headers = {"etag": f'"{file.sha256}"', "repr-digest": f"sha-256=:{digest}:"}
        return FileResponse(paths.apps_dir(data) / name, media_type=_APK, filename=name, headers=headers)
