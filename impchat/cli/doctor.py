"""Diagnose this installation: Python, packages, the data folder, disk, memory, the model.

In: a data folder, and a model's name or path. Out: findings in order, each with a level. Changes nothing, except that
it creates a missing data folder.
This file does not know how findings are shown.
"""

from __future__ import annotations

import importlib
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from impchat import app, machine, paths, settings
from impchat.app import Resources
from impchat.bundle import Bundle
from impchat.engines.local import tuning
from impchat.engines.remote.engine import RemoteEngine
from impchat.errors import EngineError, ImpChatError
from impchat.history.store import History
from impchat.models import catalog, library, verified
from impchat.peers import servers
from impchat.peers.servers import Server
from impchat.texts import install, say, size

_CORE = (  # distribution -> module whose import proves that it works on this machine
    ("numpy", "numpy"),
    ("pillow", "PIL.Image"),
    ("sqlite-utils", "sqlite_utils"),
    ("httpx", "httpx"),
    ("httpx-sse", "httpx_sse"),
    ("certifi", "certifi"),
    ("dnspython", "dns.message"),
    ("platformdirs", "platformdirs"),
    ("rich", "rich"),
    ("onnxruntime", "onnxruntime"),
    ("llama-cpp-python", "llama_cpp"),
    ("jinja2", "jinja2"),
)
_EXTRAS = (
    ("gradio", "web"),
    ("pillow-heif", "web"),
    ("torch", "convert"),
    ("transformers", "convert"),
    ("huggingface-hub", "convert"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """`level`: "bad" (ImpChat cannot answer until this is fixed), "warn" (it works, with a limit), "note" (nothing is
    wrong, but worth knowing), or "ok"."""

    level: Literal["ok", "note", "warn", "bad"]
    key: str  # in the catalogue of texts
    values: dict[str, Any]

    def sentence(self, language: str) -> str:
        """What was found and what to do about it. Errors and booleans among the values are rendered in the same
        language."""
        values = {name: _shown(value, language) for name, value in self.values.items()}
        return say(self.key, language, **values)


def _shown(value: Any, language: str) -> Any:
    match value:
        case ImpChatError():
            return value.sentence(language)
        case bool():
            return say("doctor.on" if value else "doctor.off", language)
        case _:
            return value


def examine(data: Path, model: str | Path | None, server: Server | None = None) -> Iterator[Finding]:
    """Yield the findings as they are made. `server`: the server that answers instead of a local model."""
    yield _python()
    for distribution, module in _CORE:
        yield _package(distribution, module)
    for distribution, extra in _EXTRAS:
        yield _extra(distribution, extra)
    yield from _data(data)
    yield from _server(server) if server else _model(data, model)


def _python() -> Finding:
    values = {"version": platform.python_version(), "place": sys.executable, "system": platform.platform()}
    return Finding("ok" if sys.version_info >= (3, 11) else "bad", "doctor.python", values)


def _package(distribution: str, module: str) -> Finding:
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return Finding("bad", "doctor.package_missing", {"package": distribution})
    try:
        importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as exc:  # a library that it loads may be missing
        return Finding("bad", "doctor.package_broken", {"package": distribution, "version": version, "detail": exc})
    return Finding("ok", "doctor.package", {"package": distribution, "version": version})


def _extra(distribution: str, extra: str) -> Finding:
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        values = {"package": distribution, "extra": extra, "install": install(extra)}
        return Finding("note", "doctor.extra_missing", values)
    return Finding("ok", "doctor.package", {"package": distribution, "version": version})


def _data(data: Path) -> Iterator[Finding]:
    try:
        paths.ensure_data_dir(data)
        with tempfile.TemporaryFile(dir=data):
            pass
        yield Finding("ok", "doctor.data", {"path": data})
        history = History(paths.history_file(data))
        count = history.count(settings.OWNER, archived=None)
        history.close()
        yield Finding("ok", "doctor.history", {"count": count})
    except OSError as exc:
        yield Finding("bad", "doctor.data_unwritable", {"path": data, "detail": exc.strerror or exc})
        return
    except ImpChatError as exc:
        yield Finding("bad", "doctor.error", {"error": exc})
        return
    free = shutil.disk_usage(data).free
    level: Literal["ok", "warn"] = "ok" if free >= settings.DISK_LOW_BYTES else "warn"
    yield Finding(level, f"doctor.disk_{level}", {"free": size(free), "low": size(settings.DISK_LOW_BYTES)})


def _server(server: Server) -> Iterator[Finding]:
    url = server.urls[0]
    if servers.is_readable(url):
        yield Finding("warn", "doctor.server_readable", {"url": url})
    engine = RemoteEngine(server)
    try:
        facts, info = engine.connect(), engine.info
    except ImpChatError as exc:
        yield Finding("bad", "doctor.error", {"error": exc})
        return
    finally:
        engine.close()
    values = {"name": server.name, "url": facts.url, "model": info.model, "known": ", ".join(facts.models)}
    if facts.listed and info.model not in facts.models:
        yield Finding("bad", "doctor.error", {"error": EngineError("remote.no_model", **values)})
        return
    yield Finding("ok", "doctor.server" if facts.listed else "doctor.server_mute", values)
    if info.context_tokens:
        yield Finding("ok", "doctor.server_reads", {"tokens": info.context_tokens})
    if not info.vision:
        yield Finding("warn", "doctor.error", {"error": EngineError("remote.no_vision", **values)})
    if info.unverified:
        yield Finding("warn", "unverified.server", {"model": info.model})


def tuned(data: Path, bundle: Bundle) -> Iterator[Finding]:
    """The settings that change the speed of `bundle`, and whether they were measured on this machine."""
    stored = tuning.load(data, bundle)
    used = app.tuning_of(data, bundle, Resources())
    level: Literal["ok", "note"] = "ok" if stored else "note"
    yield Finding(level, "doctor.tuned" if stored else "doctor.untuned", asdict(used))
    if stored and stored.repacked and not used.repacked:
        yield Finding("note", "doctor.not_repacked", {"size": size(bundle.files["language"].bytes)})


def _model(data: Path, model: str | Path | None) -> Iterator[Finding]:
    try:
        bundle = app.choose_bundle(data, model)
        verified.verify(data, bundle, reread=True)
    except ImpChatError as exc:
        yield Finding("bad", "doctor.error", {"error": exc})
        return
    values = {"name": bundle.name, "id": bundle.id, "path": bundle.path, "size": size(bundle.size_bytes)}
    yield Finding("ok", "doctor.model", values)
    if bundle.demo:
        yield Finding("note", "demo.label", {})
    if bundle.unverified:
        yield Finding("warn", "unverified.label", {"model": bundle.id})
    yield Finding("ok", "doctor.engine", {})
    yield from tuned(data, bundle)
    if memory := machine.memory():
        needed = catalog.memory_bytes(catalog.ENTRIES.get(bundle.id), bundle.size_bytes, bundle.context_tokens)
        if app.tuning_of(data, bundle, Resources()).repacked:
            needed += bundle.files["language"].bytes
        level: Literal["ok", "warn"] = "ok" if memory.free >= needed else "warn"
        yield Finding(level, f"doctor.memory_{level}", {"free": size(memory.free), "needed": size(needed)})
    for row in library.models(data):
        if row.unfinished:
            values = {"model": row.id, "word": row.unfinished, "size": size(row.disk_bytes)}
            yield Finding("note", "doctor.unfinished", values)
