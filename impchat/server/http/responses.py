"""The response models of the API, for its OpenAPI document.

In: nothing. Out: models of the JSON that `schemas`, `routes` and `devices` write. This file does not know how it is
computed.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class Sampling(BaseModel):
    """The sampling values recommended for the model, which are the defaults of a request."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repeat_penalty: float
    max_tokens: int


class Model(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    context_length: int
    image_tokens: int
    input_modalities: list[str]
    sampling: Sampling
    demo: bool
    unverified: bool


class Models(BaseModel):
    object: Literal["list"]
    data: list[Model]


class CachedTokens(BaseModel):
    cached_tokens: int


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class Receipt(BaseModel):
    """The fields of `messages.Stats` and, if the conversation exceeded the context, of `messages.Dropped`."""

    stats: dict[str, float]
    dropped: dict[str, int] | None


class Answer(BaseModel):
    role: Literal["assistant"]
    content: str
    refusal: None


class Choice(BaseModel):
    index: int
    message: Answer
    logprobs: None
    finish_reason: Literal["stop", "length"]


class Completion(BaseModel):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    impchat: Receipt


class Prefilled(BaseModel):
    object: Literal["image.prefill"]
    model: str
    usage: Usage
    impchat: Receipt


class Health(BaseModel):
    status: Literal["ok"]
    model: str


class Paired(BaseModel):
    id: str
    name: str
    model: str
    device: str
    token: str


class BundleFile(BaseModel):
    name: str
    bytes: int
    sha256: str


class Bundle(BaseModel):
    id: str
    name: str
    licence: str
    demo: bool
    files: list[BundleFile]


class Bundles(BaseModel):
    bundles: list[Bundle]


class Conversation(BaseModel):
    uuid: str
    title: str
    updated_utc: str


class Conversations(BaseModel):
    conversations: list[Conversation]


class HandedOver(BaseModel):
    uuid: str
