"""What Ray costs and gains: `python -m benchmarks.cluster` serves the demo model with and without it.

In: the demo bundle. Out: on standard output: the time to the first and to each further token over HTTP, directly and
through Ray, alternating, in several rounds; how many later questions reach the replica of their conversation; answers
whose replica is killed, and the time until it is replaced; and the same for a queue. Requires the extra `cluster`.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from impchat import bundle, paths, settings
from impchat.app import App
from impchat.bundle import Bundle
from impchat.engines import Engine
from impchat.engines.local.engine import LocalEngine
from impchat.history.store import History
from impchat.messages import Finished, Prompt, Sampling, Text, Turn
from impchat.server.api.admission import AdmissionQueue
from impchat.server.api.routes import build_api
from impchat.server.cluster.engine import ClusterEngine
from impchat.server.cluster.ray_runtime import local_ray
from impchat.server.network import sockets

ROUNDS = 5
RUNS = 15
TOKENS = 300
CLIENTS = 4
CONVERSATIONS = 40
KILLS = 5
NO_TOKEN = 2**31 - 1  # an eos that never occurs: every answer has the maximum length


@contextmanager
def served(model: Bundle, engine: Engine) -> Iterator[str]:
    """Serve the API of `engine` on a free port; yields its address."""
    with tempfile.TemporaryDirectory() as folder, sockets.bind(settings.HOST, 0) as bound:
        app = App(Path(folder), History(paths.history_file(Path(folder))), model, engine, settings.SLOTS)
        started = threading.Event()
        server = sockets.Server(build_api(app, queue=AdmissionQueue(settings.QUEUE_REQUESTS)), started.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        started.wait()
        try:
            yield sockets.address(bound)
        finally:
            server.should_exit = True
            thread.join()
            app.close()


def ask(url: str, model: str, messages: list[dict[str, str]], key: str, tokens: int) -> tuple[str, float, float, Any]:
    """The answer, the seconds to its first piece and to its end, and its usage."""
    body = {
        "model": model, "messages": messages, "prompt_cache_key": key, "temperature": 0, "max_tokens": tokens,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    text, first_s, usage = "", 0.0, None
    begun = time.perf_counter()
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=120, trust_env=False) as response:
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line.removeprefix("data: "))
            usage = chunk.get("usage") or usage
            piece = chunk["choices"][0]["delta"].get("content", "") if chunk["choices"] else ""
            if piece and not text:
                first_s = time.perf_counter() - begun
            text += piece
    return text, first_s, time.perf_counter() - begun, usage


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def speed(urls: dict[str, str], model: str) -> None:
    """Print time to the first and each further token of one client, and tokens per second of several, by round."""
    print("| | ms to the first token | ms for each further one | tokens/s of four clients |\n|---|---|---|---|")
    for number in range(ROUNDS):
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in urls}
        for run in range(RUNS + 1):  # alternating, so that other load on the machine affects both
            for name, url in urls.items():
                _, first_s, all_s, usage = ask(url, model, [user("Hello!")], "speed", TOKENS)
                if run:
                    found[name].append((first_s, (all_s - first_s) / (usage["completion_tokens"] - 1)))
        for name, url in urls.items():
            firsts, each = ([1000 * pair[n] for pair in found[name]] for n in (0, 1))
            print(f"| {number + 1}: {name} | {spread(firsts, 1)} | {spread(each, 2)} | {crowd(url, model):.0f} |")


def crowd(url: str, model: str) -> float:
    """Tokens per second of several concurrent clients."""
    begun = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        keys = [f"many-{n}" for n in range(2 * CLIENTS)]
        used = [*pool.map(lambda key: ask(url, model, [user("Hello!")], key, TOKENS)[3], keys)]
    return float(sum(u["completion_tokens"] for u in used) / (time.perf_counter() - begun))


def spread(values: list[float], digits: int) -> str:
    """Median, minimum and maximum."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def affinity(url: str, model: str) -> None:
    """Print how many second questions of many conversations read only their own tokens."""

    def found(number: int) -> bool:
        system = {"role": "system", "content": f"Conversation {number}."}
        talk = [system, user("Hello!")]
        answer, _, _, first = ask(url, model, talk, f"talk-{number}", 24)
        talk += [{"role": "assistant", "content": answer}, user("Who are you?")]
        _, _, _, second = ask(url, model, talk, f"talk-{number}", 24)
        return bool(second["prompt_tokens_details"]["cached_tokens"] >= first["prompt_tokens"])

    with ThreadPoolExecutor(2) as pool:
        hits = sum(pool.map(found, range(CONVERSATIONS)))
    print(f"\naffinity: {hits} of {CONVERSATIONS} second questions found their conversation in a KV cache")


def killed(engine: ClusterEngine) -> None:
    """Compare answers whose replica is killed half-way with the same answers without; print the seconds until it is
    replaced."""
    prompt = Prompt("A system text of its own.", (Turn("user", "What is the capital of France?"),), "mortal")
    sampling = Sampling(temperature=0, max_tokens=150)
    same, pauses_ms, usual_ms, back_s = 0, [], [], []
    for _ in range(KILLS):
        whole, usual = text_of(engine, prompt, sampling, kill_at=None)
        text, pause = text_of(engine, prompt, sampling, kill_at=20)
        same += text == whole
        usual_ms.append(1000 * usual)
        pauses_ms.append(1000 * pause)
        back_s.append(until_two(engine))
    print(f"\nkilled: {same} of {KILLS} answers the same to the last letter")
    print(f"longest pause in each: {spread(pauses_ms, 0)} ms, without {spread(usual_ms, 0)} ms")
    print(f"two replicas again after {spread(back_s, 1)} s")


def text_of(engine: ClusterEngine, prompt: Prompt, sampling: Sampling, kill_at: int | None) -> tuple[str, float]:
    """The answer, and the longest time between two pieces; the replica is killed at piece number `kill_at`."""
    [pid] = engine.pids([prompt.key])
    text, pieces, last, pause = "", 0, time.perf_counter(), 0.0
    for event in engine.start(prompt, sampling).events():
        assert not isinstance(event, Finished) or event.finish_reason == "length"
        if isinstance(event, Text):
            now = time.perf_counter()
            pause, last = max(pause, now - last) if pieces else 0.0, now
            text, pieces = text + event.text, pieces + 1
            if pieces == kill_at:
                os.kill(pid, signal.SIGKILL)
    return text, pause


def until_two(engine: ClusterEngine) -> float:
    """Seconds until two replicas answer."""
    begun = time.perf_counter()
    while len({*engine.pids([str(n) for n in range(20)])}) < 2:
        time.sleep(0.2)
    return time.perf_counter() - begun


def growing(model: Bundle) -> None:
    """Print how long a queue lasts until another replica has started."""
    engine = ClusterEngine(replace(model, id="growing"), (1, 2), alone=True)
    sampling = Sampling(temperature=0, max_tokens=TOKENS)
    over = threading.Event()

    def busy(number: int) -> None:
        while not over.is_set():
            for _ in engine.start(Prompt("", (Turn("user", "Hello!"),), f"busy-{number}"), sampling).events():
                pass

    with ThreadPoolExecutor(6) as pool:
        for number in range(6):
            pool.submit(busy, number)
        print(f"growing: a second replica {until_two(engine):.0f} s after the queue began")
        over.set()
    engine.close()


def main() -> None:
    demo = bundle.load(paths.demo_bundle())
    endless = replace(demo, id="endless", text=replace(demo.text, eos=(NO_TOKEN,)))
    with local_ray(cpus=8):
        engine = ClusterEngine(endless, (2, 2), alone=True)
        with served(endless, LocalEngine(endless, threads=1)) as plain, served(endless, engine) as through_ray:
            speed({"plain": plain, "two replicas on Ray": through_ray}, endless.id)
            killed(engine)
        with served(demo, ClusterEngine(demo, (2, 2), alone=True)) as url:
            affinity(url, demo.id)
        growing(endless)


if __name__ == "__main__":
    main()
