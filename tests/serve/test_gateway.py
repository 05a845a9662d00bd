"""The API as a gateway to another server: its errors keep their status, and its text is passed on."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import closing

import openai
import pytest

from impchat.app import App
from impchat.engines.remote.engine import RemoteEngine
from impchat.errors import EngineError
from impchat.messages import Prompt
from impchat.peers import servers
from tests.core.hostile import FINE, Act, Hostile, answer, events, refusal, response, stream
from tests.core.loopback import serving
from tests.core.scripted import ScriptedEngine
from tests.serve.conftest import SECONDS, Serve, Site, asking, data_uri, drawing, question

Gateway = Callable[..., tuple[Site, Hostile]]
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Hostile]]:
    """The API of an engine over another server."""
    server = Hostile(FINE)
    with serving(server):
        engine = RemoteEngine(servers.at(server.url, model="tiny"), retry_s=0.01)
        site = Site(App.open(tmp_path_factory.mktemp("data"), engine=engine))
        yield site, server
        site.close()


@pytest.fixture
def gateway(pair: tuple[Site, Hostile]) -> Gateway:
    """The pair, with the other server acting as given."""

    def start(*acts: Act) -> tuple[Site, Hostile]:
        pair[1].acts = [*acts]
        return pair

    return start


def silent(connection: socket.socket) -> None:
    """Send nothing until the client disconnects."""
    while connection.recv(4096):
        pass


@pytest.mark.parametrize(
    ("act", "status", "code"),
    [
        (refusal("Incorrect API key provided", 401), 401, "remote.key_missing"),
        (refusal("No access", 403), 403, "remote.key_missing"),
        (refusal("The model `tiny` does not exist", 404, code="model_not_found"), 404, "model_not_found"),
        (answer({"detail": "Not Found"}, 404), 404, "remote.not_openai"),
        (response(413, b"Request Entity Too Large", "text/plain"), 413, "remote.too_large"),
        (answer({}, 429, retry_after="3600"), 429, "rate_limit_exceeded"),
        (refusal("You exceeded your current quota", 429), 429, "rate_limit_exceeded"),
        (refusal("out of memory", 500), 500, "remote.broken"),
        (response(502, b"<html>Bad gateway</html>", "text/html"), 502, "remote.broken"),
        (refusal("loading", 503), 503, "remote.broken"),
        (response(504, b"<html>Gateway timeout</html>", "text/html"), 504, "remote.broken"),
        (refusal("I do not like it", 400), 400, "remote.answered"),
        (refusal("unprocessable", 422), 422, "remote.answered"),
        (refusal("maximum context length is 64 tokens, you sent a novel", 400), 400, "context_length_exceeded"),
        (response(307, location="http://elsewhere.invalid/v1"), 502, "remote.redirect"),
        (response(body=b"<html>Log in</html>", kind="text/html"), 502, "remote.not_openai"),
        (stream({"error": {"message": "CUDA error"}}), 502, "remote.failed"),
        (stream(), 502, "remote.no_words"),
        (b"", 502, "remote.hung_up"),
    ],
)
@pytest.mark.parametrize("shown", [(), (data_uri(drawing()),)], ids=["words", "picture"])
def test_an_error_of_the_other_server_keeps_its_status(
    gateway: Gateway, act: bytes, status: int, code: str, shown: tuple[str, ...]
) -> None:
    site, _ = gateway(act)
    body = asking(question("What is it?", *shown), model=site.app.model)
    with site.client() as client:
        for how in ({}, {"stream": True}, {"stream": True, "return_progress": True}):
            response = client.post(CHAT, json=body | how)
            assert (response.status_code, response.json()["error"]["code"]) == (status, code), how
            assert response.json()["error"]["message"]
            assert response.headers.get("retry-after") == ("3600" if b"retry-after" in act else None)


def test_an_unreachable_server_is_a_bad_gateway(serve: Serve) -> None:
    with closing(RemoteEngine(servers.at("http://127.0.0.1:9", model="tiny"), retry_s=0.01)) as engine:
        site = serve(engine)
        with site.client() as client:
            response = client.post(CHAT, json=asking(question("Hi"), model=site.app.model))
    assert (response.status_code, response.json()["error"]["code"]) == (502, "remote.refused")


def test_a_silent_server_is_a_gateway_timeout(serve: Serve) -> None:
    with serving(server := Hostile(silent)), closing(RemoteEngine(servers.at(server.url), silence_s=0.3)) as engine:
        site = serve(engine)
        with site.client() as client:
            for how in (False, True):
                response = client.post(CHAT, json=asking(question("Hi"), model=site.app.model, stream=how))
                assert (response.status_code, response.json()["error"]["code"]) == (504, "remote.silent")


def test_the_official_client_raises_the_same_exception_as_with_the_other_server(gateway: Gateway) -> None:
    for act, kind in (
        (refusal("no", 401), openai.AuthenticationError),
        (refusal("The model `tiny` does not exist", 404), openai.NotFoundError),
        (answer({}, 429, retry_after="7200"), openai.RateLimitError),
        (response(504), openai.InternalServerError),
    ):
        site, _ = gateway(act)
        with openai.OpenAI(base_url=f"{site.url}/v1", api_key="x", timeout=SECONDS, max_retries=0) as client:
            for how in (False, True):
                with pytest.raises(kind):
                    client.chat.completions.create(
                        model=site.app.model, messages=[{"role": "user", "content": "Hi"}], stream=how
                    )


def test_a_server_that_breaks_off_after_its_first_words_is_reported_in_the_stream(gateway: Gateway) -> None:
    site, _ = gateway(response(body=events("It is ", end=""), kind="text/event-stream"))
    with site.client() as client:
        reply = client.post(CHAT, json=asking(question("What is it?"), model=site.app.model, stream=True))
    assert reply.status_code == 200 and '"content":"It is "' in reply.text
    errors = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith('data: {"error"')]
    assert [error["error"]["type"] for error in errors] == ["server_error"]


def test_an_error_of_the_local_engine_has_a_5xx_status(serve: Serve) -> None:
    failing: list[EngineError] = []

    def fail(_: Prompt) -> None:
        raise failing[-1]

    with serve(ScriptedEngine(fail)).client() as client:
        for code, status, more in (
            ("engine.decode_failed", 500, {}),
            ("engine.broken", 500, {}),
            ("engine.closed", 503, {}),
            ("engine.out_of_memory", 503, {"tokens": 5, "detail": "x"}),
            ("cluster.replicas_lost", 503, {"tries": 3}),
        ):
            failing.append(EngineError(code, **more))
            for how in (False, True):
                response = client.post(CHAT, json=asking(question("Hi"), model="scripted-1", stream=how))
                assert response.status_code == status, code


def test_a_greeting_and_an_answer_that_has_begun_are_passed_on_to_the_other_server(gateway: Gateway) -> None:
    site, server = gateway(
        stream("It is red."), stream(" is", " red."), refusal("unknown: add_generation_prompt"), FINE
    )
    greeting, asked = {"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "What is it?"}
    begun = {"role": "assistant", "content": "It"}

    def ask(*messages: dict[str, str]) -> str:
        with site.client() as client:
            completion = client.post(CHAT, json=asking(*messages, model=site.app.model)).json()
        return str(completion["choices"][0]["message"]["content"])

    assert ask({"role": "system", "content": "Be brief."}, greeting, asked) == "It is red."
    assert [message["role"] for message in server.posts[-1]["messages"]] == ["system", "assistant", "user"]
    assert ask(asked, begun) == " is red."
    assert server.posts[-1]["messages"][-1] == begun
    assert server.posts[-1]["continue_final_message"] and not server.posts[-1]["add_generation_prompt"]
    assert ask(asked, begun) == "It is red.", "unsupported fields are left out"
    assert "add_generation_prompt" not in server.posts[-1]
