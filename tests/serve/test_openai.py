"""The API with OpenAI's official client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.serve.conftest import MODEL, SECONDS, Site, data_uri, drawing, question

RED, BLUE = data_uri(drawing("red")), data_uri(drawing("blue"))


@pytest.fixture(scope="module")
def client(site: Site) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{site.url}/v1", api_key="unused", timeout=SECONDS, max_retries=0) as made:
        yield made


def ask(client: openai.OpenAI, *messages: Any, **how: Any) -> Any:
    return client.chat.completions.create(model=MODEL, messages=list(messages), temperature=0, **how)


def test_the_model_is_listed_and_described(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


def test_a_question_about_a_picture_is_answered(client: openai.OpenAI) -> None:
    done = ask(client, question("What colour is the circle?", RED))
    assert "red" in done.choices[0].message.content.lower()
    assert done.choices[0].finish_reason == "stop"
    assert done.usage.prompt_tokens > 196
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens


def test_a_stream_gives_the_same_text_in_pieces_and_ends_with_usage(client: openai.OpenAI) -> None:
    whole = ask(client, question("Describe the picture.", BLUE))
    chunks = list(
        ask(client, question("Describe the picture.", BLUE), stream=True, stream_options={"include_usage": True})
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage is not None and chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_a_stream_contains_usage_only_on_request(client: openai.OpenAI) -> None:
    assert all(chunk.choices for chunk in ask(client, question("Hello!"), stream=True))


def test_a_later_turn_processes_only_its_own_tokens(client: openai.OpenAI) -> None:
    first = question("What colour is the circle?", data_uri(drawing("green")))
    one = ask(client, first)
    said = {"role": "assistant", "content": one.choices[0].message.content}
    two = ask(client, first, said, question("How many shapes are there?"))
    before = one.usage.prompt_tokens + one.usage.completion_tokens
    assert two.usage.prompt_tokens_details.cached_tokens >= before - 1
    assert "one" in two.choices[0].message.content.lower() or "1" in two.choices[0].message.content


def test_several_pictures_and_a_system_message_are_accepted(client: openai.OpenAI) -> None:
    one = ask(client, {"role": "system", "content": "Be brief."}, question("What is in the pictures?", RED))
    two = ask(client, {"role": "system", "content": "Be brief."}, question("What is in the pictures?", RED, BLUE))
    assert two.usage.prompt_tokens >= one.usage.prompt_tokens + 196
    bare = ask(client, {"role": "system", "content": ""}, question("What is in the pictures?", RED))
    assert bare.usage.prompt_tokens < one.usage.prompt_tokens


def test_length_stop_and_seed_have_their_effect(client: openai.OpenAI) -> None:
    asked = question("Describe the picture.", RED)
    short = ask(client, asked, max_tokens=2)
    assert (short.choices[0].finish_reason, short.usage.completion_tokens) == ("length", 2)
    assert ask(client, asked, max_completion_tokens=2).choices[0].message.content == short.choices[0].message.content
    whole = ask(client, asked).choices[0].message.content
    word = whole.split()[2]
    cut = ask(client, asked, stop=[word, "never said"])
    assert cut.choices[0].finish_reason == "stop"
    assert cut.choices[0].message.content == whole[: whole.index(word)]
    free = [
        client.chat.completions.create(model=MODEL, messages=[asked], temperature=2, top_p=1, seed=seed, extra_body={
            "top_k": 0, "min_p": 0}).choices[0].message.content
        for seed in (7, 7, 8)
    ]  # fmt: skip
    assert free[0] == free[1] != free[2]


@pytest.mark.parametrize(
    ("how", "status", "code"),
    [
        ({"model": "gpt-4o", "messages": [question("Hi")]}, 404, "model_not_found"),
        ({"messages": []}, 400, "invalid_request"),
        ({"messages": [question("Hi")], "temperature": 3}, 400, "invalid_request"),
        ({"messages": [question("Hi")], "n": 2}, 400, "invalid_request"),
        ({"messages": [question("Hi")], "logit_bias": {"7": 5}}, 400, "invalid_request"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, 400, "invalid_request"),
        ({"messages": [{"role": "assistant", "content": "Hello"}]}, 400, "invalid_messages"),
        ({"messages": [{"role": "system", "content": "Be brief."}]}, 400, "invalid_messages"),
        ({"messages": [question("word " * 5000)]}, 400, "context_length_exceeded"),
        ({"messages": [question("Hi", "data:image/png;base64,????")]}, 400, "request.image_address"),
        ({"messages": [question("Hi", data_uri(b"no picture"))]}, 400, "image.not_an_image"),
        ({"messages": [question("Hi", data_uri(drawing()[:300]))]}, 400, "image.truncated"),
        ({"messages": [question("Hi", "http://127.0.0.1:1/x.png")]}, 400, "request.no_fetching"),
        ({"messages": [question("Hi", "file:///etc/passwd")]}, 400, "request.image_address"),
        ({"messages": [question("Hi", *[RED] * 9)]}, 400, "question.too_many_images"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_invalid_request_raises_openais_error(
    client: openai.OpenAI, how: dict[str, Any], status: int, code: str, stream: bool
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(**({"model": MODEL, "stream": stream} | how))
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert caught.value.body["message"] and "type" in caught.value.body  # type: ignore[index]
