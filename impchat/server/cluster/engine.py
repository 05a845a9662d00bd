"""An `Engine` that distributes requests over replicas of a bundle's engine on Ray Serve.

In: a bundle, and the number of replicas. Out: an Engine. A conversation goes to the replica that has it in its KV cache
(consistent hashing of the prompt's key), or to another one while that is full. If a replica dies during an answer,
another one continues from the prompt and the tokens so far; readers of the events only notice a pause.
This file does not know HTTP, how Ray is started (`ray_runtime`) or what runs in a replica (`replica`).
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from impchat import settings
from impchat.bundle import Bundle
from impchat.engines import EngineInfo
from impchat.engines.local.tuning import threads_for
from impchat.errors import EngineError
from impchat.messages import End, Event, Failed, Finished, Prompt, Ready, Sampling, Stats, Text
from impchat.prompts import conversation_of
from impchat.server.cluster.ray_runtime import local_ray, other_ray
from impchat.server.cluster.replica import Replica

_ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"


@contextmanager
def open_cluster(
    bundle: Bundle,
    replicas: tuple[int, int] = settings.CLUSTER_REPLICAS,
    address: str | None = None,
    slots: int = settings.SLOTS,
) -> Iterator[ClusterEngine]:
    """The engine of `bundle` inside the block: on the Ray cluster at `address`, with `threads_for(bundle)` processors
    per replica, or, if that is None, on a private Ray whose replicas share this machine's processors. `replicas`:
    minimum and maximum. `slots`: per replica.

    Raises EngineError "cluster.unreachable" or "cluster.no_start", and as ClusterEngine."""
    threads = threads_for(bundle)
    if address is None:
        threads = max(1, threads // replicas[1])
    with local_ray(threads * replicas[1]) if address is None else other_ray(address):
        engine = ClusterEngine(bundle, replicas, slots=slots, threads=threads, alone=address is None)
        try:
            yield engine
        finally:
            engine.close()


class ClusterEngine:
    """The Engine of `bundle` on the Ray that this process is connected to. If another front end already runs the
    application there, its replicas are shared. The engine that started them deletes them."""

    def __init__(
        self,
        bundle: Bundle,
        replicas: tuple[int, int] = settings.CLUSTER_REPLICAS,
        *,
        slots: int = settings.SLOTS,
        threads: int = 1,
        alone: bool = False,
    ) -> None:
        """`replicas`: minimum and maximum; their number follows the queue. `slots`, `threads`: per replica. `alone`:
        this Ray is private and ends with this process.

        Returns once the replicas have loaded the model. Raises EngineError "cluster.too_small", "cluster.failed"."""
        self._info = EngineInfo("cluster", bundle.id, bundle.context_tokens, True, bundle.image.tokens, bundle.sampling)
        self._lock = threading.Lock()
        self._runs: set[_Run] = set()
        self._closing = False
        self._name = f"impchat-{bundle.id}"
        app, started = _deploy(self._name, bundle, replicas, slots, threads, alone)
        self._handle = app.options(method_name="pid")
        # The first call creates a router, which handles derived later share. Handles derived before would each create
        # their own router without the queue, and Ray Serve would not see the load.
        self._handle.remote()
        self._takes_down = started and not alone
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="impchat-cluster", daemon=True)
        self._thread.start()

    @property
    def info(self) -> EngineInfo:
        return self._info

    def prefill(self, prompt: Prompt) -> _Run:
        """Read `prompt` into the KV cache of its conversation's replica."""
        return self._begin(prompt, None)

    def start(self, prompt: Prompt, sampling: Sampling) -> _Run:
        """Answer `prompt`."""
        return self._begin(prompt, sampling)

    def _begin(self, prompt: Prompt, sampling: Sampling | None) -> _Run:
        run = _Run(self._handle, prompt, sampling, self._runs.discard)
        with self._lock:
            if self._closing:
                run.end(Failed("engine.closed", {}))  # safe under the lock: its callback takes no lock
                return run
            self._runs.add(run)
            run.begin(self._loop)
        return run

    def pids(self, keys: list[str]) -> list[int]:
        """For each key, the id of the process that its conversation is routed to now."""
        calls = [self._handle.options(session_id=key).remote() for key in keys]
        return [call.result() for call in calls]

    def close(self) -> None:
        """Stop all requests, and delete the replicas if this engine started them. May be called more than once."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        for run in [*self._runs]:
            run.stop()
        asyncio.run_coroutine_threadsafe(_settle(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._handle.shutdown()  # it would keep reporting the queue length to Ray Serve
        if self._takes_down:
            from ray import serve

            serve.delete(self._name)


async def _settle() -> None:
    """Wait for the cancelled tasks, which pass the cancellation on to their replicas."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)


def _deploy(
    name: str, bundle: Bundle, replicas: tuple[int, int], slots: int, threads: int, alone: bool
) -> tuple[Any, bool]:
    """A handle that calls the replicas of the application `name`, and whether this call started them."""
    import ray
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    if name in serve.status().applications:
        return serve.get_app_handle(name), False
    least, most = replicas
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    if there.get("CPU", 0) < least * threads:
        raise EngineError("cluster.too_small", wanted=least * threads, there=int(there.get("CPU", 0)))
    deployment: Any = serve.deployment(  # Ray's types know only its use as a decorator without options
        ray_actor_options={"num_cpus": threads, "num_gpus": 1 if there.get("GPU", 0) >= least else 0},
        max_ongoing_requests=settings.CLUSTER_REPLICA_REQUESTS,
        # If its replica is full, a conversation goes to another one instead of waiting.
        request_router_config={
            "request_router_class": _ROUTER,
            "request_router_kwargs": {"num_fallback_replicas": min(most - 1, settings.CLUSTER_NEIGHBOURS)},
        },
        health_check_period_s=settings.CLUSTER_CHECK_S,
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
        **_number(least, most),
    )(Replica)
    try:
        serve.start(proxy_location="Disabled")  # the process that opened the engine serves HTTP
        return serve.run(deployment.bind(bundle, slots, threads, alone), name=name, route_prefix=None), True
    except RuntimeError as exc:
        raise EngineError("cluster.failed", problem=str(exc).strip().splitlines()[-1]) from exc


def _number(least: int, most: int) -> dict[str, Any]:
    """The options for the number of replicas: fixed, or scaled by the running and waiting requests."""
    if least == most:
        return {"num_replicas": least}
    scaling = {
        "min_replicas": least,
        "max_replicas": most,
        "target_ongoing_requests": settings.CLUSTER_REPLICA_BUSY,
        "upscale_delay_s": settings.CLUSTER_UPSCALE_S,
        "downscale_delay_s": settings.CLUSTER_DOWNSCALE_S,
    }
    return {"autoscaling_config": scaling}


class _Run:
    """The Handle of a prefill or an answer in the cluster. It runs on the engine's event loop, but `end` and `stop` may
    be called from any thread."""

    def __init__(self, handle: Any, prompt: Prompt, sampling: Sampling | None, leave: Callable[[_Run], None]) -> None:
        self._handle = handle.options(method_name="run", session_id=conversation_of(prompt), stream=True)
        self._prompt = prompt
        self._sampling = sampling
        self._leave = leave
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._over = False  # the last event has been read
        self._lock = threading.Lock()  # guards _ended, and the order of events
        self._ended = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._began = time.perf_counter()
        self._first_token_s = 0.0
        self._tokens: list[int] = []  # of the text sent so far
        self._begun = 0  # number of these that the current replica was given with the prompt
        self._lost = Stats()  # of the replicas that died
        self._latest = Stats()  # of the current replica

    # For any thread

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        def begin() -> None:
            if not self._ended:
                self._task = loop.create_task(self._work())

        self._loop = loop
        loop.call_soon_threadsafe(begin)

    def events(self) -> Iterator[Event]:
        """Yield the events as they happen, up to the last one; blocks between them. Read it once, from one thread."""
        while not self._over:
            event = self._events.get()
            self._over = isinstance(event, End)
            yield event

    def stop(self) -> None:
        """End it at once, without waiting for the replica."""
        self.end(Finished("stopped", self._stats(), tuple(self._tokens)))
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._cancel)

    def end(self, event: End) -> None:
        """Queue the last event, unless there is one already."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            self._events.put(event)
        self._leave(self)

    # On the loop

    def _cancel(self) -> None:
        if self._task:
            self._task.cancel()

    async def _work(self) -> None:
        try:
            await self._persist()
        finally:
            self.end(Failed("engine.broken", {}))  # only after a bug: the reader must get a last event

    async def _persist(self) -> None:
        """Try up to `settings.CLUSTER_TRIES` replicas, until there is a last event."""
        from ray.exceptions import RayError, RayTaskError
        from ray.serve.exceptions import RayServeException

        for number in range(settings.CLUSTER_TRIES):  # limited: a prompt that crashes its replica must not crash all
            try:
                await self._listen(first=number == 0)
            except (RayTaskError, RayServeException):  # a bug, or the application was deleted
                self.end(Failed("engine.broken", {}))
            except RayError:  # the replica's process, machine or connection is lost
                self._lost, self._latest = self._stats(), Stats()
            if self._ended:
                return
        self.end(Failed("cluster.replicas_lost", {"tries": settings.CLUSTER_TRIES}))

    async def _listen(self, *, first: bool) -> None:
        """Process the events of one replica: all events of the `first`, only text and the end of a later one."""
        self._begun = len(self._tokens)
        stream = self._handle.remote(replace(self._prompt, prefix=tuple(self._tokens)), self._sampling)
        try:
            async for events, stats in stream:
                self._latest = stats
                for event in events:
                    self._take(event, first)
        except asyncio.CancelledError:
            stream.cancel()
            raise

    def _take(self, event: Event, first: bool) -> None:
        match event:
            case Text(tokens=tokens):
                self._first_token_s = self._first_token_s or time.perf_counter() - self._began
                with self._lock:
                    if not self._ended:
                        self._tokens += tokens
                        self._events.put(event)
            case Finished() | Ready():
                self.end(replace(event, stats=self._stats()))
            case Failed():
                self.end(event)
            case _ if first:
                with self._lock:
                    if not self._ended:
                        self._events.put(event)

    def _stats(self) -> Stats:
        """The stats over all replicas that worked on it: the counts of the latest, the summed times of all."""
        lost, latest = self._lost, self._latest
        counts = latest if latest.prompt_tokens else lost
        prompt = max(0, counts.prompt_tokens - (self._begun if counts is latest else 0))
        cached = min(counts.cached_tokens, prompt)
        return Stats(
            prompt_tokens=prompt,
            cached_tokens=cached,
            new_tokens=prompt - cached,
            generated_tokens=max(latest.generated_tokens, lost.generated_tokens),
            vision_s=lost.vision_s + latest.vision_s,
            prefill_s=lost.prefill_s + latest.prefill_s,
            decode_s=lost.decode_s + latest.decode_s,
            first_token_s=self._first_token_s,
        )
