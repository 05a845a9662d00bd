"""Helpers for the tests of App and of the command line: copies of the demo model, and real processes and terminals."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from impchat import settings
from impchat.app import App
from impchat.bundle import MANIFEST
from impchat.messages import Text
from tests.core.scripted import SECONDS

ROOT = Path(__file__).parents[2]
NO_TOKEN = 2**31 - 1  # no model has this token, so an answer never ends with it


def copy_model(demo: Path, target: Path, **changes: Any) -> Path:
    """Copy the demo model to `target`; `changes` go into its manifest, dicts field by field."""
    shutil.copytree(demo, target)
    manifest = json.loads((target / MANIFEST).read_text())
    for key, value in changes.items():
        manifest[key] = manifest[key] | value if isinstance(value, dict) else value
    (target / MANIFEST).write_text(json.dumps(manifest))
    return target


def endless_model(demo: Path, target: Path) -> Path:
    """Copy the demo model so that its answers end only after thousands of tokens, for tests that act during an
    answer."""
    return copy_model(
        demo,
        target,
        id="endless",
        text={"eos": [NO_TOKEN], "stop": []},
        sampling={"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "max_tokens": 8192},
        context_tokens=12_000,
    )


def command(*words: object) -> list[str]:
    """The command line of a real `impchat`."""
    return [sys.executable, "-m", "impchat.cli.main", *map(str, words)]


def environment(data: Path) -> dict[str, str]:
    return os.environ | {
        "IMPCHAT_DATA": str(data),
        "LC_ALL": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "TERM": "xterm",
    }


def run(data: Path, *words: object, input: str = "") -> subprocess.CompletedProcess[str]:
    """Run `impchat` in a separate process and wait for its end."""
    return subprocess.run(
        command(*words), input=input, env=environment(data), capture_output=True, text=True, timeout=6 * SECONDS
    )


def run_without(packages: Sequence[str], data: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Run `impchat` in a separate process in which `packages` cannot be imported, and wait for its end."""
    code = f"""
import sys
sys.modules |= dict.fromkeys({packages!r})  # an import of what is None here fails
from impchat.cli.main import main
sys.exit(main({[str(word) for word in words]!r}))
"""
    return subprocess.run(
        [sys.executable, "-c", code], env=environment(data), capture_output=True, text=True, timeout=6 * SECONDS
    )


def wait_for_answer_on_disk(data: Path) -> str:
    """Wait until another process has written the beginning of an answer; return the uuid of its message."""
    with App.open(data) as app:
        while True:
            rows = app.history.conversations(settings.OWNER)
            leaf = rows[0].leaf if rows else None
            if leaf and app.history.message(leaf, settings.OWNER).role == "assistant":
                break
            threading.Event().wait(0.05)  # there is no event for another process's write
        events = app.answer(leaf).events(timeout_s=6 * SECONDS)
        assert any(isinstance(event, Text) for _, event in events)
        return leaf


class Pty:
    """A real `impchat` in a pseudo-terminal."""

    def __init__(self, data: Path, *words: object) -> None:
        # The pseudo-terminal becomes the child's controlling terminal, so that Ctrl-C in it becomes SIGINT.
        become = (
            "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
        )
        self._master, slave = os.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", become, *command(*words)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(data),
            start_new_session=True,
        )
        os.close(slave)
        self.seen = ""
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        data = b""
        while True:
            try:
                block = os.read(self._master, 4096)
            except OSError:  # on Linux: the other side is closed
                block = b""
            with self._changed:
                data += block
                self.seen = data.decode("utf-8", "replace")
                self._ended = not block
                self._changed.notify_all()
            if not block:
                return

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def expect(self, text: str, times: int = 1) -> None:
        """Wait until `text` has been shown `times` times."""
        with self._changed:
            self._changed.wait_for(lambda: self.seen.count(text) >= times or self._ended, 6 * SECONDS)
            assert self.seen.count(text) >= times, self.seen

    def interrupt(self) -> int:
        """Press Ctrl-C until the process ends; return its exit code. Python's input() loses a Ctrl-C that arrives
        after its prompt is printed and before it waits for a key."""
        while self.process.poll() is None:
            self.type("\x03")
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        return self.leave()

    def leave(self) -> int:
        """Wait for the end of the process; return its exit code."""
        code = self.process.wait(6 * SECONDS)
        self._reader.join(SECONDS)
        os.close(self._master)
        return code


@contextmanager
def terminal(data: Path, *words: object) -> Iterator[Pty]:
    """A `Pty` that is ended after the block."""
    pty = Pty(data, *words)
    try:
        yield pty
    finally:
        if pty.process.poll() is None:
            pty.process.kill()
            pty.leave()
