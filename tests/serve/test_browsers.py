"""Requests from browsers: pages of other sites, and addresses as clients build them."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from impchat.cli.main import main
from impchat.engines.remote.engine import RemoteEngine
from impchat.peers import servers
from impchat.server.api import routes as served
from impchat.server.tokens import Access
from tests.core.conformance import GREEDY, ask, run, text_of
from tests.core.scripted import ScriptedEngine
from tests.serve.conftest import MODEL, Serve, Site, asking, question
from tests.serve.test_command import impchat

SITE, OTHER = "https://chat.example.org", "https://evil.example.org"
CHAT = "/v1/chat/completions"


def preflight(origin: str) -> dict[str, str]:
    """The headers of the preflight request that a browser sends for a page of `origin`."""
    return {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-os",
    }


def test_a_page_of_another_site_has_access_only_if_it_was_allowed(serve: Serve) -> None:
    shut, open_to, to_all = serve(None), serve(None, origins=[SITE]), serve(None, origins=["*"])
    body = asking(question("Hello!"), max_tokens=2)
    with shut.client() as client:
        assert client.options(CHAT, headers=preflight(SITE)).status_code == 403
        refused = client.post(CHAT, json=body, headers={"origin": SITE})
        assert refused.status_code == 403 and f"--allow-origin {SITE}" in refused.json()["error"]["message"]
        assert "access-control-allow-origin" not in refused.headers
    with open_to.client() as client:
        asked = client.options(CHAT, headers=preflight(SITE))
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == SITE
        assert asked.headers["access-control-allow-credentials"] == "true"
        assert "authorization" in asked.headers["access-control-allow-headers"].lower()
        assert "x-stainless-os" in asked.headers["access-control-allow-headers"].lower()
        for stream in (False, True):
            response = client.post(CHAT, json=body | {"stream": stream}, headers={"origin": SITE})
            assert (response.status_code, response.headers["access-control-allow-origin"]) == (200, SITE)
        unknown = client.post(CHAT, json=body | {"model": "x"}, headers={"origin": SITE})
        assert (unknown.status_code, unknown.headers["access-control-allow-origin"]) == (404, SITE)
        for origin in (OTHER, "null", SITE.replace("https", "http"), f"{SITE}:8443", f"{SITE}.evil.example"):
            assert "access-control-allow-origin" not in client.options(CHAT, headers=preflight(origin)).headers
            refused = client.post(CHAT, json=body, headers={"origin": origin})
            assert refused.status_code == 403, origin
            assert "access-control-allow-origin" not in refused.headers
        rebound = client.post(CHAT, json=body, headers={"origin": SITE, "host": "rebound.example"})
        assert rebound.status_code == 403
        assert client.post(CHAT, json=body).status_code == 200
    with to_all.client() as client:
        response = client.post(CHAT, json=body, headers={"origin": OTHER})
        assert (response.status_code, response.headers["access-control-allow-origin"]) == (200, "*")
        assert "access-control-allow-credentials" not in response.headers
        assert client.post(CHAT, json=body, headers={"origin": OTHER, "host": "rebound.example"}).status_code == 403


def test_an_allowed_page_needs_a_token_if_one_is_required(serve: Serve, tmp_path: Path) -> None:
    with closing(Access(tmp_path / "data")) as access:
        site = serve(ScriptedEngine(), access=access, token_needed=True, origins=[SITE])
        with site.client(headers={"origin": SITE}) as client:
            refused = client.get("/v1/models")
            assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, SITE)
            mine = {"authorization": f"Bearer {access.create('page')[1]}"}
            assert client.get("/v1/models", headers=mine).status_code == 200
            assert client.options("/v1/models", headers=preflight(SITE)).status_code == 200


def test_origins_are_allowed_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = ("--allow-origin", "HTTPS://Chat.Example.org:443/", "--allow-origin", "http://localhost:3000")
    with impchat("--port", "0", *named, data=tmp_path) as said:
        [url] = re.findall(r"http\S+/v1", said)
        for origin, status in ((SITE, 200), ("http://localhost:3000", 200), ("http://localhost:3001", 403)):
            assert httpx.get(f"{url}/models", headers={"origin": origin}, trust_env=False).status_code == status
    for wrong in ("chat.example.org", "https://chat.example.org/app", "https://", "http://[::1", "http://x:y"):
        assert main(["serve", "--allow-origin", wrong, "--data", str(tmp_path), "--language", "en"]) == 2
        assert wrong in capsys.readouterr().err


@pytest.mark.parametrize("before", ["/v1", "", "//v1", "/v1/"])
@pytest.mark.parametrize("after", ["", "/"])
def test_addresses_with_extra_or_missing_slashes_work(site: Site, before: str, after: str) -> None:
    body = asking(question("Hello!"), max_tokens=2)
    with site.client(follow_redirects=False) as client:
        base = f"{site.url}{before}"
        assert client.get(f"{base}/models{after}").json()["data"][0]["id"] == MODEL
        assert client.get(f"{base}/models/{MODEL}{after}").json()["id"] == MODEL
        assert client.post(f"{base}/chat/completions{after}", json=body).status_code == 200
        assert client.post(f"{base}/images/prefill{after}", json=body).status_code == 200
        assert client.get(f"{base}/nothing{after}").status_code == 404
    with closing(RemoteEngine(servers.at(f"{site.url}/v1/"))) as engine:
        assert text_of(run(engine.start(ask("Hello!"), GREEDY)))


def test_every_get_route_answers_head_too(serve: Serve, tmp_path: Path) -> None:
    data = tmp_path / "data0"
    with closing(Access(tmp_path / "data")) as access:
        site = serve(None, access=access, token_needed=True)
        token = access.redeem(access.offer(), "phone")[1]
        (data / "apps").mkdir(parents=True)
        (data / "apps" / "impchat.apk").write_bytes(b"app")
        with site.client(headers={"authorization": f"Bearer {token}"}) as client:
            made = site.app.history.create_conversation("local")
            names = {
                "/v1/models/{model:path}": f"/v1/models/{MODEL}",
                "/bundles/{id}/{name}": f"/bundles/{MODEL}/impchat.json",
                "/app/{name}": "/app/impchat.apk",
                "/conversations/{uuid}": f"/conversations/{made.uuid}",
            }
            routes = [r for r in served.build_api(site.app, access=access).routes if "GET" in getattr(r, "methods", ())]
            paths = [names.get(r.path, r.path) for r in routes]  # type: ignore[attr-defined]
            assert {"/health", "/v1/models", "/metrics", "/openapi.json", "/bundles", *names.values()} <= {*paths}
            for path in paths:
                head, got = client.head(path), client.get(path)
                assert (head.status_code, got.status_code, head.content) == (200, 200, b""), path
                same = path != "/metrics"  # the metrics count the requests in between
                assert head.headers["content-type"] == got.headers["content-type"]
                assert not same or head.headers["content-length"] == got.headers["content-length"]
        with site.client() as client:
            assert client.head("/health").status_code == 200
            assert client.head("/v1/models").status_code == 401
            assert client.head("/app/impchat.apk").status_code == 200
