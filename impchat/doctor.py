"""What runs here and what does not: Python, packages, the data folder, disk, memory, the model.

In: a data folder and the name or place of a model. Out: findings in order, each with a level; nothing is changed but
that a missing data folder is made.
This file does not know how findings are shown, nor how anything else of ImpChat works.
"""

from __future__ import annotations

import importlib
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from impchat import app, paths, settings
from impchat.engines.local import threads_for
from impchat.errors import ImpChatError
from impchat.history import History
from impchat.texts import say

_CORE = (  # distribution -> the module whose import proves that it works here
    ("numpy", "numpy"),
    ("pillow", "PIL.Image"),
    ("sqlite-utils", "sqlite_utils"),
    ("httpx", "httpx"),
    ("httpx-sse", "httpx_sse"),
    ("platformdirs", "platformdirs"),
    ("rich", "rich"),
    ("onnxruntime", "onnxruntime"),
    ("llama-cpp-python", "llama_cpp"),
)
_EXTRAS = (("gradio", "web"), ("pillow-heif", "web"), ("torch", "convert"), ("transformers", "convert"))


@dataclass(frozen=True, slots=True)
class Finding:
    """`level` "bad": ImpChat cannot answer until this is mended; "warn": it works, with a limit; "note": nothing is
    wrong, but good to know; "ok"."""

    level: Literal["ok", "note", "warn", "bad"]
    key: str  # of the catalogue
    values: dict[str, Any]

    def sentence(self, language: str) -> str:
        """What was found and what to do about it. An error among the values is told in the same language."""
        values = {k: v.sentence(language) if isinstance(v, ImpChatError) else v for k, v in self.values.items()}
        return say(self.key, language, **values)


def examine(data: Path, model: str | Path | None) -> Iterator[Finding]:
    """The findings, as they are made."""
    yield _python()
    for distribution, module in _CORE:
        yield _package(distribution, module)
    for distribution, extra in _EXTRAS:
        yield _extra(distribution, extra)
    yield from _data(data)
    yield from _model(data, model)


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
    except (ImportError, OSError, RuntimeError) as exc:  # a library of its own may not load here
        return Finding("bad", "doctor.package_broken", {"package": distribution, "version": version, "detail": exc})
    return Finding("ok", "doctor.package", {"package": distribution, "version": version})


def _extra(distribution: str, extra: str) -> Finding:
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return Finding("note", "doctor.extra_missing", {"package": distribution, "extra": extra})
    return Finding("ok", "doctor.package", {"package": distribution, "version": version})


def _data(data: Path) -> Iterator[Finding]:
    try:
        paths.ensure_data_dir(data)
        with tempfile.TemporaryFile(dir=data):
            pass
        yield Finding("ok", "doctor.data", {"path": data})
        history = History(paths.history_file(data))
        count = len(history.conversations(settings.OWNER, limit=1_000_000))
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
    yield Finding(level, f"doctor.disk_{level}", {"free": _size(free), "low": _size(settings.DISK_LOW_BYTES)})


def _model(data: Path, model: str | Path | None) -> Iterator[Finding]:
    try:
        bundle = app.choose_bundle(data, model)
        bundle.verify()
    except ImpChatError as exc:
        yield Finding("bad", "doctor.error", {"error": exc})
        return
    values = {"name": bundle.name, "id": bundle.id, "path": bundle.path, "size": _size(bundle.size_bytes)}
    yield Finding("ok", "doctor.model", values)
    if bundle.demo:
        yield Finding("note", "demo.label", {})
    yield Finding("ok", "doctor.engine", {"threads": threads_for(bundle)})
    if (free := _free_memory()) is not None:
        needed = bundle.size_bytes + settings.MEMORY_BESIDE_MODEL_BYTES
        level: Literal["ok", "warn"] = "ok" if free >= needed else "warn"
        yield Finding(level, f"doctor.memory_{level}", {"free": _size(free), "needed": _size(needed)})


def _free_memory() -> int | None:
    """Bytes that programs can still take without swapping; None where the system does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _size(count: int) -> str:
    """A number of bytes for people, in decimal units as disks and system monitors show them."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
