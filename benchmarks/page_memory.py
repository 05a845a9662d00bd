"""The memory of ImpChat-Web in use: `python -m benchmarks.page_memory RECORD [CONVERSATIONS]`, 100 by default; `python
-m benchmarks.page_memory --plot PNG RECORD...` plots records.

In: nothing. Out: RECORD, a JSON file with the server's memory after given numbers of conversations; on standard output,
the same as it grows. The server is `impchat web` in a process of its own with the demo model and a new data folder.
Each conversation opens a page, adds a photo, asks two questions and closes the page, with the requests that a browser
would send. Linux only.
"""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from impchat import settings

CONVERSATIONS = 100
EVERY = 5  # conversations between two measurements
_QUESTIONS = ("What is in the picture?", "What colours are in the picture?")


@contextmanager
def served(*options: str) -> Iterator[tuple[str, int]]:
    """Run `impchat web` on a new data folder with the demo model; yields its address and process id."""
    with tempfile.TemporaryDirectory() as data:
        words = ["web", "--port", "0", "--data", data, "--language", "en", "--no-open", *options]
        words += ["--model", settings.DEMO_MODEL]
        command = [sys.executable, "-m", "impchat.cli.main", *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout
                yield next(word for word in server.stdout.readline().split() if word.startswith("http")), server.pid
            finally:
                server.terminate()


class Page:
    """An open page, as seen by the server."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._session = uuid.uuid4().hex[:11]
        client.get("/").raise_for_status()
        self._functions: dict[str, tuple[int, int]] = {}  # event -> number of the function, outputs before the state
        for number, dependency in enumerate(client.get("/config").json()["dependencies"]):
            for _, event in dependency["targets"]:
                self._functions.setdefault(event, (number, len(dependency["outputs"])))
        self.state = self._event("load")

    def _event(self, name: str, *data: Any, **event: str) -> dict[str, Any]:
        """The state that an event returns."""
        body = {"data": data, "event_data": event, "fn_index": self._functions[name][0], "session_hash": self._session}
        response = self._client.post("/gradio_api/run/predict", json=body)
        return next(v for v in response.raise_for_status().json()["data"] if isinstance(v, dict) and "stamp" in v)

    def attach(self, photo: bytes) -> None:
        lines = self._client.post(f"/attach?c={self.state['conversation']}", content=photo).raise_for_status().text
        self.state = {"conversation": json.loads(lines.split("\n")[0])["conversation"]}

    def ask(self, question: str) -> None:
        sent = self._event("submit", question, self.state)
        self._client.get(f"/follow/{sent['answer']}").raise_for_status()
        self.state = self._event("ended", self.state, conversation=sent["conversation"], have="")


def photo(chance: random.Random) -> bytes:
    """A JPEG of 12 megapixels, as taken by phones, that is not in any cache."""
    grain = Image.effect_noise((504, 378), chance.uniform(20, 100))
    taken = Image.merge("RGB", [grain, grain.transpose(Image.Transpose.ROTATE_180), grain]).resize((4032, 3024))
    out = io.BytesIO()
    taken.save(out, "JPEG")
    return out.getvalue()


def memory(pid: int) -> tuple[float, float]:
    """MB of anonymous memory (RssAnon), and of mapped files (RssFile)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    sizes = {
        name: int(value.split()[0]) / 1024 for name, _, value in (x.partition(":") for x in lines) if "Rss" in name
    }
    return sizes["RssAnon"], sizes["RssFile"]


def converse(client: httpx.Client, chance: random.Random) -> None:
    """Hold a conversation in a new page."""
    page = Page(client)
    page.attach(photo(chance))
    for question in _QUESTIONS:
        page.ask(question)


def measure(conversations: int) -> list[tuple[int, float, float]]:
    """Rows of conversations held, MB anonymous, MB mapped."""
    chance = random.Random(1)
    with served() as (address, pid), httpx.Client(base_url=address, timeout=120, trust_env=False) as client:
        rows = [(0, *memory(pid))]
        for held in range(1, conversations + 1):
            converse(client, chance)
            if held in (1, 2) or held % EVERY == 0:
                rows.append((held, *memory(pid)))
                print("{} conversations: {:.1f} MB own, {:.1f} MB mapped".format(*rows[-1]), flush=True)
        return rows


def plot(target: Path, records: list[Path]) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    for record in records:
        rows = json.loads(record.read_text(encoding="utf-8"))
        axes.plot([row[0] for row in rows], [row[1] for row in rows], marker=".", label=record.stem)
    axes.set(
        xlabel="conversations held, each in a page of its own",
        ylabel="MB of the server's own (RssAnon)",
        ylim=(0, None),
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(target, dpi=100)


def main(argv: list[str]) -> int:
    """Measure, or plot."""
    if argv[0] == "--plot":
        plot(Path(argv[1]), [Path(name) for name in argv[2:]])
        return 0
    rows = measure(int(argv[1]) if argv[1:] else CONVERSATIONS)
    Path(argv[0]).write_text(json.dumps(rows), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
