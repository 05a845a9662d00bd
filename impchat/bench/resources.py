"""What this process uses, and what this machine and a model are: memory, its bandwidth, sizes.

In: nothing, or a bundle. Out: bytes, and bytes per second. This file does not know what is measured meanwhile.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from pathlib import Path
from typing import Any

from impchat.bundle import Bundle
from impchat.models import header

_BANDWIDTH_BYTES = 512 * 1024 * 1024  # far more than any processor's caches
_BANDWIDTH_RUNS = 5


def resident() -> tuple[int, int] | None:
    """Bytes of this process in memory: anonymous (RssAnon), and pages of mapped files (RssFile), which the system can
    evict at any time and which other processes may share. None if there is no /proc/self/status."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    found = {name: rest for name, _, rest in (line.partition(":") for line in lines)}
    if not {"RssAnon", "RssFile"} <= found.keys():
        return None
    own, mapped = (int(found[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile"))
    return own, mapped


def bandwidth(threads: int) -> float:
    """Bytes per second that `threads` threads read from memory together: the best of a few runs."""
    import numpy as np

    parts = [np.ones(_BANDWIDTH_BYTES // threads, np.uint8) for _ in range(threads)]
    best = 0.0
    for _ in range(_BANDWIDTH_RUNS):
        workers = [threading.Thread(target=part.max) for part in parts]  # without the GIL
        begun = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        best = max(best, sum(part.nbytes for part in parts) / (time.perf_counter() - begun))
    return best


def token_bytes(bundle: Bundle) -> int:
    """Bytes of weights that are read to generate one token: all of the language file's, without the table of
    embeddings if another one is the output layer."""
    sizes = header.tensor_bytes(bundle.language)
    table = "token_embd.weight"
    return sum(size for name, size in sizes.items() if name != table or "output.weight" not in sizes)


def kv_bytes(bundle: Bundle, tokens: int) -> int:
    """Bytes of the KV cache for `tokens` tokens, keys and values in 16 bits. 0 if the file does not say enough."""
    values = header.read(bundle.language)
    arch = values.get("general.architecture")

    def value(name: str) -> Any:
        return values.get(f"{arch}.{name}")

    layers, heads, wide = value("block_count"), value("attention.head_count"), value("embedding_length")
    shared = value("attention.head_count_kv") or heads
    if not all(isinstance(each, int) and each for each in (layers, heads, wide, shared)):
        return 0
    keys = value("attention.key_length") or wide // heads
    return int(tokens * layers * shared * (keys + (value("attention.value_length") or keys)) * 2)


def machine() -> dict[str, Any]:
    """This machine, for a report."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
    }


def is_busy() -> bool:
    """Whether other programs keep more than half of the processors busy, so that times mean little."""
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > 0.5 * (os.cpu_count() or 1)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
