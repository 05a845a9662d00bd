"""Probing a server: which models it has and what they support.

In: a connection, an address, the name of a model. Out: `ServerInfo`, valid for that address only. A server that reports
nothing, or invalid values, is not an error: many servers answer well and list nothing.
This file does not know how answers are requested.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from impchat import settings
from impchat.engines import check_sampling
from impchat.engines.remote import protocol
from impchat.engines.remote.connection import Connection
from impchat.errors import EngineError, SettingsError
from impchat.messages import Sampling

# The fields in which servers report the context length: ImpChat and OpenRouter, vLLM, Mistral, LM Studio
_CONTEXT = ("context_length", "max_model_len", "max_context_length", "loaded_context_length")


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What is known about the server at `url`."""

    url: str
    listed: bool = False  # it lists its models
    models: tuple[str, ...] = ()
    own: bool = False  # it is an ImpChat server
    context_tokens: int = 0  # 0: unknown
    image_tokens: int = 0  # per picture; 0: unknown
    vision: bool = True  # assumed, unless the server says otherwise
    sampling: Sampling = field(default_factory=Sampling)
    unverified: bool = False  # only ImpChat servers report it


def probe(connection: Connection, url: str, model: str) -> ServerInfo:
    """Query the server whose API is at `url` about itself and about `model` ("": the first one it lists).

    Raises EngineError with a code in `connection.NOT_REACHED` if nothing answers there, "remote.key_wrong" or
    "remote.key_missing" if the key is rejected."""
    entries = _entries(_get(connection, url, "/models"))
    if entries is None:
        return ServerInfo(url)
    names = tuple(str(entry["id"]) for entry in entries)
    entry = next((e for e in entries if e["id"] == model), entries[0] if entries and not model else {})
    owner = entry.get("owned_by")
    context = next((n for name in _CONTEXT if (n := _count(entry.get(name)))), 0)
    vision = _sees(entry)
    if owner == "llamacpp":
        props = _get(connection, url.removesuffix("/v1"), "/props")
        context = _count(_dict(_dict(props).get("default_generation_settings")).get("n_ctx")) or context
        vision = _dict(_dict(props).get("modalities")).get("vision") is not False
    sampling = _sampling(_dict(entry.get("sampling")))
    own, unverified = owner == "impchat", entry.get("unverified") is True
    return ServerInfo(url, True, names, own, context, _count(entry.get("image_tokens")), vision, sampling, unverified)


def _get(connection: Connection, url: str, path: str) -> Any:
    """The JSON at `path` under `url`, or None."""
    try:
        with connection.send("GET", url, path, silence_s=settings.REMOTE_PROBE_S) as reply:
            if reply.status == 200:
                return reply.json()
            refused = protocol.refusal(reply.status, reply.headers, reply.body())
    except EngineError as exc:
        if exc.code in ("remote.not_openai", "remote.silent", "remote.hung_up"):
            return None
        raise
    if refused.status in (401, 403):
        raise protocol.failure(refused, url, "", (), keyed=connection.keyed, pictures=False)
    return None


def _entries(listing: Any) -> list[dict[str, Any]] | None:
    data = listing.get("data") if isinstance(listing, dict) else None
    if not isinstance(data, list):
        return None
    return [entry for entry in data if isinstance(entry, dict) and isinstance(entry.get("id"), str)]


def _sees(entry: Mapping[str, Any]) -> bool:
    """Whether the model accepts pictures. Servers report this in several ways."""
    modalities = entry.get("input_modalities", _dict(entry.get("architecture")).get("input_modalities"))
    if isinstance(modalities, Iterable) and not isinstance(modalities, str):
        return "image" in modalities
    capabilities = entry.get("capabilities")
    said = entry.get("vision", _dict(capabilities).get("vision"))
    return said is not False


def _sampling(said: Mapping[str, Any]) -> Sampling:
    """The sampling recommended for the model. Defaults replace missing values, and all values if any is invalid."""
    numbers: dict[str, Any] = {
        name: value
        for name, value in said.items()
        if name in settings.SAMPLING_RANGES and isinstance(value, int | float)
    }
    sampling = Sampling(**numbers)
    try:
        check_sampling(sampling)
    except SettingsError:
        return Sampling()
    return sampling


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31 else 0
