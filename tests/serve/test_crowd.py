"""No request delays another one: a locked file, slow clients, disconnects, and many large bodies."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import Depends, FastAPI

from impchat import paths, settings
from impchat.server.devices import Pairing
from impchat.server.http import body
from impchat.server.tokens import Access
from tests.core.scripted import ScriptedEngine
from tests.serve.conftest import SECONDS, Serve, Site, asking, drawing, question, wait_until

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
HI = asking(question("Hi"), model="scripted-1")


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Another process holds a write lock on `file` during the block."""
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("begin immediate")
        yield
        other.execute("rollback")


@contextmanager
def connected(site: Site, sent: bytes = b"") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", site.port), SECONDS) as connection:
        connection.sendall(sent)
        yield connection


def post(body: dict[str, object]) -> bytes:
    sent = json.dumps(body).encode()
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(sent) + sent


def test_a_locked_token_file_delays_no_other_request(serve: Serve, tmp_path: Path) -> None:
    with closing(Access(tmp_path / "data")) as access:
        site = serve(ScriptedEngine(), access=access, token_needed=True)
        mine = {"authorization": f"Bearer {access.create('laptop')[1]}"}
        pairing = threading.Thread(target=lambda: access.redeem(access.offer(), "phone"))
        with site.client() as client, locked(paths.server_dir(tmp_path / "data") / "access.db"):
            pairing.start()  # waits for the lock
            began = time.monotonic()
            for _ in range(20):
                assert client.get("/v1/models", headers=mine).status_code == 200
            assert time.monotonic() - began < settings.BUSY_TIMEOUT_S / 2
        pairing.join(SECONDS)
        with site.client() as client:
            assert client.get("/v1/models", headers=mine).status_code == 200
        wait_until(lambda: access.holders()[0].used_utc is not None)


def test_a_client_that_sends_byte_by_byte_delays_no_other_and_is_cut_off(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "BODY_SILENCE_S", 0.5)
    site = serve(ScriptedEngine())
    with site.client() as client, connected(site, HEAD + b"Content-Length: 1000000\r\n\r\n") as slow:
        with connected(site, HEAD + b"Content-Length: 1000000\r\n\r\n") as silent:
            assert client.get("/v1/models").status_code == 200
            assert silent.recv(12) == b"HTTP/1.1 408"
        slow.settimeout(0.01)
        received = b""
        while not received:
            slow.sendall(b" ")
            try:
                received = slow.recv(12)
            except TimeoutError:
                continue
        assert received == b"HTTP/1.1 408"
        assert client.get("/v1/models").status_code == 200


def test_a_client_that_does_not_read_its_answer_is_cut_off(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "SEND_S", 0.3)
    monkeypatch.setattr(settings, "SSE_PING_S", 0.3)
    engine = ScriptedEngine()
    site = serve(engine)
    with site.client() as client, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", site.port))
        deaf.sendall(post(HI | {"stream": True}))
        script = engine.next()
        for _ in range(60):
            script.say("x" * 100_000)
        wait_until(lambda: "requests_open 0.0" in client.get("/metrics").text)
        assert script.stopped


def test_simultaneous_large_requests_are_asked_to_retry_later(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "REQUESTS_BYTES", 1_000_000)
    engine = ScriptedEngine()
    site = serve(engine)
    large = HI | {"user": "x" * 600_000}
    with site.client() as client:
        with connected(site, post(large)):
            running = engine.next()
            refused = client.post("/v1/chat/completions", json=large)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert client.get("/v1/models").status_code == 200
        wait_until(lambda: running.stopped)
        with connected(site, post(large)):  # memory is free again
            engine.next()


def test_other_requests_are_answered_while_a_large_body_is_read() -> None:
    started, go_on = threading.Event(), threading.Event()

    def check(_: Pairing) -> None:
        started.set()
        assert go_on.wait(SECONDS)

    api = FastAPI()

    @api.post("/slow", dependencies=[Depends(body.reads(Pairing, check))])
    async def slow() -> str:
        return "read"

    @api.get("/quick")
    async def quick() -> str:
        assert started.is_set()
        return "here"

    async def ask() -> tuple[int, int]:
        over = httpx.ASGITransport(app=api)
        async with httpx.AsyncClient(transport=over, base_url="http://localhost") as client:
            reading = asyncio.ensure_future(client.post("/slow", json={"code": "x", "name": "y"}))
            while not started.is_set():
                await asyncio.sleep(0.01)
            other = await client.get("/quick")
            go_on.set()
            return other.status_code, (await reading).status_code

    assert asyncio.run(ask()) == (200, 200)


def test_after_a_disconnect_no_more_pictures_are_decoded(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ScriptedEngine()
    site = serve(engine)
    started, go_on = threading.Event(), threading.Event()
    fetched: list[str] = []

    def fetch(url: str) -> bytes:
        fetched.append(url)
        started.set()
        assert go_on.wait(SECONDS)
        return drawing()

    site = serve(engine, fetch=fetch)
    pictures = [f"http://picture{n}.example/" for n in range(5)]
    for path in (b"/v1/chat/completions", b"/v1/images/prefill"):
        started.clear()
        go_on.clear()
        fetched.clear()
        sent = post(asking(question("What is it?", *pictures), model="scripted-1"))
        with connected(site, sent.replace(b"/v1/chat/completions", path)):
            assert started.wait(SECONDS)
        with site.client() as client:
            wait_until(lambda: "requests_open 0.0" in client.get("/metrics").text)
        go_on.set()
        wait_until(lambda: not any(thread.name == "api-request" for thread in threading.enumerate()))
        assert len(fetched) == 1 and engine.idle()
