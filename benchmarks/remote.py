"""What a server in between costs: `python -m benchmarks.remote`.

In: the demo bundle and a sample photograph. Out: on standard output, the time to the first and to each further token,
of the engine used directly and of the same engine through `impchat serve` in a process of its own on loopback,
alternating; and the time that RemoteEngine itself takes for each piece of an answer that arrives at once.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from impchat import bundle, images, paths, settings
from impchat.bundle import MANIFEST
from impchat.engines import Engine
from impchat.engines.local.engine import LocalEngine
from impchat.engines.remote.engine import RemoteEngine
from impchat.messages import Finished, Picture, Prompt, Sampling, Text, Turn
from impchat.peers import servers

RUNS = 15
TOKENS = 200
PIECES = 5000
NO_TOKEN = 2**31 - 1  # an eos that never occurs: every answer has TOKENS tokens
SAMPLING = Sampling(temperature=1.0, top_k=0, seed=1, max_tokens=TOKENS)


@contextmanager
def served(folder: Path) -> Iterator[RemoteEngine]:
    """Run `impchat serve` with the model in `folder`; yields the engine that uses it."""
    with socket.socket() as free:
        free.bind((settings.HOST, 0))
        port = free.getsockname()[1]
    words = ["serve", "--port", str(port), "--model", str(folder), "--data", str(folder.parent / "data")]
    process = subprocess.Popen([sys.executable, "-m", "impchat.cli.main", *words], stdout=subprocess.PIPE)
    try:
        assert process.stdout
        process.stdout.readline()  # printed once the server listens
        with closing(RemoteEngine(servers.at(f"http://{settings.HOST}:{port}"))) as engine:
            yield engine
    finally:
        process.terminate()
        process.wait()


def measure(engine: Engine, prompt: Prompt) -> tuple[float, float]:
    """Milliseconds to the first text of an answer, and from there for each further token."""
    begun = time.perf_counter()
    first = 0.0
    for event in engine.start(prompt, SAMPLING).events():
        if isinstance(event, Text) and not first:
            first = time.perf_counter()
    assert isinstance(event, Finished), event
    return (first - begun) * 1000, (time.perf_counter() - first) * 1000 / (event.stats.generated_tokens - 1)


def compare(engines: dict[str, Engine], prompt: Prompt, name: str) -> None:
    """Print a line for each engine. The prompt is already cached, so that only the overhead is measured."""
    taken: dict[str, list[tuple[float, float]]] = {kind: [] for kind in engines}
    for run in range(RUNS + 1):
        for kind, engine in engines.items():
            figures = measure(engine, prompt)
            if run:  # the first run reads the prompt
                taken[kind].append(figures)
    for kind, rows in taken.items():
        first, each = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{name}, {kind}: first token {first:.1f} ms, then {each:.2f} ms for each; medians of {RUNS}", flush=True)


def pieces() -> None:
    """Print the time that RemoteEngine takes for each piece of an answer that arrives at once."""
    chunk = {"choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}]}
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    body = head + f"data: {json.dumps(chunk)}\n\n".encode() * PIECES + b"data: [DONE]\n\n"

    def serve(listening: socket.socket) -> None:
        for answer in (b"HTTP/1.1 404 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", *[body] * RUNS):
            connection, _ = listening.accept()
            with connection:
                connection.recv(1 << 20)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 20):  # unread data would turn the end of the connection into a reset
                    pass

    taken = []
    with socket.create_server((settings.HOST, 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        server = servers.at(f"http://{settings.HOST}:{listening.getsockname()[1]}", model="ready")
        with closing(RemoteEngine(server)) as engine:
            for _ in range(RUNS):
                begun = time.process_time()
                *_, end = engine.start(Prompt("", (Turn("user", "?"),)), Sampling(max_tokens=8192)).events()
                assert isinstance(end, Finished), end
                taken.append((time.process_time() - begun) * 1e6 / PIECES)
    print(f"RemoteEngine alone: {statistics.median(taken):.0f} µs of processor time for each piece of {PIECES}")


def main() -> None:
    """Run everything."""
    pieces()
    data = images.prepare((paths.samples_dir() / "landscape.jpg").read_bytes()).data
    picture = Picture(hashlib.sha256(data).hexdigest(), data)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "model"
        shutil.copytree(paths.demo_bundle(), folder)
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        manifest["text"] |= {"eos": [NO_TOKEN], "stop": []}
        (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        with served(folder) as remote, closing(LocalEngine(bundle.load(folder))) as local:
            engines: dict[str, Engine] = {"directly": local, "through impchat serve": remote}
            text = Prompt(settings.SYSTEM, (Turn("user", "Who are you?"),), "a")
            compare(engines, text, "A question")
            shown = replace(text, turns=(Turn("user", "What is it?", (picture,)),), key="b")
            compare(engines, shown, f"A question with a picture of {len(data) // 1000} kB")


if __name__ == "__main__":
    main()
