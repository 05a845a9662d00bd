"""The HTTP details of the API that the official client does not show."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from typing import Any

import httpx
import pytest

from impchat.errors import EngineError
from impchat.messages import Finished, Stats
from impchat.server.api.admission import AdmissionQueue
from impchat.server.api.routes import build_api
from tests.core.scripted import ScriptedEngine
from tests.serve.conftest import SECONDS, Serve, Site, asking, data_uri, drawing, question, wait_until


def figure(site: Site, name: str) -> float:
    with site.client() as client:
        lines = client.get("/metrics").text.splitlines()
    return float(dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))[name])


def raw(body: dict[str, Any]) -> dict[str, Any]:
    """`body` with lone surrogates, which httpx would not send as JSON."""
    return {"content": json.dumps(body).encode(), "headers": {"content-type": "application/json"}}


def test_health_names_the_model_and_metrics_count_tokens(site: Site) -> None:
    with site.client() as client:
        assert client.get("/health").json() == {"status": "ok", "model": site.app.model}
        client.post("/v1/chat/completions", json=asking(question("Hello!"))).raise_for_status()
        figures = client.get("/metrics").text
    assert figure(site, "impchat_prompt_tokens_total") > 0
    assert figure(site, "impchat_generated_tokens_total") > 0
    assert figure(site, 'impchat_requests_total{end="done"}') >= 1
    assert figure(site, "impchat_first_token_seconds_count") >= 1
    assert "Hello" not in figures


def test_a_prefilled_picture_costs_the_question_nothing(site: Site) -> None:
    picture = data_uri(drawing("purple"))
    with site.client() as client:
        ahead = client.post("/v1/images/prefill", json=asking(question("", picture))).json()
        done = client.post("/v1/chat/completions", json=asking(question("What colour is it?", picture))).json()
    assert ahead["object"] == "image.prefill"
    assert ahead["usage"]["prompt_tokens"] > 196
    assert done["usage"]["prompt_tokens_details"]["cached_tokens"] >= ahead["usage"]["prompt_tokens"]
    assert done["impchat"]["stats"]["vision_s"] == 0


def test_requests_are_not_stored_in_the_history(site: Site) -> None:
    with site.client() as client:
        client.post("/v1/chat/completions", json=asking(question("Hello!", data_uri(drawing())))).raise_for_status()
    assert site.app.history.conversations("local") == []
    assert [path for path in (site.app.data / "images").rglob("*") if path.is_file()] == []


def test_foreign_host_and_origin_headers_are_refused(site: Site) -> None:
    with site.client() as client:
        for headers in ({"host": "rebound.example"}, {"host": ""}, {"host": "[::1"}, {"origin": "http://elsewhere.example"},
                        {"host": "192.168.1.1"}, {"origin": "null"}):  # fmt: skip
            refused = client.post("/v1/chat/completions", json=asking(question("Hi")), headers=headers)
            assert refused.status_code == 403, headers
            assert refused.json()["error"]["type"] == "permission_error"
        for host in ("localhost", f"127.0.0.1:{site.port}", "[::1]:80", "LOCALHOST:1"):
            assert client.get("/health", headers={"host": host}).status_code == 200


def test_a_dual_stack_socket_recognises_its_ipv4_address(site: Site) -> None:
    async def ask(arrived: str, host: str) -> int:
        over = httpx.ASGITransport(app=build_api(site.app))
        async with httpx.AsyncClient(transport=over, base_url=f"http://[{arrived}]:7861") as client:
            return (await client.get("/health", headers={"host": host})).status_code

    assert asyncio.run(ask("::ffff:192.168.1.20", "192.168.1.20:7861")) == 200
    assert asyncio.run(ask("fd00::5", "[fd00::5]:7861")) == 200
    assert asyncio.run(ask("::ffff:192.168.1.20", "192.168.1.21:7861")) == 403


def test_unknown_paths_methods_and_bodies_get_openais_error_body(site: Site) -> None:
    with site.client() as client:
        for response, status in (
            (client.get("/v1/nothing"), 404),
            (client.get("/v1/chat/completions"), 405),
            (client.post("/v1/chat/completions", content=b"{", headers={"content-type": "application/json"}), 400),
            (client.post("/v1/chat/completions", content=b"{"), 415),
            (client.post("/v1/chat/completions", content=b"[]", headers={"content-type": "application/json"}), 400),
            (client.post("/v1/chat/completions", **raw(asking(question("\ud800")))), 200),
            (client.post("/v1/chat/completions", **raw(asking(question("Hi"), model="\ud800"))), 404),
        ):
            assert response.status_code == status, response.text
            assert status == 200 or {*response.json()["error"]} - {"impchat"} == {"message", "type", "param", "code"}


def test_a_request_that_is_too_large_is_refused_before_it_is_read(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.port), SECONDS) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 999999999999\r\n\r\n"
        )
        assert connection.recv(12) == b"HTTP/1.1 413"


def chunked(site: Site) -> bytes:
    """The status line of the response to a chunked body that never ends."""
    block = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", site.port), SECONDS) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(97):
            connection.sendall(block)
        return connection.recv(12)


def test_a_chunked_body_is_read_only_up_to_the_limit(site: Site) -> None:
    assert chunked(site) == b"HTTP/1.1 413"


def test_requests_beyond_the_limit_are_asked_to_retry_later(serve: Serve) -> None:
    engine = ScriptedEngine()
    site = serve(engine, queue=AdmissionQueue(2))
    ask = asking(question("Hi"), model="scripted-1")
    answers: list[int] = []

    def one() -> None:
        with site.client() as client:
            answers.append(client.post("/v1/chat/completions", json=ask).status_code)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    running = [engine.next(), engine.next()]
    with site.client() as client:
        refused = client.post("/v1/chat/completions", json=ask)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        for script in running:
            script.finish("Hello")
        for thread in threads:
            thread.join(SECONDS)
        assert answers == [200, 200]
        last = threading.Thread(target=one)
        last.start()
        engine.next().finish("Hello")
        last.join(SECONDS)
        assert answers == [200, 200, 200]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("spoken", [False, True])
def test_a_client_that_disconnects_frees_its_place_at_once(serve: Serve, stream: bool, spoken: bool) -> None:
    engine = ScriptedEngine()
    site = serve(engine, queue=AdmissionQueue(1))
    body = asking(question("Hi"), model="scripted-1", stream=stream)
    sent = json.dumps(body).encode()
    with socket.create_connection(("127.0.0.1", site.port), SECONDS) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(sent) + sent
        )
        script = engine.next()
        if spoken:
            script.say("Hel")
            if stream:
                assert connection.recv(1)
    wait_until(lambda: script.stopped)
    done: list[int] = []

    def again() -> None:
        with site.client() as client:
            done.append(client.post("/v1/chat/completions", json=body | {"stream": False}).status_code)

    wait_until(lambda: figure(site, "impchat_requests_open") == 0)
    thread = threading.Thread(target=again)
    thread.start()
    engine.next().finish("Hello")
    thread.join(SECONDS)
    assert done == [200]


def test_an_engine_failure_during_a_stream_is_sent_in_the_stream(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impchat.settings.SSE_PING_S", 0.1)  # so that the stream begins before the first word
    engine = ScriptedEngine()
    site = serve(engine)
    with (
        site.client() as client,
        client.stream(
            "POST", "/v1/chat/completions", json=asking(question("Hi"), model="scripted-1", stream=True)
        ) as response,
    ):
        script = engine.next()
        script.say("Hel")
        script.crash(EngineError("engine.decode_failed"))
        text = response.read().decode()
    assert '"content":"Hel"' in text
    assert '"type":"server_error"' in text
    assert text.endswith("data: [DONE]\n\n")


def test_no_character_splits_an_event(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impchat.settings.SSE_PING_S", 0.1)
    odd = "a\u2028b\u0085c\x0bd 圆形"
    engine = ScriptedEngine()
    site = serve(engine)
    body = asking(question("Hi"), model="scripted-1", stream=True)
    with site.client() as client, client.stream("POST", "/v1/chat/completions", json=body) as response:
        engine.next().finish(odd)
        events = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: {")]
    assert "".join(c["delta"].get("content", "") for e in events for c in json.loads(e)["choices"]) == odd


def test_an_engine_failure_before_the_first_word_sets_the_status(serve: Serve) -> None:
    engine = ScriptedEngine()
    site = serve(engine)
    codes = []

    def ask(stream: bool) -> None:
        with site.client() as client:
            body = asking(question("Hi"), model="scripted-1", stream=stream)
            codes.append(client.post("/v1/chat/completions", json=body).status_code)

    for stream in (False, True):
        thread = threading.Thread(target=ask, args=(stream,))
        thread.start()
        engine.next().crash(EngineError("engine.decode_failed"))
        thread.join(SECONDS)
    assert codes == [500, 500]


def test_a_silent_stream_sends_comments(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impchat.settings.SSE_PING_S", 0.1)
    engine = ScriptedEngine()
    site = serve(engine)
    with (
        site.client() as client,
        client.stream(
            "POST", "/v1/chat/completions", json=asking(question("Hi"), model="scripted-1", stream=True)
        ) as response,
    ):
        script = engine.next()
        lines = response.iter_lines()
        assert next(line for line in lines if line.startswith(":"))
        script.say("Hi", Finished("stop", Stats()))
        assert [line for line in lines if line][-1] == "data: [DONE]"
