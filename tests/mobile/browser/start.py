"""Measures the app's start until its first frame: python -m tests.mobile.browser.start

In: nothing. Out: seconds from the command to its address, and from opening that to the first frame and to the composer;
ten times with an empty browser cache, and ten times with the cache of the visit before. A phone has the app's files
installed and needs no command, so only the figures with a filled cache apply to it.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from playwright.sync_api import Page, sync_playwright

from tests.mobile.hands import find

TIMES = 10


def visit(page: Page, address: str) -> tuple[float, float]:
    """Seconds to the first frame, and to the composer."""
    begun = time.perf_counter()
    page.goto(address)
    page.locator("#loading").wait_for(state="detached")
    frame = time.perf_counter() - begun
    page.evaluate("document.querySelector('flt-semantics-placeholder')?.click()")
    find(page, "Send").wait_for(state="attached")
    return frame, time.perf_counter() - begun


def told(name: str, seconds: list[float]) -> None:
    print(f"{name}: {statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})")


def main() -> None:
    started, cold, warm = [], [], []
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        for _ in range(TIMES):
            with tempfile.TemporaryDirectory() as data:
                begun = time.perf_counter()
                command = [sys.executable, "-m", "impchat.cli.main", "mobile", "--port", "0", "--data", data]
                app = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
                assert app.stdout
                address = next(word for word in app.stdout.readline().split() if word.startswith("http"))
                started.append(time.perf_counter() - begun)
                context = browser.new_context(viewport={"width": 412, "height": 915}, has_touch=True, is_mobile=True)
                page = context.new_page()
                cold.append(visit(page, address))
                page.goto("about:blank")
                warm.append(visit(page, address))
                context.close()
                app.terminate()
                app.wait()
        browser.close()
    told("the command to its address", started)
    for name, seconds in (("cold", cold), ("warm", warm)):
        told(f"{name}: to the first frame", [frame for frame, _ in seconds])
        told(f"{name}: to the composer", [composer for _, composer in seconds])


if __name__ == "__main__":
    main()
