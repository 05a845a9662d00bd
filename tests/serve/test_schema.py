"""Schemathesis tests the API against its own OpenAPI document: every response must match the document."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from schemathesis.specs.openapi.schemas import OpenApiSchema

from impchat.app import App
from impchat.server.api.routes import build_api
from impchat.server.tokens import Access
from tests.serve.conftest import MODEL, Site

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]  # the schema cannot express all rules for pictures and model names

FRUGAL = settings(
    max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, str]]:
    """A server that requires tokens, and the token of a paired device."""
    data = tmp_path_factory.mktemp("data")
    with closing(Access(data)) as access:
        app = App.open(data)
        site = Site(app, build_api(app, access=access, token_needed=True))
        yield site, access.redeem(access.offer(), "phone")[1]
        site.close()


@pytest.fixture(scope="module")
def document(device: tuple[Site, str]) -> OpenApiSchema:
    site, token = device
    with site.client(headers={"authorization": f"Bearer {token}"}) as client:
        raw = client.get("/openapi.json").raise_for_status().json()
    del raw["paths"]["/pair"]["delete"]  # it would revoke the token that the other requests need; test_pairing tests it
    body = raw["paths"]["/conversations/{uuid}"]["put"]["requestBody"]
    body["content"] = {"application/octet-stream": body["content"]["application/zip"]}  # Schemathesis generates no zips
    models = raw["components"]["schemas"]
    models["ChatRequest"]["properties"]["model"]["enum"] = models["Question"]["properties"]["model"]["enum"] = [MODEL]
    models["ChatRequest"]["properties"]["max_tokens"] = {"type": "integer", "minimum": 1, "maximum": 4}
    loaded = schemathesis.openapi.from_dict(raw)
    loaded.config.update(base_url=site.url)
    return loaded


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
def test_every_response_matches_the_document(
    document: OpenApiSchema, device: tuple[Site, str], mode: GenerationMode
) -> None:
    headers = {"authorization": f"Bearer {device[1]}"}
    tried = []
    for found in document.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query):
            continue  # it has no parameters

        @FRUGAL
        @given(case=operation.as_strategy(generation_mode=mode))
        def holds(case: schemathesis.Case) -> None:
            case.call_and_validate(headers=headers, checks=CHECKS, timeout=30)

        holds()
        tried.append(operation.label)
    assert {"POST /v1/chat/completions", "POST /v1/images/prefill", "PUT /conversations/{uuid}"} <= set(tried)
