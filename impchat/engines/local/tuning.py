"""How a local engine computes: the settings measured on this machine by `impchat doctor --tune`, or the defaults.

In: a bundle, and the data folder. Out: a `Tuning`. Each result is a JSON file for one processor and one model. A result
of other model files or other versions of the libraries, and a damaged file, are ignored.
This file does not know how the settings are measured (`tuner`) or who may use how much of the machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from impchat import machine, paths, settings
from impchat.bundle import Bundle
from impchat.engines.local.llama import default_threads
from impchat.preferences import write_private

MOST_THREADS = 512
_FORMAT = 1
_LIBRARIES = ("llama-cpp-python", "onnxruntime")
_SWITCHES = ("flash_attention", "repacked", "packed")
_COUNTS = ("threads", "vision_threads")


@dataclass(frozen=True, slots=True)
class Tuning:
    """Settings that change the speed of an engine and its memory, but not what it can do."""

    threads: int  # of the language model
    vision_threads: int
    flash_attention: bool = settings.FLASH_ATTENTION  # attention in one fused operation
    repacked: bool = settings.REPACK_WEIGHTS  # the language model's weights in an order that suits the processor
    packed: bool = settings.PACK_VISION  # the same for an ONNX vision file
    unified: bool = settings.UNIFIED_CACHE  # one KV buffer for all conversations; never measured by `tuner`


def threads_for(bundle: Bundle) -> int:
    """The default number of threads for an engine of `bundle`: one per available processor, or 1 for a model below
    `settings.SMALL_MODEL_BYTES`."""
    return default_threads() if bundle.size_bytes >= settings.SMALL_MODEL_BYTES else 1


def default(bundle: Bundle) -> Tuning:
    """The settings for `bundle` on a machine where nothing was measured."""
    threads = threads_for(bundle)
    return Tuning(threads, threads)


def load(data: Path, bundle: Bundle) -> Tuning | None:
    """The settings measured for `bundle` on this machine, stored in the data folder `data`; None: there are none."""
    try:
        stored = json.loads(_file(data, bundle).read_text(encoding="utf-8"))
        if stored["format"] != _FORMAT or stored["measured_for"] != _key(bundle):
            return None
        values = stored["tuning"]
        if not all(type(values[name]) is bool for name in _SWITCHES):
            return None
        if not all(type(values[name]) is int and 1 <= values[name] <= MOST_THREADS for name in _COUNTS):
            return None
        return Tuning(**{name: values[name] for name in (*_COUNTS, *_SWITCHES)})
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def save(data: Path, bundle: Bundle, tuning: Tuning, figures: Sequence[Any] = ()) -> Path:
    """Store `tuning` for `bundle` on this machine, with the `figures` (dataclasses) that it was chosen by, and return
    the file. Replaces an earlier result. Raises HistoryError "data.unwritable"."""
    values = {
        "format": _FORMAT,
        "measured_for": _key(bundle),
        "measured_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "tuning": {name: getattr(tuning, name) for name in (*_COUNTS, *_SWITCHES)},
        "figures": [asdict(figure) for figure in figures],
    }
    paths.ensure_data_dir(data)
    file = _file(data, bundle)
    write_private(file, json.dumps(values, indent=1))
    return file


def _key(bundle: Bundle) -> dict[str, Any]:
    """What a result depends on."""
    return {
        "processor": machine.processor(),
        "processors": default_threads(),
        "files": {part: file.sha256 for part, file in bundle.files.items()},
        "versions": {name: _version(name) for name in _LIBRARIES},
    }


def _file(data: Path, bundle: Bundle) -> Path:
    key = _key(bundle)
    named = "\n".join((key["processor"], str(key["processors"]), bundle.files["language"].sha256))
    return paths.tuning_dir(data) / f"{hashlib.sha256(named.encode()).hexdigest()[:16]}.json"


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:  # an app for phones may lack the packages' metadata
        return ""
