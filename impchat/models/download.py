"""`impchat models pull`: download a model of the family from the hub and make it a bundle.

In: an entry of the catalogue and the data folder. Out: a bundle, which appears at its place when it is complete. Each
file of the checkpoint is converted and deleted before the next one is fetched, so that the disk never has to hold the
whole checkpoint and the bundle together. A pull keeps to the repository's commit that it started with. If it is
interrupted, the next pull resumes: the checkpoint's folder has what was fetched, down to part of a file, and
`Conversion` has what was converted.
This file does not know tensors. From the hub's client it uses the session (proxies, HF_ENDPOINT, HF_TOKEN,
HF_HUB_OFFLINE), the metadata of repositories and files, and the errors, but not its downloads: these restart a file
after a kill, and print to the terminal.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from impchat import bundle as bundles
from impchat import paths, settings
from impchat.bundle import Bundle
from impchat.errors import ModelError
from impchat.models import library
from impchat.models.catalog import Entry
from impchat.texts import size

_BLOCK_BYTES = 1 << 20
_WEIGHTS, _INDEX = ".safetensors", "model.safetensors.index.json"
# Configuration, tokenizer, index and weights; from subfolders only configuration (siglip-so400m-patch14-196 has that of
# the vision encoder).
_WANTED = re.compile(r"[\w-][^/\\]*\.(json|txt|model|safetensors)|[\w-][^/\\]*/[\w-][^/\\]*\.json")
_PARTIAL = ".partial"  # suffix of a file that is being fetched


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a pull. "fetch": `done` of `total` bytes of the whole checkpoint are fetched or already
    converted; "convert" and "finish" only name the current step."""

    stage: Literal["fetch", "convert", "finish"]
    file: str  # of the checkpoint; empty for "finish"
    done: int
    total: int


Watch = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the repository."""

    name: str
    bytes: int
    etag: str  # sha256 of the content if the hub stores it as a large file, else git's sha1

    @property
    def is_weights(self) -> bool:
        return self.name.endswith(_WEIGHTS)

    @property
    def digest(self) -> hashlib._Hash | None:
        """The hash object that yields the etag when fed the content; None if the etag is no hash, or if weights would
        be checked by sha1 only."""
        if re.fullmatch(r"[0-9a-f]{64}", self.etag):
            return hashlib.sha256()
        if re.fullmatch(r"[0-9a-f]{40}", self.etag) and not self.is_weights:
            return hashlib.sha1(f"blob {self.bytes}\0".encode(), usedforsecurity=False)
        return None


@dataclass(frozen=True, slots=True)
class _Plan:
    """The choices that a pull starts with and keeps when it resumes."""

    source: str
    commit: str
    language: str  # resolved type
    vision: str
    files: tuple[_File, ...]

    @property
    def is_single(self) -> bool:
        """Whether the weights are one file without an index."""
        return not any(file.name == _INDEX for file in self.files)


def pull(
    entry: Entry,
    data: Path,
    *,
    language: str | None = None,
    vision: str | None = None,
    keep_source: bool = False,
    watch: Watch = lambda _: None,
) -> Bundle:
    """Download `entry` into the data folder `data`, or resume its download, and return its bundle.

    `language` and `vision`: as in `convert`; None: those of the unfinished download, or the defaults. An existing
    bundle of the hub's current commit and these types is returned as it is. `keep_source`: keep the checkpoint in
    `paths.checkpoints_dir`. `watch` receives the progress on the calling thread.
    Raises ModelError "download.…" and "model.busy", a code for each thing that can go wrong; as `Conversion` for a
    checkpoint that cannot be converted."""
    # Read when the client is imported. It then sends the hub only its own version and Python's.
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    with library.busy(data, entry.id):
        return _Pull(entry, data, keep_source, watch).run(language, vision)


class _Pull:
    def __init__(self, entry: Entry, data: Path, keep_source: bool, watch: Watch) -> None:
        self._entry = entry
        self._target = paths.models_dir(data) / entry.id
        self._folder = paths.checkpoints_dir(data) / entry.id
        self._keep = keep_source
        self._watch = watch
        self._done = self._total = 0

    def run(self, language: str | None, vision: str | None) -> Bundle:
        if begun := self._resume(language, vision):
            # a bundle of exactly this plan: the process ended after the last step
            made = self._there(begun) or self._convert(begun)
        else:
            plan = self._begin(language, vision)
            if there := self._there(plan):
                with suppress(OSError):  # empty if an earlier pull ended in its last step
                    self._folder.rmdir()
                return there
            self._make_folder(plan)
            made = self._convert(plan)
        self._clean()
        return made

    def _convert(self, plan: _Plan) -> Bundle:
        from impchat.models.convert import Conversion

        self._total = sum(file.bytes for file in plan.files)
        # Tensor names are in the index, or in the only weight file.
        first = [file for file in plan.files if not file.is_weights or plan.is_single]
        _check_room(self._target, sum(map(self._missing, first)))
        for file in first:
            self._fetch(plan, file)
        conversion = Conversion(
            self._folder,
            self._target,
            language=plan.language,
            vision=plan.vision,
            entry=self._entry,
            revision=plan.commit,
        )
        left, weights = set(conversion.files), [file for file in plan.files if file.is_weights]
        if strange := left - {file.name for file in weights}:
            raise ModelError("download.file_missing", source=plan.source, file=min(strange))
        work = conversion.needs_bytes - library.disk_bytes(bundles.work_folder(self._target))
        missing = [self._missing(file) for file in weights if file.name in left or self._keep]
        _check_room(self._target, work + (sum(missing) if self._keep else max(missing, default=0)))
        for file in weights:
            place = self._folder / file.name
            if file not in first:
                if file.name in left or self._keep:
                    self._fetch(plan, file)
                else:
                    self._done += file.bytes
            if file.name in left:
                self._watch(Progress("convert", file.name, self._done, self._total))
                conversion.take(place)
            if not self._keep and file not in first:
                place.unlink(missing_ok=True)
        self._watch(Progress("finish", "", self._total, self._total))
        return conversion.finish()

    # The plan

    def _resume(self, language: str | None, vision: str | None) -> _Plan | None:
        """The plan of an unfinished download. Raises ModelError "download.other_types" if it has other types."""
        try:
            values = json.loads((self._folder / library.PULL).read_text(encoding="utf-8"))
            plan = _Plan(**values | {"files": tuple(_File(**file) for file in values["files"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None
        if plan.source != self._entry.source:
            return None
        if (_exact(language or plan.language), vision or plan.vision) != (plan.language, plan.vision):
            raise ModelError("download.other_types", model=self._entry.id, types=f"{plan.language}, {plan.vision}")
        return plan

    def _begin(self, language: str | None, vision: str | None) -> _Plan:
        """A new plan, with the hub's current commit and its files."""
        source = self._entry.source
        with _hub_errors(source):
            commit, names = _look(source)
            files = tuple(_describe(source, commit, name) for name in sorted(filter(_is_wanted, names)))
        if not any(file.is_weights for file in files):
            raise ModelError("download.file_missing", source=source, file=f"*{_WEIGHTS}")
        old = self._old()
        language = _exact(language or (old.files["language"].type if old else settings.LANGUAGE_TYPE))
        vision = vision or (old.files["vision"].type if old else settings.VISION_TYPE)
        return _Plan(source, commit, language, vision, files)

    def _old(self) -> Bundle | None:
        """The bundle that an earlier pull from the same repository made."""
        try:
            old = bundles.load(self._target)
        except ModelError:
            return None
        return old if old.source == self._entry.source else None

    def _there(self, plan: _Plan) -> Bundle | None:
        """The bundle that `plan` would make, if it already exists."""
        old = self._old()
        if old is None or old.revision != plan.commit or old.files["language"].type != plan.language:
            return None
        # A vision encoder that loses too much in 8 bits is written in 16; that would happen again.
        return old if old.files["vision"].type in (plan.vision, {"int8": "fp16"}.get(plan.vision)) else None

    def _make_folder(self, plan: _Plan) -> None:
        """Start a download: remove files of another commit, keep complete ones; `_fetch` checks these again."""
        names = {file.name for file in plan.files}
        with _room(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            for path in [*self._folder.rglob("*")]:
                if path.is_file() and path.relative_to(self._folder).as_posix() not in names:
                    path.unlink()
        self._write(plan)

    def _write(self, plan: _Plan) -> None:
        with _room(self._folder):
            temporary = self._folder / f"{library.PULL}.new"
            with temporary.open("w", encoding="utf-8") as out:
                json.dump(asdict(plan), out, indent=1)
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(self._folder / library.PULL)

    def _clean(self) -> None:
        """Remove the plan once the bundle is in place, and the checkpoint unless it is to be kept."""
        shutil.rmtree(bundles.work_folder(self._target), ignore_errors=True)
        if not self._keep:
            for path in self._folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != library.PULL:
                    path.unlink()
        (self._folder / library.PULL).unlink()  # last, so that a kill before this comes here again
        if not self._keep:
            self._folder.rmdir()

    def _missing(self, file: _File) -> int:
        """How many bytes of the file still have to be fetched."""
        place = self._folder / file.name
        return file.bytes - max(p.stat().st_size if p.exists() else 0 for p in (place, _partial(place)))

    # Files

    def _fetch(self, plan: _Plan, file: _File) -> None:
        """Fetch the file, resuming a partial one. Raises ModelError "download.…"."""
        place = self._folder / file.name
        with _hub_errors(plan.source), _room(self._folder):
            if not (place.is_file() and _is_whole(place, file)):
                place.unlink(missing_ok=True)
                place.parent.mkdir(parents=True, exist_ok=True)
                partial = _partial(place)
                self._stream(plan, file, partial)
                if not _is_whole(partial, file):
                    partial.unlink()
                    raise ModelError("download.corrupt", file=file.name, model=self._entry.word)
                partial.replace(place)
        self._done += file.bytes
        self._watch(Progress("fetch", file.name, self._done, self._total))

    def _stream(self, plan: _Plan, file: _File, partial: Path) -> None:
        """Fetch the rest of the file into `partial`. A broken connection is retried as long as new bytes arrive."""
        import httpx2

        failures = 0
        with partial.open("ab") as out:
            if out.tell() > file.bytes:
                out.seek(0)
                out.truncate()
            furthest = out.tell()  # a server without range support sends the same bytes again
            while out.tell() < file.bytes:
                broken = None
                try:
                    self._read(plan, file, out)
                except httpx2.TransportError as exc:
                    broken = exc
                failures = failures + 1 if out.tell() <= furthest else 0
                furthest = max(furthest, out.tell())
                if failures > settings.DOWNLOAD_RETRIES:
                    raise broken or ModelError("download.no_hub", endpoint=_endpoint(), detail=file.name)
                if out.tell() < file.bytes:
                    time.sleep(settings.DOWNLOAD_RETRY_S)
            out.flush()
            os.fsync(out.fileno())

    def _read(self, plan: _Plan, file: _File, out: BinaryIO) -> None:
        """One request: append the rest of the file to `out`, or all of it if the server does not support ranges."""
        from huggingface_hub import get_session, hf_hub_url
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

        url = hf_hub_url(plan.source, file.name, revision=plan.commit, endpoint=_endpoint())
        headers = build_hf_headers() | {"accept-encoding": "identity"}  # compressed ranges cannot be joined
        if start := out.tell():
            headers["range"] = f"bytes={start}-"
        timeout = settings.DOWNLOAD_TIMEOUT_S
        with get_session().stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response:
            hf_raise_for_status(response)
            if start and response.headers.get("content-range", "").partition("-")[0] != f"bytes {start}":
                out.seek(0)
                out.truncate()
            for block in response.iter_bytes():  # written as they arrive: a kill loses nothing that was received
                out.write(block[: file.bytes - out.tell()])
                out.flush()
                self._watch(Progress("fetch", file.name, self._done + out.tell(), self._total))
                if out.tell() == file.bytes:
                    return


# The hub


def _exact(language: str) -> str:
    return settings.LANGUAGE_4BIT if language == "q4" else language


def _endpoint() -> str:
    from huggingface_hub import constants

    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or constants.ENDPOINT


def _look(source: str) -> tuple[str, list[str]]:
    """The current commit of the repository and the names of its files."""
    from huggingface_hub import HfApi

    try:
        info = HfApi(endpoint=_endpoint()).model_info(source, revision="main", timeout=settings.DOWNLOAD_TIMEOUT_S)
    except (KeyError, TypeError, json.JSONDecodeError) as exc:  # some page that answers every request
        raise ModelError("download.no_hub", endpoint=_endpoint(), detail=type(exc).__name__) from exc
    return info.sha or "", [file.rfilename for file in info.siblings or ()]


def _describe(source: str, commit: str, name: str) -> _File:
    """Size and hash of a file. Raises ModelError "download.no_hub" if the response has none that can be used."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(source, name, revision=commit, endpoint=_endpoint())
    found = get_hf_file_metadata(url, timeout=settings.DOWNLOAD_TIMEOUT_S)
    file = _File(name, found.size or 0, found.etag or "")
    if found.commit_hash != commit or found.size is None or file.digest is None:
        raise ModelError("download.no_hub", endpoint=_endpoint(), detail=name)
    return file


def _is_wanted(name: str) -> bool:
    """Whether a conversion may read this file; code and documentation of the repository are not fetched."""
    return _WANTED.fullmatch(name) is not None


@contextmanager
def _hub_errors(source: str) -> Iterator[None]:
    """Turn errors of the hub's client and of the network into ModelError "download.…"."""
    import httpx2
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled

    try:
        yield
    except OfflineModeIsEnabled as exc:
        raise ModelError("download.offline", model=source) from exc
    except GatedRepoError as exc:
        raise ModelError("download.forbidden", page=f"{_endpoint()}/{source}") from exc
    except HfHubHTTPError as exc:
        raise _refused(exc.response.status_code, source) from exc
    except httpx2.HTTPError as exc:
        detail = str(exc) or type(exc).__name__
        raise ModelError("download.no_network", endpoint=_endpoint(), detail=detail) from exc


def _refused(status: int, source: str) -> ModelError:
    page = f"{_endpoint()}/{source}"
    match status:
        case 401:
            return ModelError("download.unauthorised", page=page)
        case 403:
            return ModelError("download.forbidden", page=page)
        case 404:
            return ModelError("download.not_found", page=page)
        case _:
            return ModelError("download.refused", endpoint=_endpoint(), status=status)


# The disk


def _partial(place: Path) -> Path:
    return place.with_name(place.name + _PARTIAL)


def _is_whole(path: Path, file: _File) -> bool:
    """Whether the file at `path` has the size and the hash given by the hub."""
    if path.stat().st_size != file.bytes:
        return False
    digest = file.digest
    assert digest is not None, "checked when the plan was made"
    with path.open("rb") as source:
        while block := source.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest() == file.etag


def _check_room(target: Path, needed: int) -> None:
    """Raises ModelError "download.no_space" if fewer than `needed` bytes are free on the disk."""
    place = next(path for path in (target, *target.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise ModelError("download.no_space", path=str(place), needed=size(needed), free=size(free))


@contextmanager
def _room(place: Path) -> Iterator[None]:
    """Turn the errors of a full or unwritable disk into ModelError."""
    try:
        yield
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ModelError("download.disk_full", path=str(place)) from exc
        if isinstance(exc, (PermissionError, FileExistsError, NotADirectoryError)) or exc.errno == errno.EROFS:
            raise ModelError("model.target_unwritable", path=str(place), detail=exc.strerror or str(exc)) from exc
        raise
