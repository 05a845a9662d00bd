"""Tokens and one-time codes: who is authorised, revocation, and what is stored on disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from impchat import settings
from impchat.cli.main import main
from impchat.errors import RequestError, SettingsError
from impchat.server.tokens import Access
from tests.core.scripted import ScriptedEngine
from tests.serve.conftest import Serve, asking, question, wait_until


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(tmp_path: Path, clock: Clock) -> Iterator[Access]:
    with closing(Access(tmp_path / "data", clock)) as opened:
        yield opened


def test_a_token_is_valid_until_any_process_revokes_it(access: Access, tmp_path: Path) -> None:
    holder, token = access.create("laptop")
    assert access.holder(token) is not None and access.holder("impchat-other") is None
    with closing(Access(tmp_path / "data")) as other:
        assert [h.name for h in other.holders()] == ["laptop"]
        other.revoke(holder.id)
    assert access.holder(token) is None
    with pytest.raises(SettingsError, match="no token or device"):
        access.revoke("laptop")


def test_names_of_tokens_are_unique(access: Access) -> None:
    access.create("laptop")
    for name in ("laptop", " laptop ", "", "\n"):
        with pytest.raises(SettingsError):
            access.create(name)


def test_no_token_and_no_code_is_stored_in_plain_text(access: Access, tmp_path: Path) -> None:
    token, code = access.create("laptop")[1], access.offer()
    device = access.redeem(code, "phone")[1]
    kept = b"".join(file.read_bytes() for file in (tmp_path / "data" / "server").rglob("*") if file.is_file())
    assert b"laptop" in kept
    for secret in (token, token[8:], code, code.replace("-", ""), device):
        assert secret.encode() not in kept


def test_the_time_of_use_is_shown_to_the_minute(access: Access, clock: Clock) -> None:
    token = access.create("laptop")[1]
    assert access.holders()[0].used_utc is None
    access.holder(token)
    wait_until(lambda: access.holders()[0].used_utc is not None)
    first = access.holders()[0].used_utc or ""
    clock.now += 120
    access.holder(token)
    wait_until(lambda: (access.holders()[0].used_utc or "") > first)


def test_a_code_pairs_one_device_however_it_is_spelt(access: Access) -> None:
    code = access.offer()
    assert access.code(code).state == "open"
    spelt = code.lower().replace("-", " ").replace("0", "o").replace("1", "l")
    holder, token = access.redeem(spelt, "Anna's\nphone\x1b[2J")
    assert (holder.name, holder.kind, holder.owner) == ("Anna's phone[2J", "device", settings.OWNER)
    assert access.holder(token) == holder
    assert (access.code(code).state, access.code(code).device) == ("used", holder.name)
    with pytest.raises(RequestError, match="not valid"):
        access.redeem(code, "second")


def test_a_device_that_was_revoked_cannot_use_its_code_again(access: Access) -> None:
    code = access.offer()
    holder, token = access.redeem(code, "phone")
    access.revoke(holder.id)
    assert access.code(code).state == "over"
    with pytest.raises(RequestError):
        access.redeem(code, "phone")
    assert access.holder(token) is None and access.holders() == []


def test_a_token_is_revoked_by_its_name(access: Access) -> None:
    access.create("phone")
    for name in ("phone (2)", "phone (3)"):
        assert access.redeem(access.offer(), "phone")[0].name == name
    access.revoke("phone (2)")
    assert sorted(holder.name for holder in access.holders()) == ["phone", "phone (3)"]


def test_a_code_expires(access: Access, clock: Clock) -> None:
    code = access.offer()
    clock.now += settings.PAIR_CODE_S - 1
    assert access.code(code).seconds == 1
    clock.now += 1
    assert access.code(code).state == "over"
    with pytest.raises(RequestError):
        access.redeem(code, "late")


def test_guessing_is_blocked_after_a_few_tries(access: Access) -> None:
    code = access.offer()
    for n in range(settings.PAIR_TRIES):
        assert access.code(code).state == "open"
        with pytest.raises(RequestError):
            access.redeem(f"0000-000{n}", "guesser")
    assert access.code(code).state == "over"
    with pytest.raises(RequestError):
        access.redeem(code, "phone")


def test_a_new_code_replaces_the_earlier_one(access: Access) -> None:
    first, second = access.offer(), access.offer()
    with pytest.raises(RequestError):
        access.redeem(first, "phone")
    assert access.redeem(second, "phone")


def test_an_api_with_tokens_refuses_requests_without_one(serve: Serve, access: Access) -> None:
    site = serve(ScriptedEngine(), access=access, token_needed=True)
    holder, token = access.create("laptop")
    mine = {"authorization": f"Bearer {token}"}
    with site.client() as client:
        for headers in ({}, {"authorization": "Bearer impchat-wrong"}, {"authorization": token}):
            for method, path in (("GET", "/v1/models"), ("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", "/x"),
                                 ("POST", "/v1/chat/completions"), ("GET", "/bundles")):  # fmt: skip
                refused = client.request(method, path, headers=headers)
                assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer"), path
                assert refused.json()["error"]["code"] == "invalid_api_key"
        assert client.get("/health").status_code == 200
        assert client.get("/v1/models", headers=mine).status_code == 200
        assert client.get("/bundles", headers=mine).status_code == 403  # not the token of a paired device
        access.revoke(holder.id)
        assert client.get("/v1/models", headers=mine).status_code == 401


def test_the_size_of_unauthorised_requests_is_limited(serve: Serve, access: Access) -> None:
    token = access.create("laptop")[1]
    large = b" " * (settings.STRANGER_BYTES + 1)
    said = {"content-type": "application/json"}
    with serve(ScriptedEngine(), access=access, token_needed=True).client() as client:
        assert client.post("/pair", content=large, headers=said).status_code == 413
        assert client.post("/pair", content=iter([large]), headers=said).status_code == 413  # no content-length
        assert client.post("/pair", json={"code": "0000-0000", "name": "x"}).status_code == 403
        mine = said | {"authorization": f"Bearer {token}"}
        assert client.post("/v1/chat/completions", content=large, headers=mine).status_code == 400


def test_no_token_is_needed_on_loopback(serve: Serve, access: Access) -> None:
    with serve(ScriptedEngine(), access=access).client() as client:
        assert client.get("/v1/models").status_code == 200
        assert client.get("/bundles").status_code == 403
        assert client.post("/v1/chat/completions", json=asking(question("Hi"), model="x")).status_code == 404


def test_tokens_are_created_listed_and_revoked_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def impchat(*words: str) -> tuple[int, str, str]:
        code = main(["serve", "token", *words, "--data", str(tmp_path), "--language", "en"])
        return code, *capsys.readouterr()

    code, token, said = impchat("create", "laptop")
    assert code == 0 and "laptop" in said
    with closing(Access(tmp_path)) as access:
        assert access.holder(token.strip()) is not None
    assert "laptop" in impchat("list")[1]
    assert impchat("create", "laptop")[0] == 2
    assert impchat("revoke", "laptop")[0] == 0
    assert "laptop" not in impchat("list")[1]
    assert impchat("revoke", "laptop")[0] == 2


def test_listening_on_the_network_without_a_token_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--listen", "127.0.0.1", "--port", "0", "--data", str(tmp_path), "--language", "en"]) == 2
    assert "impchat serve token create" in capsys.readouterr().err


def test_pairing_is_refused_if_no_server_listens_for_devices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pair", "--data", str(tmp_path), "--language", "en"]) == 2
    assert "--listen" in capsys.readouterr().err
