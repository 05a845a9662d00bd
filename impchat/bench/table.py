"""`impchat bench table`: the paper's latency table for a bundle on this machine, and what it uses of the machine.

In: a bundle. Out: the figures of Table 4 as `speedtest` measures them, the time to the first token, the memory of the
process, and the share of the memory's bandwidth that generation uses.
This file does not know how answers are timed.
"""

from __future__ import annotations

import time

from impchat import speedtest
from impchat.app import App
from impchat.bench import resources
from impchat.bench.asking import Tell, folder, opened
from impchat.bench.report import Figure
from impchat.bundle import Bundle


def run(bundle: Bundle, rounds: int, tell: Tell) -> list[Figure]:
    """Measure in `rounds` rounds. Raises the ImpChatError that ended an answer."""
    from impchat.engines.local.tuning import threads_for

    with folder() as data:
        tell("bench.step.open")
        begun = time.perf_counter()
        with opened(bundle, data) as app:
            figures = [Figure("open", "s", (time.perf_counter() - begun,))]
            found = []
            for number in range(1, rounds + 1):
                tell("bench.step.round", round=number, rounds=rounds)
                found.append(speedtest.run(app.engine, app.system))
            memory = _memory(app, bundle)
    speeds = tuple(each.generated_tokens_per_s for each in found)
    tell("bench.step.bandwidth")
    available = resources.bandwidth(threads_for(bundle))
    used = resources.token_bytes(bundle)
    return [
        Figure("vision", "s", tuple(each.vision_s for each in found)),
        Figure("read_speed", "tokens/s", tuple(each.prompt_tokens_per_s for each in found)),
        Figure("generation_speed", "tokens/s", speeds),
        Figure("total", "s", tuple(each.total_s for each in found)),
        Figure("first_token", "s", tuple(each.first_token_s for each in found)),
        *figures,
        *memory,
        Figure("bandwidth", "bytes/s", (available,)),
        Figure("bandwidth_share", "share", tuple(used * speed / available for speed in speeds)),
    ]


def _memory(app: App, bundle: Bundle) -> list[Figure]:
    """The memory of this process, and the part of it that is the KV cache; nothing if the system does not report it."""
    cache = resources.kv_bytes(bundle, app.resources.slots * app.context_tokens)
    sizes = resources.resident()
    figures = [Figure("kv_cache", "bytes", (float(cache),))]
    if sizes:
        own, mapped = sizes
        figures = [
            Figure("rss_anon", "bytes", (float(own),)),
            *figures,
            Figure("rss_file", "bytes", (float(mapped),)),
        ]
    return figures
