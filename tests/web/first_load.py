"""Measures the first load of the page on a slow connection: `python -m tests.web.first_load [KBIT]`, 400 kbit/s by
default.

Out: on standard output, the bytes, the time until the first text is visible and until the page is usable, in a Chromium
with an empty cache and again with the cache of that visit. The engine is a scripted one.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import BrowserContext, sync_playwright

from tests.core.scripted import ScriptedEngine
from tests.web.conftest import Site

KBIT = 400
LATENCY_MS = 40
_PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def visit(context: BrowserContext, url: str, kbit: int) -> str:
    page = context.new_page()
    page.set_default_timeout(120_000)
    network = context.new_cdp_session(page)
    network.send("Network.enable")
    speed = kbit * 1000 / 8
    line = {"offline": False, "latency": LATENCY_MS, "downloadThroughput": speed, "uploadThroughput": speed}
    network.send("Network.emulateNetworkConditions", line)
    received: list[int] = []
    network.on("Network.loadingFinished", lambda event: received.append(event["encodedDataLength"]))
    begun = time.monotonic()
    page.goto(url, wait_until="commit")
    page.wait_for_selector("body.ready")
    ready = time.monotonic() - begun
    usable = sum(received)
    page.wait_for_load_state("networkidle")
    painted = page.wait_for_function(_PAINTED).json_value() / 1000
    summary = f"first words after {painted:.1f} s, usable after {ready:.1f} s and {usable / 1000:.0f} kB"
    page.close()
    return f"{summary}; {sum(received) / 1000:.0f} kB in all"


def main(argv: list[str]) -> int:
    kbit = int(argv[0]) if argv else KBIT
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as data:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        site = Site(Path(data), ScriptedEngine())
        context = browser.new_context()
        print(f"{kbit} kbit/s, empty cache: {visit(context, site.url, kbit)}")
        print(f"{kbit} kbit/s, again: {visit(context, site.url, kbit)}")
        browser.close()
        site.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
