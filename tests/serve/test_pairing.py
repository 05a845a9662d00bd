"""Pairing from end to end: a real TLS server on loopback, and the device's half of the core."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from impchat import pairing, servers
from impchat.app import App
from impchat.errors import RequestError, SettingsError
from impchat.pairing import Found, Link
from impchat.server import lan, listen, listening, tls
from impchat.server.access import Access
from impchat.server.api import build_api
from impchat.server.lan import Card
from impchat.server.mdns import Announcement
from tests.serve.conftest import MODEL, Site, asking, question


class Home:
    """A server that devices reach by TLS."""

    def __init__(self, data: Path) -> None:
        self.access = Access(data)
        self.certificate = tls.certificate(data, [])
        app = App.open(data)
        api = build_api(app, access=self.access, token_needed=True)
        how = {"ssl_certfile": str(self.certificate.certificate), "ssl_keyfile": str(self.certificate.key)}
        self.site = Site(app, api, **how)
        self.place = f"127.0.0.1:{self.site.port}"

    def link(self, *before: str) -> Link:
        return Link((*before, self.place), self.access.offer(), self.certificate.fingerprint)

    def close(self) -> None:
        self.site.close()
        self.access.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    opened = Home(tmp_path_factory.mktemp("home"))
    yield opened
    opened.close()


def refused(link: Link) -> str:
    with pytest.raises(RequestError) as caught:
        pairing.pair(link, "phone")
    return caught.value.code


def test_a_device_pairs_and_asks_and_is_revoked(home: Home) -> None:
    server = pairing.pair(Link.read(str(home.link())), "Anna's phone")
    assert (server.id, server.model) == (home.access.server, MODEL)
    assert server.urls == (f"https://{home.place}/v1",)
    with httpx.Client(
        verify=servers.trust(server.certificate), headers={"authorization": f"Bearer {server.key}"}, trust_env=False
    ) as client:
        body = asking(question("Hello!"))
        assert client.post(f"{server.urls[0]}/chat/completions", json=body).status_code == 200
        home.access.revoke("Anna's phone")
        assert client.post(f"{server.urls[0]}/chat/completions", json=body).status_code == 401


def test_a_device_can_give_its_token_up(home: Home) -> None:
    server = pairing.pair(home.link(), "leaving")
    with home.site.client(verify=servers.trust(server.certificate)) as client:
        mine = {"authorization": f"Bearer {server.key}"}
        assert client.delete("/pair", headers=mine).status_code == 204
        assert client.delete("/pair", headers=mine).status_code == 401
    assert "leaving" not in [holder.name for holder in home.access.holders()]


def test_a_code_is_good_for_one_device(home: Home) -> None:
    link = home.link()
    pairing.pair(link, "first")
    assert refused(link) == "pair.code"


def test_an_expired_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impchat.settings.PAIR_CODE_S", 0)
    with closing(Home(tmp_path)) as opened:
        assert refused(opened.link()) == "pair.code"


def test_a_server_with_another_certificate_is_told_nothing(home: Home, tmp_path: Path) -> None:
    link = home.link()
    other = tls.certificate(tmp_path, [])
    assert refused(Link(link.places, link.code, other.fingerprint)) == "pair.stranger"
    assert home.access.code(link.code).state == "open"


def test_who_shows_the_right_certificate_without_its_key_is_told_nothing(home: Home, tmp_path: Path) -> None:
    """A man in the middle can show the certificate, for anybody can fetch it."""
    link = home.link()
    own = tls.certificate(tmp_path, [])
    heard: list[bytes] = []

    def stranger(listener: socket.socket) -> None:
        for shown in (home.certificate, own):  # first the true one, as a relay would pass it on; then its own
            connection, _ = listener.accept()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(shown.certificate, shown.key)
            try:
                with context.wrap_socket(connection, server_side=True) as spoken:
                    heard.append(spoken.recv(1000))
            except OSError:
                connection.close()

    with listen.bind("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=stranger, args=(listener,))
        thread.start()
        place = f"127.0.0.1:{listener.getsockname()[1]}"
        assert refused(Link((place,), link.code, link.fingerprint)) == "pair.stranger"
        thread.join(20)
    assert not any(link.code.encode() in words for words in heard)


def test_the_addresses_are_tried_until_one_proves_itself(home: Home, tmp_path: Path) -> None:
    with listen.bind("127.0.0.1", 0) as bound:
        silent = f"127.0.0.1:{bound.getsockname()[1]}"
    server = pairing.pair(home.link(silent), "patient")  # nobody listens there any more
    assert server.urls == (f"https://{home.place}/v1", f"https://{silent}/v1")
    assert refused(Link((silent,), "0000-0000", home.certificate.fingerprint)) == "pair.unreachable"


def test_plain_http_pairs_where_the_link_says_so(tmp_path: Path) -> None:
    app = App.open(tmp_path)
    with closing(Access(tmp_path)) as access:
        site = Site(app, build_api(app, access=access, token_needed=True))
        link = Link((f"127.0.0.1:{site.port}",), access.offer(), "")
        assert link.is_plain and Link.read(str(link)) == Link(link.places, link.code.replace("-", ""), "")
        server = pairing.pair(link, "careless")
        assert (server.urls, server.certificate) == ((f"http://127.0.0.1:{site.port}/v1",), None)
        site.close()


@pytest.mark.parametrize(
    "text",
    ["", "https://pair?a=1.2.3.4:1&c=X", "impchat://pair", "impchat://pair?a=1.2.3.4&c=X", "impchat://pair?a=1.2.3.4:1",
     "impchat://pair?a=1.2.3.4:1&c=X&f=short", "impchat://else?a=1.2.3.4:1&c=X", "impchat://pair?a=[::1&c=X"],
)  # fmt: skip
def test_what_is_no_link_is_refused(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        Link.read(text)
    assert caught.value.code == "pair.link"


def test_a_link_is_short_and_says_the_same_when_it_is_read() -> None:
    link = Link(("192.168.1.20:7861", "[fd00::5]:7861"), "ABCD2345", "ab" * 32)
    assert Link.read(f" {link}\n") == link
    assert len(str(link)) < 120


# The certificate


def test_the_certificate_is_made_once_and_its_key_is_its_owners_alone(tmp_path: Path) -> None:
    one, two = tls.certificate(tmp_path, ["192.168.1.20"]), tls.certificate(tmp_path, ["10.0.0.1"])
    assert one.pem == two.pem
    assert one.key.stat().st_mode & 0o77 == 0
    assert len(one.fingerprint) == 64


def test_the_strictest_verification_accepts_it_as_the_only_anchor_and_no_other(home: Home, tmp_path: Path) -> None:
    """Newer Pythons, as on phones, verify strictly by default."""
    for context in (servers.trust(home.certificate.pem), ssl.create_default_context(cadata=home.certificate.pem)):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        with home.site.client(verify=context) as client:  # the second one looks at names too
            assert client.get("/health").status_code == 200
    other = tls.certificate(tmp_path, [])
    for stranger in (servers.trust(other.pem), ssl.create_default_context()):
        with home.site.client(verify=stranger) as client, pytest.raises(httpx.ConnectError):
            client.get("/health")


# Addresses

CARDS = [
    Card("lo", "127.0.0.1"), Card("docker0", "172.17.0.1"), Card("tailscale0", "100.100.1.2"), Card("wg0", "10.9.0.2"),
    Card("wlan0", "192.168.1.20"), Card("wlan0", "fe80::1%wlan0"), Card("wlan0", "fd00::5"), Card("e0", "169.254.1.1"),
    Card("eth1", "100.70.1.1"), Card("br-12ab", "172.18.0.1"),
]  # fmt: skip


def test_a_link_names_every_address_that_is_listened_on_and_the_likeliest_first() -> None:
    apart = ["172.17.0.1", "100.100.1.2", "10.9.0.2", "100.70.1.1", "172.18.0.1"]
    assert lan.addresses("0.0.0.0", CARDS) == ["192.168.1.20", *apart]
    assert lan.addresses("::", CARDS) == ["192.168.1.20", "fd00::5", *apart]
    assert lan.addresses("192.168.1.20", CARDS) == ["192.168.1.20"]
    assert lan.addresses("127.0.0.1", CARDS) == lan.addresses("::1", CARDS) == []


def test_this_machines_cards_are_found() -> None:
    assert "127.0.0.1" in [card.address for card in lan.cards()]


def test_a_link_is_made_for_what_listens_beyond_this_machine_and_while_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lan, "cards", lambda: CARDS)
    with closing(Access(tmp_path)) as access:
        with listening.told(tmp_path, listening.Listening("127.0.0.1", 7861, "")), pytest.raises(SettingsError):
            listening.offer(tmp_path, access)
        with listening.told(tmp_path, listening.Listening("0.0.0.0", 7862, "ab" * 32)):
            link = listening.offer(tmp_path, access)
            assert link.places[0] == "192.168.1.20:7862"
            assert access.code(link.code).state == "open"
        with pytest.raises(SettingsError, match="--listen"):
            listening.offer(tmp_path, access)


def test_a_phone_lists_the_servers_around_it() -> None:
    here = ["127.0.0.1"]
    with closing(Announcement("0123456789abcdef", "desk of Anna", here, 7861, {"scheme": "https"})):
        assert Found("0123456789abcdef", "desk of Anna", ("127.0.0.1:7861",)) in pairing.discover(2.0, here)


def test_two_servers_of_one_data_folder_are_both_listed() -> None:
    """The page's door and `impchat serve`, say."""
    here = ["127.0.0.1"]
    with (
        closing(Announcement("fedcba9876543210", "desk", here, 7861, {})),
        closing(Announcement("fedcba9876543210", "desk", here, 7862, {})),
    ):
        found = {one.places for one in pairing.discover(2.0, here) if one.id == "fedcba9876543210"}
    assert found == {("127.0.0.1:7861",), ("127.0.0.1:7862",)}
