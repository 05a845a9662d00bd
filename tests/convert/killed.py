"""Runs pulls in separate processes that end by SIGKILL, and then pulls again: for test_pull.py.

    python -m tests.convert.killed FOLDER REPOSITORY STEP ...

In: the hub in HF_ENDPOINT; steps, each the number of the change to the disk before which a pull is killed (0: never).
Out: for each step a line of JSON: whether the process was killed, how the model is listed afterwards, and the sha256 of
every file of the bundle after another pull. Heavy imports happen once before forking, which saves seconds.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from impchat import paths
from impchat.models import catalog, library
from impchat.models.download import pull

HEAVY = (
    "huggingface_hub.utils",
    "llama_cpp",
    "onnxruntime",
    "transformers.models.phi.modeling_phi",
    "transformers.models.siglip.modeling_siglip",
    "impchat.engines.local.engine",
    "impchat.models.convert.language",
    "impchat.models.convert.verify",
    "impchat.models.convert.vocabulary",
    "impchat.models.convert.work",
)
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink")


def kill_at(step: int) -> list[int]:
    """Kill this process before its change number `step`. The returned list grows with each change."""
    seen: list[int] = []

    def hook(event: str, args: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if event in CHANGES or writes:
            seen.append(1)
            if len(seen) == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return seen


def apart(data: Path, repository: str, step: int) -> tuple[bool, int]:
    """Pull in a child process; return whether it was killed, and the number of its changes if it was not."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            seen = kill_at(step)
            pull(catalog.find(repository), data)
            os.write(writer, str(len(seen)).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as out:
        count = out.read()
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the pull failed"
    return os.WIFSIGNALED(status), int(count or 0)


def main(folder: Path, repository: str, steps: list[int]) -> None:
    for name in HEAVY:
        importlib.import_module(name)
    id = catalog.find(repository).id
    for step in steps:
        data = folder / f"killed-{step}"
        killed, changes = apart(data, repository, step)
        [model] = [m for m in library.models(data) if m.id == id] or [None]
        offered = model and ("whole" if model.bundle else "broken" if model.problem else None)
        if killed:
            apart(data, repository, 0)
        bundle = paths.models_dir(data) / id
        files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(bundle.iterdir())}
        left = [path.name for path in [*paths.models_dir(data).iterdir(), *paths.checkpoints_dir(data).iterdir()]]
        result = {"step": step, "killed": killed, "changes": changes, "offered": offered, "files": files, "left": left}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], [int(word) for word in sys.argv[3:]])
