"""Pairing from end to end: a real TLS server on loopback, and the device's part of the core."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from impchat.app import App
from impchat.engines import Engine
from impchat.errors import RequestError, SettingsError
from impchat.peers import pairing, servers
from impchat.peers.pairing import Link
from impchat.server.api.routes import build_api
from impchat.server.network import interfaces, registry, sockets, tls
from impchat.server.network.interfaces import Interface
from impchat.server.tokens import Access
from tests.serve.conftest import MODEL, Site, asking, question


class Home:
    """A server that devices reach by TLS."""

    def __init__(self, data: Path, engine: Engine | None = None) -> None:
        self.access = Access(data)
        self.certificate = tls.certificate(data, [])
        app = App.open(data, engine=engine)
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


def test_a_device_can_revoke_its_token(home: Home) -> None:
    server = pairing.pair(home.link(), "leaving")
    with home.site.client(verify=servers.trust(server.certificate)) as client:
        mine = {"authorization": f"Bearer {server.key}"}
        assert client.delete("/pair", headers=mine).status_code == 204
        assert client.delete("/pair", headers=mine).status_code == 401
    assert "leaving" not in [holder.name for holder in home.access.holders()]


def test_a_code_is_valid_for_one_device(home: Home) -> None:
    link = home.link()
    pairing.pair(link, "first")
    assert refused(link) == "pair.code"


def test_an_expired_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impchat.settings.PAIR_CODE_S", 0)
    with closing(Home(tmp_path)) as opened:
        assert refused(opened.link()) == "pair.code"


def test_a_server_with_another_certificate_is_sent_nothing(home: Home, tmp_path: Path) -> None:
    link = home.link()
    other = tls.certificate(tmp_path, [])
    assert refused(Link(link.places, link.code, other.fingerprint)) == "pair.stranger"
    assert home.access.code(link.code).state == "open"


def test_a_server_with_the_right_certificate_but_without_its_key_is_sent_nothing(home: Home, tmp_path: Path) -> None:
    """A man in the middle can present the certificate, because anybody can fetch it."""
    link = home.link()
    own = tls.certificate(tmp_path, [])
    heard: list[bytes] = []

    def stranger(listener: socket.socket) -> None:
        for shown in (home.certificate, own):  # first the real certificate, as a relay would present it, then its own
            connection, _ = listener.accept()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(shown.certificate, shown.key)
            try:
                with context.wrap_socket(connection, server_side=True) as spoken:
                    heard.append(spoken.recv(1000))
            except OSError:
                connection.close()

    with sockets.bind("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=stranger, args=(listener,))
        thread.start()
        place = f"127.0.0.1:{listener.getsockname()[1]}"
        assert refused(Link((place,), link.code, link.fingerprint)) == "pair.stranger"
        thread.join(20)
    assert not any(link.code.encode() in words for words in heard)


def test_addresses_are_tried_until_one_has_the_right_certificate(home: Home, tmp_path: Path) -> None:
    with sockets.bind("127.0.0.1", 0) as bound:
        silent = f"127.0.0.1:{bound.getsockname()[1]}"
    server = pairing.pair(home.link(silent), "patient")  # nothing listens there any more
    assert server.urls == (f"https://{home.place}/v1", f"https://{silent}/v1")
    assert refused(Link((silent,), "0000-0000", home.certificate.fingerprint)) == "pair.unreachable"


def test_pairing_over_plain_http_works_if_the_link_says_so(tmp_path: Path) -> None:
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
def test_an_invalid_link_is_refused(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        Link.read(text)
    assert caught.value.code == "pair.link"


def test_a_link_is_short_and_can_be_parsed_again() -> None:
    link = Link(("192.168.1.20:7861", "[fd00::5]:7861"), "ABCD2345", "ab" * 32)
    assert Link.read(f" {link}\n") == link
    assert len(str(link)) < 120


# A typed code instead of a scanned link


def met(place: str, code: str = "ABCD-2345") -> str:
    with pytest.raises(RequestError) as caught:
        pairing.meet([place], code)
    return caught.value.code


def test_a_typed_code_pairs_with_the_certificate_whose_check_code_was_compared(home: Home) -> None:
    shown = home.link()
    typed = pairing.meet([home.place], f" {shown.code.lower()} ".replace("0", "o"))
    assert (typed.fingerprint, typed.check) == (shown.fingerprint, shown.check)
    assert home.access.code(shown.code).state == "open", "the code is not sent before the comparison"
    assert pairing.pair(typed, "typist").certificate == home.certificate.pem


def test_the_check_code_is_80_bits_of_the_fingerprint_in_unambiguous_letters() -> None:
    link = Link(("1.2.3.4:1",), "ABCD2345", "00443214c74254b635cf" + 44 * "f")
    assert link.check == "0123 4567 89AB CDEF"
    assert Link(link.places, link.code, "ff" * 32).check == "ZZZZ ZZZZ ZZZZ ZZZZ"
    checks = {Link(link.places, link.code, f"{1 << bit:020x}{44 * 'f'}").check for bit in range(80)}
    assert len(checks) == 80 and not set("ILOU") & set("".join(checks))


def test_a_man_in_the_middle_shows_another_check_code_and_gets_nothing_after_a_refusal(
    home: Home, tmp_path: Path
) -> None:
    other = Home(tmp_path)
    shown = home.link()
    assert pairing.meet([other.place], shown.code).check != shown.check
    assert home.access.code(shown.code).state == "open"
    other.close()


def test_each_failure_of_typing_has_its_own_sentence(home: Home) -> None:
    with sockets.bind("127.0.0.1", 0) as bound:
        silent = f"127.0.0.1:{bound.getsockname()[1]}"
    assert met(silent) == "pair.nobody"
    assert met("no-such-machine.invalid:7861") == "pair.nobody"
    assert met("a b:7861") == "pair.nobody"
    assert met(home.place, "ABCD-23") == met(home.place, "ABCD-23!5") == met(home.place, "") == "pair.code_form"
    link = pairing.meet([home.place], "0000-0000")
    assert refused(link) == "pair.code"


@pytest.mark.parametrize(
    "says",
    [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"status\":\"ok\"}",
     b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]", b""],
)  # fmt: skip
def test_another_service_at_the_port_is_reported_as_such(says: bytes) -> None:
    def serve(listener: socket.socket) -> None:
        for _ in range(2):  # one connection for the certificate, one for its health
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(says)

    with sockets.bind("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        assert met(f"127.0.0.1:{listener.getsockname()[1]}") == "pair.else"
        thread.join(20)


def test_a_server_without_tls_gives_a_warning(tmp_path: Path) -> None:
    app = App.open(tmp_path)
    with closing(Access(tmp_path)) as access:
        site = Site(app, build_api(app, access=access, token_needed=True))
        link = pairing.meet([f"127.0.0.1:{site.port}"], access.offer())
        assert (link.is_plain, link.check) == (True, "")
        assert pairing.pair(link, "careless").certificate is None
        site.close()


@pytest.mark.parametrize(
    ("typed", "place"),
    [("192.168.1.5:7000", "192.168.1.5:7000"), (" 192.168.1.5 ", "192.168.1.5:7861"), ("desk.local", "desk.local:7861"),
     ("https://192.168.1.5:7861/", "192.168.1.5:7861"), ("[fd00::5]:7000", "[fd00::5]:7000")],
)  # fmt: skip
def test_addresses_are_accepted_in_the_forms_people_type(typed: str, place: str) -> None:
    assert pairing.place_of(typed) == place


@pytest.mark.parametrize("typed", ["", "192.168.1.5:port", "ftp://192.168.1.5", "me:secret@192.168.1.5", "two words"])
def test_an_invalid_address_is_refused(typed: str) -> None:
    with pytest.raises(RequestError) as caught:
        pairing.place_of(typed)
    assert caught.value.code == "pair.address"


# The certificate


def test_the_certificate_is_created_once_and_its_key_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    one, two = tls.certificate(tmp_path, ["192.168.1.20"]), tls.certificate(tmp_path, ["10.0.0.1"])
    assert one.pem == two.pem
    assert one.key.stat().st_mode & 0o77 == 0
    assert len(one.fingerprint) == 64


def test_strict_verification_accepts_it_as_the_only_trust_anchor_and_no_other(home: Home, tmp_path: Path) -> None:
    """Newer Python versions, as on phones, verify strictly by default."""
    for context in (servers.trust(home.certificate.pem), ssl.create_default_context(cadata=home.certificate.pem)):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        with home.site.client(verify=context) as client:  # the second context checks names too
            assert client.get("/health").status_code == 200
    other = tls.certificate(tmp_path, [])
    for stranger in (servers.trust(other.pem), ssl.create_default_context()):
        with home.site.client(verify=stranger) as client, pytest.raises(httpx.ConnectError):
            client.get("/health")


# Addresses

CARDS = [
    Interface("lo", "127.0.0.1"), Interface("docker0", "172.17.0.1"),
    Interface("tailscale0", "100.100.1.2"), Interface("wg0", "10.9.0.2"),
    Interface("wlan0", "192.168.1.20"), Interface("wlan0", "fe80::1%wlan0"),
    Interface("wlan0", "fd00::5"), Interface("e0", "169.254.1.1"),
    Interface("eth1", "100.70.1.1"), Interface("br-12ab", "172.18.0.1"),
]  # fmt: skip


def test_a_link_contains_every_listening_address_with_the_likeliest_first() -> None:
    apart = ["172.17.0.1", "100.100.1.2", "10.9.0.2", "100.70.1.1", "172.18.0.1"]
    assert interfaces.addresses("0.0.0.0", CARDS) == ["192.168.1.20", *apart]
    assert interfaces.addresses("::", CARDS) == ["192.168.1.20", "fd00::5", *apart]
    assert interfaces.addresses("192.168.1.20", CARDS) == ["192.168.1.20"]
    assert interfaces.addresses("127.0.0.1", CARDS) == interfaces.addresses("::1", CARDS) == []


def test_this_machines_network_interfaces_are_found() -> None:
    assert "127.0.0.1" in [card.address for card in interfaces.cards()]


def test_a_link_exists_only_while_something_listens_beyond_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interfaces, "cards", lambda: CARDS)
    with closing(Access(tmp_path)) as access:
        with registry.registered(tmp_path, registry.Listening("127.0.0.1", 7861, "")), pytest.raises(SettingsError):
            registry.offer(tmp_path, access)
        with registry.registered(tmp_path, registry.Listening("0.0.0.0", 7862, "ab" * 32)):
            link = registry.offer(tmp_path, access)
            assert link.places[0] == "192.168.1.20:7862"
            assert access.code(link.code).state == "open"
        with pytest.raises(SettingsError, match="--listen"):
            registry.offer(tmp_path, access)
