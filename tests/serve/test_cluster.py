"""The cluster engine on a real Ray: the conformance suite, affinity, and answers that survive the death of their
replica.

All tests share one Ray.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from impchat import bundle, paths, settings
from impchat.bundle import Bundle
from impchat.engines import Engine
from impchat.messages import Picture, Prompt, Ready, Sampling, Text, Turn
from impchat.server.cluster.engine import ClusterEngine, _Run
from impchat.server.cluster.ray_runtime import local_ray
from tests.core.conformance import GREEDY, EngineConformance, ask, failed, finished, run, text_of
from tests.core.conftest import Draw
from tests.serve.processes import descendants, listening

# Ray's own code uses features that pydantic has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

NO_TOKEN = 2**31 - 1  # no model has this token, so no answer ends with it
CONVERSATIONS = 40
SECONDS = 120.0  # far longer than a replica takes to start on a busy machine


class Cluster:
    """A Ray with two applications of two replicas each: the demo model, and the demo model with endless answers."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        stack.enter_context(local_ray(cpus=8))
        demo = bundle.load(paths.demo_bundle())
        endless = replace(demo, id="endless", text=replace(demo.text, eos=(NO_TOKEN,)))
        self._demo, self._endless = demo, endless
        self.engine, self.endless = self._open(demo), self._open(endless)

    def _open(self, bundle: Bundle, least: int = 2, most: int = 2) -> ClusterEngine:
        engine = ClusterEngine(bundle, (least, most), alone=True)
        self._stack.callback(engine.close)
        return engine

    def fresh(self) -> ClusterEngine:
        """Another application of the demo model, with an empty KV cache."""
        return self._open(replace(self._demo, id="fresh"), least=1, most=1)

    def growing(self) -> ClusterEngine:
        """An application with one or two replicas and endless answers."""
        return self._open(replace(self._endless, id="growing"), least=1)

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(stack)


_shades = itertools.count()


@pytest.fixture
def draw() -> Draw:
    """Draws pictures that no other test has sent to the cluster."""
    shade = next(_shades)

    def circle(colour: str = "red", size: tuple[int, int] = (320, 240)) -> Picture:
        drawing = Image.new("RGB", size, (255, 255, 255 - shade))
        ImageDraw.Draw(drawing).ellipse([100, 60, 220, 180], fill=colour)
        out = io.BytesIO()
        drawing.save(out, "PNG")
        return Picture(hashlib.sha256(out.getvalue()).hexdigest(), out.getvalue())

    return circle


# Nothing is reachable from outside


def test_every_process_of_ray_listens_on_loopback_alone(cluster: Cluster) -> None:
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    processes = descendants()
    heard = set().union(*(listening(pid) for pid in processes))
    assert heard and heard <= loopback
    # Ray's API server asks the network in which cloud it runs; the proxy leads that request nowhere.
    asks = [pid for pid in processes if b"dashboard.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert [b"http_proxy=http://127.0.0.1:9\0" in Path(f"/proc/{pid}/environ").read_bytes() for pid in asks] == [True]


# Affinity


def test_each_conversation_continues_in_the_replica_that_cached_it(cluster: Cluster) -> None:
    hits = 0
    for number in range(CONVERSATIONS):
        prompt = Prompt(f"Conversation {number}.", (Turn("user", "Hello!"),), f"conversation-{number}")
        first = run(cluster.engine.start(prompt, GREEDY))
        end = finished(first)
        turns = (*prompt.turns, Turn("assistant", text_of(first), tokens=end.tokens), Turn("user", "Who are you?"))
        second = finished(run(cluster.engine.start(replace(prompt, turns=turns), GREEDY)))
        hits += second.stats.cached_tokens == end.stats.prompt_tokens + len(end.tokens)
    assert hits > 0.95 * CONVERSATIONS
    assert len({*cluster.engine.pids([f"conversation-{n}" for n in range(CONVERSATIONS)])}) == 2


def test_after_a_prefill_a_question_costs_only_its_own_tokens(cluster: Cluster, draw: Draw) -> None:
    read = Prompt("", (Turn("user", "", (draw("red"),)),), "picture", open_turn=True)
    end = run(cluster.engine.prefill(read))[-1]
    assert isinstance(end, Ready)
    stats = finished(
        run(cluster.engine.start(replace(ask("What is it?", draw("red")), system="", key="picture"), GREEDY))
    ).stats
    assert stats.cached_tokens == end.stats.prompt_tokens
    assert stats.vision_s == 0 and stats.new_tokens < 20


# A replica dies


@pytest.fixture
def mortal(cluster: Cluster) -> ClusterEngine:
    """An application whose replicas the tests kill."""
    return cluster.endless


def kill_within(engine: ClusterEngine, prompt: Prompt, sampling: Sampling, after: int) -> tuple[str, int]:
    """Answer `prompt` and kill its replica after `after` pieces; return the text and the number of cached tokens."""
    [pid] = engine.pids([prompt.key])
    handle = engine.start(prompt, sampling)
    events = []
    for event in handle.events():
        events.append(event)
        if sum(isinstance(e, Text) for e in events) == after and isinstance(event, Text):
            os.kill(pid, signal.SIGKILL)
    return text_of(events), finished(events).stats.cached_tokens


def test_an_answer_loses_no_word_when_its_replica_dies(mortal: ClusterEngine) -> None:
    sampling = Sampling(temperature=0, max_tokens=150)
    prompt = Prompt("A system text of its own.", (Turn("user", "What is the capital of France?"),), "mortal")
    whole = run(mortal.start(prompt, sampling))
    again = run(mortal.start(prompt, sampling))
    assert text_of(again) == text_of(whole)
    assert finished(again).stats.cached_tokens > 0
    text, cached = kill_within(mortal, prompt, sampling, after=5)
    assert text == text_of(whole)
    assert cached == 0  # so another replica finished it
    assert finished(run(mortal.start(prompt, sampling))).stats.cached_tokens > 0  # and keeps the conversation


def test_requests_fail_when_an_unexpected_exception_ends_the_worker() -> None:
    class Mistaken:
        def options(self, **_: object) -> Mistaken:
            return self

        def remote(self, *_: object) -> None:
            raise TypeError("a mistake")

    asked = _Run(Mistaken(), ask("Hello!"), GREEDY, lambda _: None)
    with pytest.raises(TypeError):
        asyncio.run(asked._work())
    assert failed(run(asked)) == "engine.broken"


def test_a_cluster_is_whole_again_after_each_kill(mortal: ClusterEngine) -> None:
    keys = [str(number) for number in range(20)]
    for _ in range(2):
        [pid] = mortal.pids(["mortal"])
        os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + SECONDS
        while len(alive := {*mortal.pids(keys)} - {pid}) < 2 and time.monotonic() < until:
            time.sleep(0.2)
        assert len(alive) == 2


def test_replicas_have_the_process_priority_of_their_parent(cluster: Cluster) -> None:
    urgency = {os.getpriority(os.PRIO_PROCESS, pid) for pid in cluster.engine.pids(["a", "b", "c"])}
    assert urgency == {os.getpriority(os.PRIO_PROCESS, 0)}


# The number of replicas follows the queue


def test_a_queue_starts_another_replica(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "CLUSTER_UPSCALE_S", 0.0)
    growing = cluster.growing()
    over = threading.Event()

    def busy(number: int) -> None:
        while not over.is_set():
            run(growing.start(replace(ask("Hello!"), key=f"busy-{number}"), Sampling(max_tokens=300)))

    until = time.monotonic() + SECONDS
    with ThreadPoolExecutor(6) as pool:
        for number in range(6):
            pool.submit(busy, number)
        while len(pids := {*growing.pids([str(n) for n in range(20)])}) < 2 and time.monotonic() < until:
            time.sleep(0.2)
        over.set()
    assert len(pids) == 2


class TestConformance(EngineConformance):
    @pytest.fixture
    def engine(self, cluster: Cluster) -> Engine:  # type: ignore[override]
        return cluster.engine

    @pytest.fixture
    def endless(self, cluster: Cluster) -> Engine:  # type: ignore[override]
        return cluster.endless

    def test_a_seed_repeats_its_answer(self, cluster: Cluster) -> None:  # type: ignore[override]
        # With other contents in a KV cache the last bits of the results differ, and so can a random answer.
        super().test_a_seed_repeats_its_answer(cluster.fresh())


# This test is last: it closes what all others use


def test_after_closing_nothing_is_left(cluster: Cluster) -> None:
    running = cluster.engine.start(ask("Hello!"), GREEDY)
    folders = [*Path("/tmp").glob("impchat-*/ray")]
    assert descendants() and folders
    cluster.close()
    assert descendants() == set()
    assert not any(folder.exists() for folder in folders)
    assert "RAY_AUTH_TOKEN" not in os.environ
    assert finished(run(running))
