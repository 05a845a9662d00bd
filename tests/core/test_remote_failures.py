"""The remote engine with unusual, broken, slow and hostile servers: one clear sentence for each failure, and no text
is lost."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from impchat import settings, texts
from impchat.engines.remote.engine import RemoteEngine
from impchat.errors import EngineError
from impchat.messages import (
    Dropped,
    Event,
    Failed,
    Finished,
    Picture,
    Prompt,
    Ready,
    Sampling,
    Stats,
    Text,
    Turn,
)
from impchat.peers import servers
from tests.core.conformance import ask, failed, finished, run, text_of, until
from tests.core.conftest import Draw
from tests.core.hostile import BEGIN, FINE, Act, Hostile, answer, events, piece, refusal, response, stream
from tests.core.loopback import serving
from tests.core.scripted import SECONDS

Serve = Callable[..., Hostile]
Open = Callable[..., RemoteEngine]
SHORT = Sampling(temperature=0, max_tokens=16)
WRONG_LENGTHS = {"code": "prompt.too_long", "values": {"tokens": "many", "limit": "few"}}


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts hostile servers that are stopped after the test."""
    with ExitStack() as stack:

        def start(*acts: Act, **gets: Act) -> Hostile:
            server = Hostile(*acts, **gets)
            stack.enter_context(serving(server))
            return server

        yield start


@pytest.fixture
def open_engine() -> Iterator[Open]:
    """Opens engines of the servers at some addresses; they are closed after the test, and no thread may be left."""
    before = {*threading.enumerate()}
    opened: list[RemoteEngine] = []

    def start(*urls: str, key: str = "", model: str = "", **options: float) -> RemoteEngine:
        server = replace(servers.at(urls[0], key, model), urls=tuple(servers.normal(url) for url in urls))
        opened.append(RemoteEngine(server, **{"retry_s": 0.01} | options))
        return opened[-1]

    yield start
    for engine in opened:
        engine.close()
    asking_has_ended(before)


def asking_has_ended(before: set[threading.Thread]) -> None:
    """Wait until no request thread runs that was not in `before`."""
    for thread in {*threading.enumerate()} - before:
        if thread.name == "impchat-remote":
            thread.join(SECONDS)
            assert not thread.is_alive()


def answered(engine: RemoteEngine, text: str = "What is it?", *pictures: Picture) -> list[Event]:
    return run(engine.start(ask(text, *pictures, key="a"), SHORT))


# Responses that are no answers


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (refusal("Incorrect API key provided", 401), "remote.key_missing"),
        (refusal("No access", 403), "remote.key_missing"),
        (refusal("The model `tiny` does not exist", 404, code="model_not_found"), "remote.no_model"),
        (refusal("The model `tiny` does not exist", 400, code="model_not_found"), "remote.no_model"),
        (answer({"detail": "Not Found"}, 404), "remote.not_openai"),
        (response(405, b"<html>", "text/html"), "remote.not_openai"),
        (response(413, b"Request Entity Too Large", "text/plain"), "remote.too_large"),
        (answer({}, 429, retry_after="3600"), "remote.rate_limited"),
        (refusal("You exceeded your current quota", 429), "remote.busy"),
        (refusal("out of memory", 500), "remote.broken"),
        (response(502, b"<html>Bad gateway</html>", "text/html"), "remote.broken"),
        (refusal("image input is not supported by this model", 500), "remote.no_vision"),
        (refusal("I do not like it", 400), "remote.answered"),
        (response(418), "remote.answered"),
        (refusal("maximum context length is 64 tokens, you sent a novel", 400), "remote.too_long"),
        (refusal("request (900 tokens) exceeds the available context size (512 tokens)", 400), "prompt.too_long"),
        (refusal("too long", 400, impchat=WRONG_LENGTHS, code="context_length_exceeded"), "remote.too_long"),
        (response(307, location="http://elsewhere.invalid/v1"), "remote.redirect"),
        (response(body=b"<html>Log in</html>", kind="text/html"), "remote.not_openai"),
        (response(body=b"", kind=""), "remote.not_openai"),
        (response(body=b"{", kind="application/json"), "remote.not_openai"),
        (answer(["no answer"]), "remote.not_openai"),
        (answer({"id": "no choices"}), "remote.not_openai"),
        (response(body=b"\x1f\x8b", kind="text/event-stream", content_encoding="gzip"), "remote.not_openai"),
        (response(body=b"data: nonsense\n\n", kind="text/event-stream"), "remote.not_openai"),
        (response(body=b"data: [[[\n\n", kind="text/event-stream"), "remote.not_openai"),
        (response(body=b"data: " + b"[" * 100_000 + b"\n\n", kind="text/event-stream"), "remote.not_openai"),
        (stream({"error": {"message": "CUDA error"}}), "remote.failed"),
        (stream("Well, ", piece("", "content_filter")), "remote.filtered"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "remote.not_openai"),
        (b"", "remote.hung_up"),
        (b"HTTP/1.1 200 OK\r\ncontent-le", "remote.hung_up"),
        (BEGIN, "remote.broken_off"),
    ],
)
def test_each_failure_has_its_own_sentence(serve: Serve, open_engine: Open, draw: Draw, act: bytes, code: str) -> None:
    server = serve(act)
    assert failed(answered(open_engine(server.url), "What is it?", draw("red"))) == code


def test_wrong_and_missing_keys_have_different_errors_without_the_key(serve: Serve, open_engine: Open) -> None:
    server = serve(refusal("Incorrect API key provided: sk-secret-word", 401), v1_models=refusal("no", 500))
    events = answered(open_engine(server.url, key="sk-secret-word", model="tiny"))
    assert failed(events) == "remote.key_wrong"
    assert server.asked[-1][1]["authorization"] == "Bearer sk-secret-word"
    error = EngineError(events[-1].code, **events[-1].values)  # type: ignore[union-attr]
    assert not any("sk-secret" in error.sentence(language) for language in texts.LANGUAGES)
    closed = serve(refusal("?", 401), v1_models=refusal("who are you", 401))
    with pytest.raises(EngineError) as refused:
        open_engine(closed.url, key="x").connect()
    assert refused.value.code == "remote.key_wrong"


def test_a_model_that_is_not_listed_is_named_whatever_the_server_says(serve: Serve, open_engine: Open) -> None:
    server = serve(answer({"detail": "Server is pinned to 'tiny'; requested 'large'."}, 400))
    received = answered(open_engine(server.url, model="large"))
    assert failed(received) == "remote.no_model"
    assert received[-1].values["known"] == "tiny"  # type: ignore[union-attr]


def test_an_unreachable_server_is_reported_at_once(open_engine: Open) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        assert failed(answered(open_engine(url))) == "remote.refused"
        assert failed(run(open_engine(url).prefill(ask("Hello!")))) == "remote.refused"
    assert failed(answered(open_engine(f"http://{'a' * 64}.invalid"))) == "remote.no_name"  # no label can be this long


def test_plain_http_at_an_https_address_is_reported(serve: Serve, open_engine: Open) -> None:
    server = serve(FINE)
    assert failed(answered(open_engine(server.url.replace("http", "https")))) == "remote.no_tls"


def test_a_silent_server_times_out(serve: Serve, open_engine: Open) -> None:
    server = serve(lambda connection: server.until_gone(connection))
    assert failed(answered(open_engine(server.url, silence_s=0.2))) == "remote.silent"
    assert server.gone.acquire(timeout=SECONDS)
    assert len(server.posts) == 1
    with socket.create_server(("127.0.0.1", 0)) as mute:  # accepts the connection and sends nothing
        engine = open_engine(f"https://127.0.0.1:{mute.getsockname()[1]}", connect_s=0.2)
        assert failed(answered(engine)) == "remote.no_reply"


def test_a_server_that_falls_silent_during_an_answer_times_out_and_its_text_is_kept(
    serve: Serve, open_engine: Open
) -> None:
    def act(connection: socket.socket) -> None:
        connection.sendall(BEGIN + events("It is ", end=""))
        server.until_gone(connection)

    server = serve(act)
    received = answered(open_engine(server.url, silence_s=2))
    assert (text_of(received), failed(received)) == ("It is ", "remote.silent")


# Retries


def test_a_failure_before_the_first_byte_is_retried(serve: Serve, open_engine: Open) -> None:
    for trouble in (refusal("oops", 500), answer({}, 503), answer({}, 429, retry_after="0"), b""):
        server = serve(trouble, trouble, FINE)
        assert text_of(answered(open_engine(server.url))) == "It is red."
        assert len(server.posts) == 3


def test_retries_are_limited(serve: Serve, open_engine: Open) -> None:
    server = serve(refusal("oops", 500))
    assert failed(answered(open_engine(server.url))) == "remote.broken"
    assert len(server.posts) == 1 + settings.REMOTE_RETRIES


def test_a_permanent_failure_is_not_retried(serve: Serve, open_engine: Open) -> None:
    for refused in (refusal("no", 403), answer({}, 404), answer({}, 413), answer({}, 429, retry_after="9999")):
        server = serve(refused)
        failed(answered(open_engine(server.url)))
        assert len(server.posts) == 1


@pytest.mark.parametrize("end", ["", "data: {", ": ping\n\n"])
def test_an_answer_that_breaks_off_is_kept_and_not_retried(serve: Serve, open_engine: Open, end: str) -> None:
    server = serve(BEGIN + events("It is ", end=end), FINE)
    received = answered(open_engine(server.url))
    assert (text_of(received), failed(received)) == ("It is ", "remote.broken_off")
    assert len(server.posts) == 1


def test_a_wait_for_a_retry_can_be_stopped(serve: Serve, open_engine: Open) -> None:
    came = threading.Event()

    def act(connection: socket.socket) -> None:
        connection.sendall(answer({}, 503, retry_after="15"))
        came.set()

    server = serve(act)
    handle = open_engine(server.url).start(ask("Hello!"), SHORT)
    assert came.wait(SECONDS)
    handle.stop()
    assert finished(run(handle)).finish_reason == "stopped"
    assert len(server.posts) == 1


# Stop


def test_a_stop_before_the_first_word_closes_the_request(serve: Serve, open_engine: Open) -> None:
    came = threading.Event()

    def act(connection: socket.socket) -> None:
        came.set()
        server.until_gone(connection)

    server = serve(act)
    handle = open_engine(server.url).start(ask("Hello!"), SHORT)
    assert came.wait(SECONDS)
    handle.stop()
    assert server.gone.acquire(timeout=SECONDS)
    assert finished(run(handle)).finish_reason == "stopped"
    assert len(server.posts) == 1


def test_a_stop_during_an_answer_closes_the_request_and_the_next_question_is_answered(
    serve: Serve, open_engine: Open
) -> None:
    def act(connection: socket.socket) -> None:
        connection.sendall(BEGIN + events("It is ", end=""))
        server.until_gone(connection)

    server = serve(act, FINE)
    engine = open_engine(server.url)
    handle = engine.start(ask("Hello!"), SHORT)
    reading = handle.events()
    before = until(reading, Text)
    handle.stop()
    assert server.gone.acquire(timeout=SECONDS)
    assert (text_of(before), finished([*reading]).finish_reason) == ("It is ", "stopped")
    assert text_of(answered(engine)) == "It is red."


def test_a_stop_string_that_the_server_does_not_support_ends_the_answer_here(serve: Serve, open_engine: Open) -> None:
    def act(connection: socket.socket) -> None:
        connection.sendall(BEGIN + events("It is r", "ed. US", "ER: and", end=""))
        server.until_gone(connection)

    server = serve(act)
    sampling = replace(SHORT, stop=("1", "2", "3", "4", "USER:"))
    received = run(open_engine(server.url).start(ask("Hello!"), sampling))
    assert (text_of(received), finished(received).finish_reason) == ("It is red. ", "stop")
    assert server.gone.acquire(timeout=SECONDS)
    assert server.posts[0]["stop"] == ["1", "2", "3", "4"]  # OpenAI accepts at most four


# Limits


def test_a_line_or_an_event_without_end_is_cut_off(serve: Serve, open_engine: Open) -> None:
    for block in (b"a" * 65536, b"data: a\n" * 8192):

        def act(connection: socket.socket, block: bytes = block) -> None:
            connection.sendall(BEGIN + b"data: ")
            while True:
                connection.sendall(block)

        assert failed(answered(open_engine(serve(act).url))) == "remote.not_openai"


def test_a_body_without_end_is_cut_off(serve: Serve, open_engine: Open) -> None:
    def act(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
        while True:
            connection.sendall(b" " * 65536)

    server = serve(act, v1_models=act)
    assert failed(answered(open_engine(server.url, model="tiny"))) == "remote.not_openai"


def test_an_answer_without_end_is_cut_off_at_its_length(serve: Serve, open_engine: Open) -> None:
    def act(connection: socket.socket) -> None:
        connection.sendall(BEGIN)
        while True:
            connection.sendall(events("words " * 20, end=""))

    received = answered(open_engine(serve(act).url))
    assert finished(received).finish_reason == "length"
    assert len(text_of(received)) < 2 * SHORT.max_tokens * settings.TOKEN_CHARS


@pytest.mark.parametrize("done", [True, False], ids=["done", "counted"])
def test_an_answer_ends_with_its_last_chunk_if_the_server_keeps_the_connection_open(
    serve: Serve, open_engine: Open, done: bool
) -> None:
    counted = piece("", "stop") | {"usage": {"prompt_tokens": 9, "completion_tokens": 2}}
    last = events("It is red.", piece("", "stop")) if done else events("It is red.", counted, end="")

    def act(connection: socket.socket) -> None:
        connection.sendall(BEGIN + last)
        server.until_gone(connection)

    server = serve(act)
    engine = open_engine(server.url)
    assert text_of(answered(engine)) == "It is red."
    engine.close()
    assert server.gone.acquire(timeout=SECONDS)


def test_invalid_chunks_in_an_answer_are_skipped(serve: Serve, open_engine: Open) -> None:
    server = serve(
        stream(
            {"choices": []},
            {"choices": [None]},
            {"choices": [{"delta": None}]},
            {"choices": [{"delta": {"content": 5}}]},
            piece("\ud83d half"),
            {"choices": [], "usage": {"prompt_tokens": "many", "completion_tokens": -1}, "timings": [], "impchat": 7},
            {"choices": [], "usage": {"prompt_tokens": 1e300, "prompt_tokens_details": None}, "prompt_progress": {}},
            piece("", "stop"),
        )
    )
    received = answered(open_engine(server.url))
    assert text_of(received) == "? half"
    assert finished(received).stats.prompt_tokens == 0


# What is sent to whom


def test_a_redirect_is_not_followed_and_the_key_is_not_sent(serve: Serve, open_engine: Open) -> None:
    other = serve(FINE)
    server = serve(
        response(308, location=f"{other.url}/v1/chat/completions"), v1_models=response(301, location=other.url)
    )
    received = answered(open_engine(server.url, key="word", model="tiny"))
    assert failed(received) == "remote.redirect"
    assert other.asked == []


def test_pictures_are_sent_scaled_down_and_without_metadata(serve: Serve, open_engine: Open, draw: Draw) -> None:
    photo = Image.effect_noise((3000, 1500), 80).convert("RGB")
    exif = Image.Exif()
    exif[0x010E] = "at home"
    out = io.BytesIO()
    photo.save(out, "JPEG", exif=exif)
    server = serve(FINE)
    small = draw("red")
    answered(open_engine(server.url, image_side=512), "What is it?", Picture("p", out.getvalue()), small)
    *pictures, question = server.posts[0]["messages"][-1]["content"]
    assert question == {"type": "text", "text": "What is it?"}
    kinds, data = zip(*(p["image_url"]["url"].split(";base64,") for p in pictures), strict=True)
    assert kinds == ("data:image/jpeg", "data:image/png")
    sent, same = (base64.b64decode(d) for d in data)
    assert Image.open(io.BytesIO(sent)).size == (512, 256)
    assert b"at home" not in sent and b"Exif" not in sent
    assert Image.open(io.BytesIO(same)).size == (320, 240)


def test_requests_have_the_form_that_openai_expects(serve: Serve, open_engine: Open) -> None:
    server = serve(FINE)
    turns = (Turn("user", "Hello!"), Turn("assistant", "Hi."), Turn("user", "And?"))
    run(open_engine(server.url).start(Prompt("Be kind.", turns, "chat-1"), replace(SHORT, seed=7)))
    path, headers, body = server.asked[-1]
    assert path == "/v1/chat/completions"
    assert "authorization" not in headers
    assert [m["role"] for m in body["messages"]] == ["system", "user", "assistant", "user"]
    assert body["messages"][-1]["content"] == "And?"
    wanted = {
        "model": "tiny",
        "stream": True,
        "temperature": 0,
        "max_tokens": 16,
        "seed": 7,
        "prompt_cache_key": "chat-1",
    }
    assert wanted.items() <= body.items()
    assert body["stream_options"] == {"include_usage": True}


# Different kinds of servers


def test_unsupported_fields_are_left_out_and_remembered(serve: Serve, open_engine: Open) -> None:
    extra = {"top_k", "min_p", "repeat_penalty", "return_progress"}
    named = answer({"detail": f"Unexpected fields in the request: {extra}"}, 422)
    for refused in (named, response(400, b"no", "text/plain")):
        server = serve(refused, FINE)
        engine = open_engine(server.url)
        assert [text_of(answered(engine)) for _ in range(2)] == ["It is red."] * 2
        first, *later = server.posts
        assert extra <= first.keys() and len(later) == 2
        assert not any(extra & body.keys() for body in later)
        assert all("temperature" in body and "max_tokens" in body for body in later)


def test_a_field_with_another_name_on_the_server_is_sent_under_that_name(serve: Serve, open_engine: Open) -> None:
    refused = refusal("Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.")
    server = serve(refused, FINE)
    assert text_of(answered(open_engine(server.url))) == "It is red."
    assert "max_tokens" not in server.posts[1] and server.posts[1]["max_completion_tokens"] == 16


def test_a_refusal_for_another_reason_removes_no_field(serve: Serve, open_engine: Open) -> None:
    server = serve(refusal("bad words"), refusal("bad words"), FINE)
    engine = open_engine(server.url)
    assert failed(answered(engine)) == "remote.answered"
    assert text_of(answered(engine)) == "It is red."
    assert "top_k" in server.posts[-1]


def test_a_server_that_does_not_stream_answers_too(serve: Serve, open_engine: Open) -> None:
    whole = {"choices": [{"message": {"role": "assistant", "content": "It is red."}, "finish_reason": "length"}]}
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 5}}
    received = answered(open_engine(serve(answer(whole | {"usage": usage})).url))
    assert text_of(received) == "It is red."
    end = finished(received)
    assert end.finish_reason == "length"
    assert (end.stats.prompt_tokens, end.stats.cached_tokens, end.stats.new_tokens) == (9, 5, 4)
    assert end.stats.generated_tokens == 4


def test_a_server_without_metadata_can_still_answer(serve: Serve, open_engine: Open) -> None:
    for listing in (response(500), response(404), response(body=b"<html>", kind="text/html"), answer([1]), b"rubbish"):
        server = serve(FINE, v1_models=listing)
        assert text_of(answered(open_engine(server.url, model="tiny"))) == "It is red."
    assert failed(answered(open_engine(server.url))) == "remote.no_model_named"
    several = serve(FINE, v1_models=answer({"data": [{"id": "one"}, {"id": "two"}]}))
    assert failed(answered(open_engine(several.url))) == "remote.several_models"
    assert text_of(answered(open_engine(several.url, model="two"))) == "It is red."


def test_the_extra_fields_of_llama_cpps_server_are_read(serve: Serve, open_engine: Open, draw: Draw) -> None:
    listing = answer({"data": [{"id": "tiny", "owned_by": "llamacpp", "meta": {"n_ctx_train": 9999}}]})
    props = answer({"default_generation_settings": {"n_ctx": 4096}, "modalities": {"vision": False}})
    timings = {"cache_n": 30, "prompt_n": 10, "prompt_ms": 500.0, "predicted_n": 2, "predicted_ms": 250.0}
    progress = [{"total": 40, "cache": 30, "processed": n, "time_ms": n} for n in (30, 36, 40)]
    chunks = [{"choices": [], "prompt_progress": p} for p in progress]
    server = serve(
        stream(*chunks, "It ", "is.", piece("", "stop") | {"timings": timings}), v1_models=listing, props=props
    )
    engine = open_engine(server.url)
    engine.connect()
    assert (engine.info.context_tokens, engine.info.vision) == (4096, False)
    received = answered(engine)
    assert [(e.done, e.total) for e in received if hasattr(e, "done")] == [(0, 10), (6, 10), (10, 10)]
    stats = finished(received).stats
    assert (stats.prompt_tokens, stats.cached_tokens, stats.new_tokens, stats.generated_tokens) == (40, 30, 10, 2)
    assert (stats.prefill_s, stats.decode_s) == (0.5, 0.25)
    assert failed(answered(engine, "What is it?", draw("red"))) == "remote.no_vision"
    assert len(server.posts) == 1


def test_a_server_without_prefill_gets_no_prefill(serve: Serve, open_engine: Open, draw: Draw) -> None:
    server = serve(FINE)
    engine = open_engine(server.url)
    prompt = Prompt("", (Turn("user", "", (draw("red"),)),), "a", open_turn=True)
    assert run(engine.prefill(prompt))[-1] == Ready(Stats())
    assert server.posts == []
    assert text_of(answered(engine, "What is it?", draw("red"))) == "It is red."


def test_another_address_is_used_if_one_does_not_answer(serve: Serve, open_engine: Open) -> None:
    here = serve(FINE, v1_models=answer({"data": [{"id": "tiny", "context_length": 777}]}))
    before = serve(FINE, v1_models=answer({"data": [{"id": "tiny", "context_length": 555}]}))
    engine = open_engine("http://127.0.0.1:1", before.url, here.url)
    assert text_of(answered(engine)) == "It is red."
    assert engine.info.context_tokens == 555
    before.shutdown()
    before.server_close()
    assert text_of(answered(engine)) == "It is red."
    assert engine.info.context_tokens == 777, "knowledge about the other address is dropped"
    assert len(here.posts) == 1


def test_a_conversation_that_outgrows_the_servers_context_drops_its_oldest_turns(
    serve: Serve, open_engine: Open
) -> None:
    def act(connection: socket.socket) -> None:
        tokens = sum(len(m["content"]) for m in server.posts[-1]["messages"]) // 4
        if tokens > 512:
            connection.sendall(
                refusal("too long", code=400, type="exceed_context_size_error", n_prompt_tokens=tokens, n_ctx=512)
            )
        else:
            connection.sendall(FINE)

    server = serve(act)
    engine = open_engine(server.url)
    turns = tuple(Turn("user" if n % 2 == 0 else "assistant", f"word {n:02} " * 24) for n in range(21))
    received = run(engine.start(Prompt("Be kind.", turns, "a"), SHORT))
    assert text_of(received) == "It is red."
    assert [e.turns > 0 for e in received if isinstance(e, Dropped)] == [True]
    assert server.posts[-1]["messages"][-1]["content"] == turns[-1].text
    tries = len(server.posts)
    turns = (*turns, Turn("assistant", "It is red."), Turn("user", "And why?"))
    assert text_of(run(engine.start(Prompt("Be kind.", turns, "a"), SHORT))) == "It is red."
    assert len(server.posts) == tries + 1, "how the server counts is remembered"
    assert failed(run(engine.start(ask("word " * 1000), SHORT))) == "prompt.too_long"


def test_max_tokens_is_lowered_to_the_room_that_is_left(serve: Serve, open_engine: Open) -> None:
    message = (
        "This model's maximum context length is 512 tokens. However, you requested 900 tokens "
        "(400 in the messages, 500 in the completion)."
    )
    server = serve(refusal(message, code="context_length_exceeded"), FINE)
    received = run(open_engine(server.url).start(ask("Hello!"), Sampling(max_tokens=500)))
    assert isinstance(received[-1], Finished)
    assert [body["max_tokens"] for body in server.posts] == [500, 112]


def test_connections_are_reused_even_if_the_server_has_closed_them(serve: Serve, open_engine: Open) -> None:
    connections = []

    def act(connection: socket.socket) -> None:
        connection.sendall(FINE)
        connections.append(connection.getpeername())
        if connection.recv(1 << 20):
            connection.sendall(FINE)

    engine, before = open_engine(serve(act).url), {*threading.enumerate()}
    for _ in range(4):
        assert text_of(answered(engine)) == "It is red."
        asking_has_ended(before)
    assert len(connections) == 2


def test_a_hostile_error_event_has_json_values(serve: Serve, open_engine: Open) -> None:
    server = serve(
        stream({"error": {"message": "\x1b]0;gotcha\x07", "impchat": {"code": "no.such", "values": {"x": []}}}})
    )
    received = answered(open_engine(server.url))
    assert failed(received) == "remote.failed"
    json.dumps(received[-1].values)  # type: ignore[union-attr]


# Answers in other formats


def whole(message: object, finish_reason: str = "stop") -> bytes:
    """An answer that is not streamed."""
    return answer({"choices": [{"index": 0, "message": message, "finish_reason": finish_reason}]})


def delta(**fields: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


def sse(text: bytes) -> bytes:
    return response(body=text, kind="text/event-stream")


RED = [{"type": "text", "text": "It is "}, {"type": "text", "text": "red."}]
PLAIN = events("It is ", "red.", piece("", "stop"))
CALL = [{"index": 0, "id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}]
OPENING = json.dumps(delta(role="assistant", content=None)).encode()


@pytest.mark.parametrize(
    "act",
    [
        stream(delta(role="assistant", content=RED), piece("", "stop")),
        stream(delta(content=["It is ", "red."]), piece("", "stop")),
        stream(delta(content={"type": "text", "text": "It is red."}), piece("", "stop")),
        stream(delta(role="assistant", content=None), "It is ", "red.", piece("", "stop")),
        stream(delta(refusal="It is red."), piece("", "stop")),
        stream({"choices": [{"index": 0, "text": "It is red.", "finish_reason": None}]}),
        stream(delta(reasoning_content="A circle..."), "It is red."),
        stream(delta(tool_calls=CALL), "It is red."),
        stream("It is red.", {"choices": None, "usage": {"completion_tokens": 3}}),
        whole({"role": "assistant", "content": "It is red."}),
        whole({"role": "assistant", "content": RED}),
        whole({"role": "assistant", "content": None, "refusal": "It is red."}),
        response(body=b"\xef\xbb\xbf" + json.dumps(delta(content="It is red.")).encode()),
        response(body=json.dumps(delta(content="It is red.")).encode(), kind="text/plain"),
        response(body=json.dumps(delta(content="It is red.")).encode(), kind=""),
        sse(b"\xef\xbb\xbf" + PLAIN),
        sse(PLAIN.replace(b"\n", b"\r\n")),
        sse(PLAIN.replace(b"\n", b"\r")),
        sse(b": hello\n\n" + PLAIN.replace(b"\n\n", b"\n\n:\n\n: ping\n\n")),
        sse(b"event: message\nid: 1\nretry: 5\n" + PLAIN),
        sse(b"data:" + OPENING + b"\n\n" + PLAIN),
    ],
)
def test_the_text_is_found_in_every_format(serve: Serve, open_engine: Open, act: bytes) -> None:
    assert text_of(answered(open_engine(serve(act).url))) == "It is red."


def test_a_byte_order_mark_in_pieces_is_skipped(serve: Serve, open_engine: Open) -> None:
    def slowly(connection: socket.socket) -> None:
        connection.sendall(BEGIN)
        for byte in b"\xef\xbb\xbf" + PLAIN:
            connection.sendall(bytes([byte]))

    assert text_of(answered(open_engine(serve(slowly).url))) == "It is red."


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (stream(), "remote.no_words"),
        (stream(piece("", "stop")), "remote.no_words"),
        (stream("", " ", "\n", piece("", "stop")), "remote.no_words"),
        (stream(delta(role="assistant", content=None), piece("", "length")), "remote.no_words"),
        (stream({"choices": []}, {"choices": [], "usage": {"completion_tokens": 0}}), "remote.no_words"),
        (whole({"role": "assistant", "content": ""}), "remote.no_words"),
        (whole({"role": "assistant", "content": None}), "remote.no_words"),
        (whole({"role": "assistant", "content": []}), "remote.no_words"),
        (whole({"role": "assistant", "content": [{"type": "image", "image": "x"}]}), "remote.no_words"),
        (stream(delta(tool_calls=CALL), piece("", "tool_calls")), "remote.only_tools"),
        (stream(delta(function_call={"name": "look"}), piece("", "function_call")), "remote.only_tools"),
        (whole({"role": "assistant", "content": None, "tool_calls": CALL}, "tool_calls"), "remote.only_tools"),
        (stream(delta(reasoning_content="Hm."), piece("", "length")), "remote.only_thoughts"),
        (stream(delta(reasoning="Hm.", content=""), piece("", "stop")), "remote.only_thoughts"),
        (whole({"role": "assistant", "content": "", "reasoning_content": "Hm."}, "length"), "remote.only_thoughts"),
        (stream({"error": {"message": "CUDA error"}}), "remote.failed"),
        (stream({"error": "CUDA error"}), "remote.failed"),
        (stream({"object": "error", "message": "CUDA error", "code": 500}), "remote.failed"),
        (sse(b'event: error\ndata: {"detail": "CUDA error"}\n\n'), "remote.failed"),
        (stream({"id": "x"}), "remote.not_openai"),
    ],
)
def test_an_answer_without_text_is_reported_as_such(serve: Serve, open_engine: Open, act: bytes, code: str) -> None:
    received = answered(open_engine(serve(act).url))
    assert failed(received) == code and text_of(received).strip() == ""
    end = received[-1]
    assert isinstance(end, Failed)
    for language in texts.LANGUAGES:
        assert "127.0.0.1" in EngineError(end.code, **end.values).sentence(language)
        assert code != "remote.failed" or "CUDA error" in EngineError(end.code, **end.values).sentence(language)


def test_an_empty_answer_that_was_requested_is_no_error(serve: Serve, open_engine: Open) -> None:
    engine = open_engine(serve(stream(piece("", "stop"))).url)
    assert finished(run(engine.start(ask("What is it?"), replace(SHORT, stop=("It",))))).finish_reason == "stop"
    said = Prompt("", (Turn("user", "What is it?"), Turn("assistant", "It is red.")))
    assert finished(run(engine.start(said, SHORT))).finish_reason == "stop"


def test_after_a_stop_no_more_pictures_are_prepared(serve: Serve, open_engine: Open, draw: Draw) -> None:
    server = serve(FINE)
    engine = open_engine(server.url)
    looked_at: list[bytes] = []
    asked = threading.Event()

    class Watched(bytes):
        def startswith(self, *args: Any) -> bool:
            """Stop the request at the first access to a picture's bytes."""
            if self not in looked_at:
                looked_at.append(self)
            assert asked.wait(SECONDS)
            handle.stop()
            return super().startswith(*args)

    pictures = [replace(picture, data=Watched(picture.data)) for picture in map(draw, ("red", "blue", "green"))]
    before = {*threading.enumerate()}
    handle = engine.start(ask("?", *pictures), SHORT)
    asked.set()
    assert finished(run(handle)).finish_reason == "stopped"
    asking_has_ended(before)
    assert len(looked_at) == 1 and server.posts == []
