"""Write files atomically.

In: a path and bytes. Out: the file, readable by its owner only. Readers and other writers see either the old or the new
content, never a part.
This file does not know what the bytes mean.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomic(path: Path, *parts: bytes | memoryview, durable: bool = True) -> None:
    """Replace the content of `path`, whose folder must exist, by `parts` one after another. With `durable` it survives
    a power cut right after this returns; without, the file may then be damaged. Raises OSError and then leaves no
    temporary file."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            for part in parts:
                out.write(part)
            if durable:
                out.flush()
                os.fsync(out.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
