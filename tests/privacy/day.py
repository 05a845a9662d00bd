"""A session with all of ImpChat: each command runs once, and a question is asked in each front end.

In: a home in the environment, a folder for this program's own files, and a checkpoint of a model. Out: JSON on stdout
with the output of each command; all commands have ended by then.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
from playwright.sync_api import Page, Request, TimeoutError, sync_playwright

from tests.convert.fake_hub import Hub, running
from tests.mobile.hands import boot, tap, wait_for, write
from tests.serve.conftest import asking, data_uri, drawing, question
from tests.web import hands

SECONDS = 120.0  # a limit far above normal durations, also on a busy machine
QUESTION = "What colour is the circle?"
LIBRARY = f"""
import sys
from pathlib import Path
import impchat
from impchat.app import App
with App.open() as app:
    chat = app.chat()
    chat.attach(Path(sys.argv[1]).read_bytes())
    print(chat.send({QUESTION!r}).wait().text)
"""


class Day:
    """The commands, as a user runs them: with no environment but a home."""

    def __init__(self, home: str, world: Path, checkpoint: Path) -> None:
        self._world = world
        self._checkpoint = checkpoint
        self._picture = world / "circle.png"
        self._picture.write_bytes(drawing("red"))
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        self._environment = kept | {"HOME": home, "LANG": "C.UTF-8"}
        self.asked: list[str] = []  # requests of the pages to other machines
        self._impchat = [sys.executable, "-m", "impchat.cli.main"]

    def _run(self, *command: object, input: str = "") -> str:
        done = subprocess.run(
            [*map(str, command)],
            input=input,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        return done.stdout if done.returncode == 0 else f"{done.returncode}: {done.stdout}{done.stderr}"

    @contextmanager
    def serving(self, *words: str) -> Iterator[str]:
        """Run a server; yields its address. Ctrl-C ends it."""
        command = [*self._impchat, *words, "--port", "0"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, env=self._environment, text=True, **pipes) as process:
            try:
                assert process.stdout
                line = process.stdout.readline()
                found = re.search(r"http://127\.0\.0\.1:\d+", line)
                assert found, line
                yield found[0]
            finally:
                process.send_signal(signal.SIGINT)
                said = process.communicate(timeout=SECONDS)
        assert (process.returncode, *said) == (0, "", ""), (words, process.returncode, said)

    def ask(self) -> str:
        return self._run(*self._impchat, "ask", self._picture, QUESTION)

    def chat(self) -> str:
        return self._run(*self._impchat, "chat", "--image", self._picture, input=f"{QUESTION}\n")

    def library(self) -> str:
        return self._run(sys.executable, "-c", LIBRARY, self._picture)

    def models_list(self) -> str:
        return self._run(*self._impchat, "models", "list")

    def doctor(self) -> str:
        return self._run(*self._impchat, "doctor")

    def convert(self) -> str:
        target = self._world / "converted"
        output = self._run(*self._impchat, "convert", self._checkpoint, target)
        return ", ".join(sorted(path.name for path in target.glob("*"))) or output

    def models_pull(self) -> str:
        """From a hub on loopback: pull is the one command that uses the network on purpose."""
        hub = Hub("authors/imp-test")
        hub.commit(self._checkpoint)
        with running(hub):
            self._environment["HF_ENDPOINT"] = hub.url
            pull = ("models", "pull", hub.repository, "--accept-licence")
            # In a separate folder: the first pulled model becomes the chosen one.
            return self._run(*self._impchat, *pull, "--data", self._world / "pulled")

    def serve(self) -> str:
        return self._ask_api("serve")

    def cluster(self) -> str:
        return self._ask_api("serve", "--cluster", "--replicas", "1")

    def _ask_api(self, *words: str) -> str:
        body = asking(question(QUESTION, data_uri(drawing("red"))))
        with self.serving(*words) as address:
            reply = httpx.post(f"{address}/v1/chat/completions", json=body, timeout=SECONDS, trust_env=False)
        return str(reply.json()["choices"][0]["message"]["content"])

    def page(self, address: str) -> str:
        with self._browser() as page:
            page.goto(address)
            page.wait_for_selector("body.ready")
            hands.add_by_click(page, drawing("red"))
            hands.send(page, QUESTION)
            return hands.answer(page, 1).inner_text()

    def phone_app(self) -> str:
        with self._browser(has_touch=True) as page, self.serving("mobile") as address:
            boot(page, f"{address}/", "Send")
            chooser = None
            while chooser is None:  # a tap is lost while the app is still being laid out
                with suppress(TimeoutError), page.expect_file_chooser(timeout=5000) as chosen:
                    tap(page, "Choose pictures")
                    chooser = chosen.value
            chooser.set_files({"name": "circle.png", "mimeType": "image/png", "buffer": drawing("red")})
            wait_for(page, "Ready, ask anything")
            write(page, "Ask about a picture", QUESTION)
            tap(page, "Send")
            return wait_for(page, "tokens/s")

    @contextmanager
    def _browser(self, **how: bool) -> Iterator[Page]:
        """Yields a page. Chromium itself contacts Google's servers, so no name resolves for it; requests of the page
        to other machines are recorded, unless the page's own policy blocks them."""
        nowhere = "--host-resolver-rules=MAP * 127.0.0.1:9, EXCLUDE 127.0.0.1"
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", nowhere]
        with sync_playwright() as playwright:
            opened = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
            page = opened.new_page(locale="en-GB", viewport={"width": 412, "height": 915}, **how)
            page.set_default_timeout(SECONDS * 1000)
            page.on("requestfinished", self._note)
            page.on("requestfailed", self._note)
            yield page
            opened.close()

    def _note(self, request: Request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "blob:", "data:")) and request.failure != "csp":
            self.asked.append(request.url)


def main(world: Path, checkpoint: Path) -> None:
    visitor = world / "visitor"
    visitor.mkdir()
    day = Day(os.environ["HOME"], world, checkpoint)
    os.environ.update(HOME=str(visitor), TMPDIR=str(visitor))  # the browser is not the program under test
    works = (
        *(day.cluster, day.phone_app, day.convert, day.serve, day.ask, day.chat, day.library),
        *(day.models_pull, day.models_list, day.doctor),
    )
    # The page's server runs all the time: by default, onnxruntime sends its first report after ten seconds.
    with day.serving("web", "--no-open") as address, ThreadPoolExecutor(3) as pool:
        begun = {"page": pool.submit(day.page, address)}
        begun |= {work.__name__: pool.submit(work) for work in works}
    answers = {name: str(work.exception() or work.result()) for name, work in begun.items()}
    print(json.dumps({"answers": answers, "asked": day.asked}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
