"""Pictures fetched from URLs: off by default, and never from this machine or its network."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from impchat.errors import RequestError
from impchat.server.fetch import Fetcher, is_public
from tests.serve.conftest import Serve, asking, drawing, question


class Pictures(BaseHTTPRequestHandler):
    """A web server with pictures and hostile redirects. It records the requested hosts and paths."""

    asked: list[str]
    targets: dict[str, str]

    def do_GET(self) -> None:
        self.asked.append(f"{self.headers['host']}{self.path}")
        if self.path in self.targets:
            self.send_response(302)
            if self.targets[self.path]:
                self.send_header("location", self.targets[self.path])
            self.end_headers()
        elif self.path == "/picture.png":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(drawing())
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[ThreadingHTTPServer]:
    handler = type("Handler", (Pictures,), {"asked": [], "targets": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


NAMES = {"pictures.example": ["127.0.0.1"], "inside.example": ["127.0.0.2"], "both.example": ["127.0.0.1", "10.0.0.1"]}


def resolver(host: str) -> list[str]:
    """A resolver in which 127.0.0.1 is a public address and all other names are internal."""
    return NAMES.get(host, [host])


def fetcher() -> Fetcher:
    return Fetcher(resolver, lambda address: str(address) == "127.0.0.1")


def test_a_picture_is_fetched_from_the_address_that_was_checked(web: ThreadingHTTPServer) -> None:
    port = web.server_port
    assert fetcher()(f"http://pictures.example:{port}/picture.png") == drawing()
    assert web.RequestHandlerClass.asked == [f"pictures.example:{port}/picture.png"]  # type: ignore[attr-defined]


def test_a_redirect_is_followed_and_checked_again(web: ThreadingHTTPServer) -> None:
    base = f"http://pictures.example:{web.server_port}"
    web.RequestHandlerClass.targets |= {  # type: ignore[attr-defined]
        "/moved": "/picture.png",
        "/inside": f"http://inside.example:{web.server_port}/picture.png",
        "/literal": f"http://127.0.0.2:{web.server_port}/picture.png",
        "/file": "file:///etc/passwd",
        "/loop": "/loop",
        "/nowhere": "",
    }
    assert fetcher()(f"{base}/moved") == drawing()
    barred, failed = ("inside", "literal", "file"), ("loop", "nowhere")
    for path, code in [(path, "barred") for path in barred] + [(path, "failed") for path in failed]:
        with pytest.raises(RequestError) as caught:
            fetcher()(f"{base}/{path}")
        assert caught.value.code == f"request.fetch_{code}", path
    assert not any("inside" in asked.split("/")[0] for asked in web.RequestHandlerClass.asked)  # type: ignore[attr-defined]


def test_a_name_with_any_internal_address_is_blocked(web: ThreadingHTTPServer) -> None:
    with pytest.raises(RequestError, match="public internet"):
        fetcher()(f"http://both.example:{web.server_port}/picture.png")
    assert web.RequestHandlerClass.asked == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
     "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
     "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "::7f00:1", "fec0::1", "2002:7f00:1::",
     "2001:0:7f00:1::"],
)  # fmt: skip
def test_addresses_outside_the_public_internet_are_blocked(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


def test_the_public_internet_is_not_blocked() -> None:
    for address in ("93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:93.184.216.34"):
        assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "http://localhost/x", "http://2130706433/x", "http://0x7f.1/x",
                                 "http://[::1]/x", "http://[::ffff:127.0.0.1]/x", "http://u@localhost/x"])  # fmt: skip
def test_every_form_of_a_loopback_address_is_blocked(url: str) -> None:
    with pytest.raises(RequestError) as caught:
        Fetcher()(url)
    assert caught.value.code == "request.fetch_barred"


def test_a_request_can_contain_a_url_if_fetching_is_enabled(serve: Serve, web: ThreadingHTTPServer) -> None:
    site = serve(fetch=fetcher())
    url = f"http://pictures.example:{web.server_port}"
    with site.client() as client:
        good = client.post("/v1/chat/completions", json=asking(question("What colour?", f"{url}/picture.png")))
        assert "red" in good.json()["choices"][0]["message"]["content"].lower()
        for path in (f"{url}/nothing", f"http://inside.example:{web.server_port}/picture.png"):
            assert client.post("/v1/chat/completions", json=asking(question("Hi", path))).status_code == 400
