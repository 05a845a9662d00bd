"""Request bodies: which are accepted, and how an error names its place and its rule."""

from __future__ import annotations

import base64
import json
import socket
from typing import Any

import openai
import pytest

from impchat import settings
from tests.core.scripted import ScriptedEngine
from tests.serve.conftest import MODEL, SECONDS, Serve, Site, asking, data_uri, drawing, question, wait_until

RED = data_uri(drawing("red"))
HI = question("Hi")
CHAT = "/v1/chat/completions"


def parts(*content: Any) -> dict[str, Any]:
    """The body of a question with these parts."""
    return asking({"role": "user", "content": list(content)})


@pytest.mark.parametrize(
    ("body", "place", "rule"),
    [
        ([], "", "body must be an object."),
        (asking(HI) | {"model": 5}, "model", "must be a string."),
        ({"messages": [HI]}, "model", "is missing"),
        ({"model": MODEL}, "messages", "is missing"),
        (asking(), "messages", "must have at least 1 entry"),
        (asking(HI) | {"messages": "Hi"}, "messages", "must be a list."),
        (asking(HI) | {"messages": ["Hi"]}, "messages[0]", "must be an object."),
        (asking({"content": "Hi"}), "messages[0].role", "is missing"),
        (asking(HI, {"role": "tool", "content": "x"}), "messages[1].role", "system, developer, user, assistant."),
        (asking({"role": "user"}), "messages[0].content", "is missing"),
        (asking({"role": "user", "content": 7}), "messages[0].content", "must be a string or a list."),
        (asking({"role": "user", "content": None}), "messages[0].content", "must be a string or a list."),
        (asking({"role": "assistant", "content": {}}), "messages[0].content", "must be a string or a list."),
        (asking({"role": "system", "content": [{"type": "image_url", "image_url": RED}]}),
         "messages[0].content[0].type", "one of: text."),
        (parts({"type": "text", "text": "Hi"}, "Hi"), "messages[0].content[1]", "must be an object."),
        (parts({"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {}}),
         "messages[0].content[1].image_url.url", "is missing"),
        (parts({"type": "image_url"}), "messages[0].content[0].image_url", "is missing"),
        (parts({"type": "image_url", "image_url": 5}), "messages[0].content[0].image_url", "a string or an object."),
        (parts({"type": "image_url", "image_url": {"url": 5}}), "messages[0].content[0].image_url.url", "be a string."),
        (parts({"type": "input_audio"}), "messages[0].content[0].type", "one of: text, image_url."),
        (parts({"text": "Hi"}), "messages[0].content[0].type", "is missing"),
        (parts({"type": "text", "text": 5}), "messages[0].content[0].text", "must be a string."),
        (parts({"type": "text"}), "messages[0].content[0].text", "is missing"),
        (asking(HI, stop=["x"] * 17), "stop", "at most 16 entries"),
        (asking(HI, stop=["x", 5]), "stop[1]", "must be a string."),
        (asking(HI, stop=5), "stop", "must be a string or a list."),
        (asking(HI, stop="x" * 1001), "stop", "at most 1000 characters"),
        (asking(HI, temperature=2.5), "temperature", "must be 2.0 or less."),
        (asking(HI, temperature="0.5"), "temperature", "must be a number."),
        (asking(HI, max_tokens=0), "max_tokens", "must be 1 or more."),
        (asking(HI, max_tokens=1.5), "max_tokens", "must be a whole number."),
        (asking(HI, stream="yes"), "stream", "must be true or false."),
        (asking(HI, stream_options=[]), "stream_options", "must be an object."),
        (asking(HI, n=2), "n", "is not supported by this server"),
        (asking(HI, tools=[{}]), "tools", "is not supported by this server"),
        (asking(HI, response_format={"type": "json_object"}), "response_format", "is not supported by this server"),
        (asking(HI, prompt_cache_key=5), "prompt_cache_key", "must be a string."),
    ],
)  # fmt: skip
def test_an_error_names_its_place_and_its_rule_in_plain_words(site: Site, body: Any, place: str, rule: str) -> None:
    with site.client() as client:
        refused = client.post(CHAT, json=body)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"] or "") == (400, "invalid_request", place or "body")
    assert error["message"].startswith(place) and rule in error["message"], error["message"]
    assert len(error["message"]) < 120


def test_a_picture_is_accepted_in_every_form_of_its_url(site: Site) -> None:
    plain = base64.b64encode(drawing("red")).decode()
    lines = "\r\n".join(plain[at : at + 76] for at in range(0, len(plain), 76))
    safe = base64.urlsafe_b64encode(drawing("red")).decode()
    with site.client() as client:
        for data in (plain, plain.rstrip("="), lines, safe, safe.rstrip("=")):
            for address in (url := f"data:image/png;base64,{data}", {"url": url}):
                asked = parts(
                    {"type": "image_url", "image_url": address}, {"type": "text", "text": "What colour is it?"}
                )
                completion = client.post(CHAT, json=asked).raise_for_status().json()
                assert "red" in completion["choices"][0]["message"]["content"].lower()


@pytest.mark.parametrize("kind", [None, "application/x-www-form-urlencoded", "text/plain", "application/vnd.x+json"])
def test_json_is_accepted_whatever_its_content_type(site: Site, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    with site.client() as client:
        for path in (CHAT, "/v1/images/prefill"):
            body = json.dumps(asking(question("Hello!", RED)))
            assert client.post(path, content=body.encode(), headers=headers).status_code == 200
        assert client.post(CHAT, content="\ufeff" + body, headers=headers).status_code == 200
        refused = client.post(CHAT, content=b"model=x&messages=y", headers=headers)
    if kind == "application/vnd.x+json":
        assert refused.status_code == 400 and "line 1, column 1" in refused.json()["error"]["message"]
    else:
        assert refused.status_code == 415 and "Content-Type" in refused.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[" * 100_000, b'{"model": 1' + b"0" * 5000 + b"}", b""])
def test_invalid_json_is_refused_in_one_sentence(site: Site, body: bytes) -> None:
    with site.client() as client:
        refused = client.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert refused.status_code == 400 and "not JSON" in refused.json()["error"]["message"]


HALF = "Trip \ud83d"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (asking(HI, prompt_cache_key=HALF), 200),
        (asking(HI, user=HALF, metadata={HALF: HALF}), 200),
        (asking(HI, stop=HALF), 200),
        (asking(HI, stop=[HALF, "\udc00"]), 200),
        (asking(question(HALF)), 200),
        (asking({"role": "system", "content": HALF}, HI | {"name": HALF}, {"role": "assistant", "content": HALF}), 200),
        (asking(HI, model=HALF), 404),
        (asking({"role": HALF, "content": "x"}), 400),
        (asking({"role": "user", "content": [{"type": HALF}]}), 400),
        (asking(question("Hi", HALF)), 400),
        (asking(question("Hi", f"http://{HALF}.example/")), 400),
        ({HALF: HALF}, 400),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_lone_surrogate_breaks_nothing(site: Site, body: dict[str, Any], status: int, stream: bool) -> None:
    sent = json.dumps(body | {"stream": stream, "max_tokens": 3}).encode()
    with site.client() as client:
        assert client.post(CHAT, content=sent).status_code == status


def test_a_lone_surrogate_in_other_encodings_breaks_nothing(site: Site) -> None:
    body = asking(question("Hi"), prompt_cache_key="HALF", max_tokens=2)
    text = json.dumps(body)
    with site.client() as client:
        for sent, status in (
            (text.replace("HALF", "\ud83d").encode("utf-8", "surrogatepass"), 400),
            (text.replace("HALF", "\ud83d").encode("utf-16", "surrogatepass"), 400),
            (text.replace("HALF", "\\ud83d").encode("utf-16"), 200),
            (text.replace("HALF", "\\ud83d\\ude00").encode("utf-8-sig"), 200),
            (text.encode("utf-32"), 200),
        ):
            response = client.post(CHAT, content=sent, headers={"content-type": "application/json"})
            assert response.status_code == status, (sent[:40], response.text)


def test_a_lone_surrogate_in_headers_and_paths_breaks_nothing(site: Site) -> None:
    plain = b"GET /v1/models HTTP/1.1\r\n"
    for head in (
        b"GET /v1/models/%ED%A0%BD HTTP/1.1\r\n",
        plain + b"Authorization: Bearer \xed\xa0\xbd\r\n",
        plain + b"Origin: \xed\xa0\xbd\r\n",
    ):
        with socket.create_connection(("127.0.0.1", site.port), SECONDS) as connection:
            connection.sendall(head + b"Host: localhost\r\n\r\n")
            assert connection.recv(12)[9:10] in (b"2", b"4"), head


def test_text_too_long_for_any_model_is_refused_without_tokenising_it(serve: Serve) -> None:
    engine = ScriptedEngine()
    site, most = serve(engine), settings.MESSAGE_CHARS
    said = {"role": "assistant", "content": "y" * most}
    with site.client() as client:
        for messages, names in (
            ([question("x" * (most + 1))], "messages[0] has 262145 characters"),
            (
                [HI, {"role": "assistant", "content": [{"type": "text", "text": "x" * (most + 1)}]}, HI],
                "messages[1] has",
            ),
            ([question("x" * most), said] * 3, "1572864 characters together"),
        ):
            refused = client.post(CHAT, json=asking(*messages, model="scripted-1"))
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")
            assert names in refused.json()["error"]["message"]
        crowd = [HI] * (settings.MESSAGES + 1)
        assert client.post(CHAT, json=asking(*crowd, model="scripted-1")).json()["error"]["param"] == "messages"
        heap = asking({"role": "user", "content": [{"type": "text", "text": ""}] * 50_000}, model="scripted-1")
        assert "more than the 100000" in client.post(CHAT, json=heap).json()["error"]["message"]
    assert engine.idle()


def test_a_conversation_that_begins_with_a_greeting_is_answered(site: Site) -> None:
    greeting = {"role": "assistant", "content": "Hello! Show me a picture."}
    asked = question("What colour is the circle?", RED)
    with openai.OpenAI(base_url=f"{site.url}/v1", api_key="x", timeout=SECONDS, max_retries=0) as client:

        def ask(*messages: Any) -> str:
            made = client.chat.completions.create(model=MODEL, messages=list(messages), temperature=0)
            return str(made.choices[0].message.content)

        assert "red" in ask({"role": "system", "content": "Be brief."}, greeting, asked).lower()
        assert "red" in ask(greeting, greeting, asked).lower()


def test_an_answer_that_has_begun_is_continued(site: Site) -> None:
    asked = question("Describe the picture.", RED)
    with openai.OpenAI(base_url=f"{site.url}/v1", api_key="x", timeout=SECONDS, max_retries=0) as client:

        def ask(*messages: Any, **how: Any) -> Any:
            return client.chat.completions.create(model=MODEL, messages=list(messages), temperature=0, **how)

        whole = ask(asked).choices[0].message.content
        words = whole.split(" ")
        for count in (1, 3):
            begun = " ".join(words[:count])
            for beginning in (begun, begun + " "):
                continued = ask(asked, {"role": "assistant", "content": beginning})
                assert beginning + continued.choices[0].message.content == whole
                assert continued.usage.completion_tokens < ask(asked).usage.completion_tokens
        cut = ask(asked, max_tokens=4)
        assert cut.choices[0].finish_reason == "length"
        rest = ask(asked, {"role": "assistant", "content": cut.choices[0].message.content}, stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in rest)
        assert cut.choices[0].message.content + text == whole
        over = ask(asked, {"role": "assistant", "content": whole})
        assert over.choices[0].finish_reason == "stop" and over.choices[0].message.content == ""


def test_a_client_that_disconnects_while_sending_is_no_server_error(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with site.client() as client:
        for path in (CHAT, "/v1/images/prefill"):
            with socket.create_connection(("127.0.0.1", site.port), SECONDS) as connection:
                connection.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{{".encode())
        wait_until(lambda: client.get("/health").status_code == 200)
    assert not caplog.records
