"""`impchat serve` under load: `python -m benchmarks.load [SECONDS]`, 60 by default.

In: nothing. Out: on standard output, the results of 50 clients that use the demo model at the same time, each with
pictures of its own and two questions about each: answers, refusals (429) and errors, time to the first word, and the
server's memory. The server is a process of its own on loopback, with its own data folder.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from PIL import Image, ImageDraw

from impchat import settings

CLIENTS = 50
SECONDS = 60.0
SLOTS = 4
MEMORY_S = 1.0  # interval of memory measurements
_QUESTIONS = ("What is in the picture?", "What colours are in the picture?")


@dataclass
class Crowd:
    """The results of all clients."""

    answers: int = 0
    ends: Counter[str] = field(default_factory=Counter)  # status -> count; errors by name
    first_s: list[float] = field(default_factory=list)
    cached: int = 0
    prompt: int = 0
    memory: list[tuple[float, float]] = field(default_factory=list)  # seconds, MB of anonymous memory


def _picture(chance: random.Random) -> str:
    """A drawing that is not in any cache, as a data URI."""
    drawing = Image.new("RGB", (320, 240), "white")
    x, y = chance.randrange(200), chance.randrange(120)
    colour = tuple(chance.randrange(256) for _ in range(3))
    ImageDraw.Draw(drawing).ellipse([x, y, x + 100, y + 100], fill=colour)
    out = io.BytesIO()
    drawing.save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


async def _client(number: int, url: str, until: float, crowd: Crowd) -> None:
    chance = random.Random(number)
    async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False) as client:
        while time.monotonic() < until:
            picture = {"type": "image_url", "image_url": {"url": _picture(chance)}}
            messages: list[dict[str, Any]] = []
            for question in _QUESTIONS:
                shown = [picture] if not messages else []
                messages.append({"role": "user", "content": [*shown, {"type": "text", "text": question}]})
                said = await _ask(client, messages, crowd)
                if said is None:
                    break
                messages.append({"role": "assistant", "content": said})


async def _ask(client: httpx.AsyncClient, messages: list[dict[str, Any]], crowd: Crowd) -> str | None:
    """The answer, or None. A client that is refused waits for the time in Retry-After."""
    body = {"model": settings.DEMO_MODEL, "messages": messages, "stream": True}
    body["stream_options"] = {"include_usage": True}
    begun, text = time.monotonic(), ""
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            crowd.ends[str(response.status_code)] += 1
            if response.status_code == 429:
                await response.aread()
                await asyncio.sleep(float(response.headers["retry-after"]))
                return None
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    crowd.ends[str(chunk["error"]["code"])] += 1
                    return None
                piece = "".join(choice["delta"].get("content", "") for choice in chunk["choices"])
                if piece and not text:
                    crowd.first_s.append(time.monotonic() - begun)
                text += piece
                if usage := chunk.get("usage"):
                    crowd.prompt += usage["prompt_tokens"]
                    crowd.cached += usage["prompt_tokens_details"]["cached_tokens"]
    except httpx.HTTPError as exc:
        crowd.ends[type(exc).__name__] += 1
        return None
    crowd.answers += 1
    return text


async def _watch(pid: int, until: float, crowd: Crowd) -> None:
    begun = time.monotonic()
    while time.monotonic() < until:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        kilobytes = int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1])
        crowd.memory.append((time.monotonic() - begun, kilobytes / 1024))
        await asyncio.sleep(MEMORY_S)


async def _run(url: str, pid: int, seconds: float) -> Crowd:
    crowd = Crowd()
    until = time.monotonic() + seconds
    await asyncio.gather(_watch(pid, until, crowd), *(_client(n, url, until, crowd) for n in range(CLIENTS)))
    return crowd


def _report(crowd: Crowd, seconds: float) -> None:
    first = statistics.quantiles(crowd.first_s, n=100)
    quarter = len(crowd.memory) // 4
    second, last = crowd.memory[quarter : 2 * quarter], crowd.memory[-quarter:]
    wrong = {end: count for end, count in crowd.ends.items() if end not in ("200", "429")}
    print(f"{CLIENTS} clients, {seconds:.0f} s, {SLOTS} slots, a queue of {settings.QUEUE_REQUESTS}")
    print(f"answers: {crowd.answers} ({crowd.answers / seconds:.1f} a second)")
    print(f"told to come again (429): {crowd.ends['429']}; errors: {wrong or 'none'}")
    print(f"first word: median {first[49]:.2f} s, p95 {first[94]:.2f} s, slowest {max(crowd.first_s):.2f} s")
    print(f"prompt tokens from the KV cache: {100 * crowd.cached / crowd.prompt:.0f} %")
    for name, part in (("second", second), ("last", last)):
        print(f"memory, {name} quarter: {statistics.mean(mb for _, mb in part):.0f} MB")
    print(f"memory, most: {max(mb for _, mb in crowd.memory):.0f} MB")


def main(argv: list[str]) -> int:
    """Run and report. Returns 1 if there was any error except 429."""
    seconds = float(argv[0]) if argv else SECONDS
    with tempfile.TemporaryDirectory() as data:
        serve = [sys.executable, "-m", "impchat.cli.main", "serve", "--port", "0", "--data", data, "--language", "en"]
        serve += ["--slots", str(SLOTS), "--model", settings.DEMO_MODEL]
        with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout
                address = next(word for word in server.stdout.readline().split() if word.startswith("http"))
                crowd = asyncio.run(_run(address.removesuffix("/v1"), server.pid, seconds))
            finally:
                server.terminate()
    _report(crowd, seconds)
    return 0 if set(crowd.ends) <= {"200", "429"} else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
