"""The routes for a paired device: model files with range requests, and conversations in both directions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from impchat import images, paths
from impchat.app import App
from impchat.bundle import MANIFEST
from impchat.history import archive
from impchat.history.store import History
from impchat.server.api.routes import build_api
from impchat.server.tokens import Access
from tests.serve.conftest import MODEL, Site, drawing

ME = "local"


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The HTTP client of a paired device; `phone.app` is the App of the server."""
    data = tmp_path_factory.mktemp("data")
    with closing(Access(data)) as access:
        app = App.open(data)
        site = Site(app, build_api(app, access=access, token_needed=True))
        token = access.redeem(access.offer(), "phone")[1]
        with site.client(headers={"authorization": f"Bearer {token}"}) as client:
            client.app = app  # type: ignore[attr-defined]
            yield client
        site.close()


# Model files


def test_a_device_lists_the_models_of_the_machine_with_their_hashes(phone: httpx.Client) -> None:
    (bundle,) = phone.get("/bundles").json()["bundles"]
    assert (bundle["id"], bundle["demo"]) == (MODEL, True)
    assert {f["name"] for f in bundle["files"]} == {"language.gguf", "vision.onnx", MANIFEST}
    assert bundle["files"][-1]["name"] == MANIFEST
    for file in bundle["files"]:
        data = phone.get(f"/bundles/{MODEL}/{file['name']}").content
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file["bytes"], file["sha256"])


def test_an_interrupted_copy_is_resumed(phone: httpx.Client) -> None:
    whole = (paths.demo_bundle() / "vision.onnx").read_bytes()
    path = f"/bundles/{MODEL}/vision.onnx"
    first = phone.get(path, headers={"range": "bytes=0-999"})
    assert (first.status_code, first.headers["content-range"]) == (206, f"bytes 0-999/{len(whole)}")
    rest = phone.get(path, headers={"range": "bytes=1000-", "if-range": first.headers["etag"]})
    assert rest.status_code == 206
    assert first.content + rest.content == whole


def test_a_file_that_has_changed_meanwhile_is_sent_whole(phone: httpx.Client) -> None:
    changed = phone.get(
        f"/bundles/{MODEL}/{MANIFEST}", headers={"range": "bytes=10-", "if-range": '"what it was before"'}
    )
    assert changed.status_code == 200
    assert changed.content == (paths.demo_bundle() / MANIFEST).read_bytes()


def test_a_known_file_is_not_sent_again_and_head_is_supported(phone: httpx.Client) -> None:
    path = f"/bundles/{MODEL}/language.gguf"
    head = phone.head(path)
    sha256 = head.headers["etag"].strip('"')
    assert hashlib.sha256((paths.demo_bundle() / "language.gguf").read_bytes()).hexdigest() == sha256
    assert int(head.headers["content-length"]) == (paths.demo_bundle() / "language.gguf").stat().st_size
    assert phone.get(path, headers={"if-none-match": f'"{sha256}"'}).status_code == 304
    assert phone.get(path, headers={"range": "bytes=999999999999-"}).status_code == 416


@pytest.mark.parametrize("path", ["no-such-model/language.gguf", f"{MODEL}/other", f"{MODEL}/..%2f..%2fREADME.md",
                                  "..%2f..%2fREADME.md/x", f"{MODEL}/../../README.md"])  # fmt: skip
def test_only_files_of_models_are_sent(phone: httpx.Client, path: str) -> None:
    assert phone.get(f"/bundles/{path}").status_code == 404


# Conversations


@pytest.fixture
def there(tmp_path: Path) -> Iterator[History]:
    """The device's own history."""
    with closing(History(paths.history_file(paths.ensure_data_dir(tmp_path / "phone")))) as history:
        yield history


def add_conversation(history: History, *turns: str) -> str:
    """Add a conversation of alternating questions and answers, with a picture in the first; return its uuid."""
    row = history.create_conversation(ME)
    image = history.add_image(images.prepare(drawing()), ME)
    for number in range(0, len(turns), 2):
        go_on(history, row.uuid, turns[number], turns[number + 1], [image.sha256] if number == 0 else [])
    return row.uuid


def go_on(history: History, uuid: str, asked: str, answered: str, pictures: list[str] | None = None) -> None:
    leaf = history.conversation(uuid, ME).leaf
    question = history.add_question(uuid, ME, parent=leaf, text=asked, images=pictures or [])
    answer = history.start_answer(uuid, ME, parent=question.uuid, model="imp-test")
    history.finish_answer(answer.uuid, text=answered, state="done", finish_reason="stop")


def words(history: History, uuid: str) -> list[str]:
    return sorted(m.text for m in history.messages(uuid, ME))


def test_a_conversation_sent_to_the_server_grows_on_both_sides_and_returns_whole(
    phone: httpx.Client, there: History
) -> None:
    here: History = phone.app.history  # type: ignore[attr-defined]
    uuid = add_conversation(there, "What is it?", "A red circle.")
    handed = phone.put(f"/conversations/{uuid}", content=archive.export_zip(there, uuid, ME))
    assert (handed.status_code, handed.json()) == (200, {"uuid": uuid})
    assert uuid in [c["uuid"] for c in phone.get("/conversations").json()["conversations"]]
    go_on(here, uuid, "Said at the desk", "Yes")
    go_on(there, uuid, "Said on the way", "No")

    phone.put(f"/conversations/{uuid}", content=archive.export_zip(there, uuid, ME)).raise_for_status()
    archive.import_zip(there, phone.get(f"/conversations/{uuid}").raise_for_status().content, ME)
    everything = ["A red circle.", "No", "Said at the desk", "Said on the way", "What is it?", "Yes"]
    assert words(here, uuid) == words(there, uuid) == sorted(everything)
    (picture,) = here.messages(uuid, ME)[0].images
    assert here.image_bytes(picture) == drawing() == there.image_bytes(picture)


def test_an_invalid_conversation_is_refused_and_changes_nothing(phone: httpx.Client, there: History) -> None:
    here: History = phone.app.history  # type: ignore[attr-defined]
    before = len(here.conversations(ME))
    uuid = add_conversation(there, "What is it?", "A red circle.")
    other = "00000000-0000-4000-8000-000000000000"
    assert phone.put(f"/conversations/{uuid}", content=b"PK no zip").status_code == 400
    assert phone.put(f"/conversations/{other}", content=archive.export_zip(there, uuid, ME)).status_code == 400
    assert phone.get(f"/conversations/{other}").status_code == 404
    assert len(here.conversations(ME)) == before


def test_a_device_sees_only_its_owners_conversations(phone: httpx.Client) -> None:
    here: History = phone.app.history  # type: ignore[attr-defined]
    theirs = here.create_conversation("somebody else").uuid
    assert phone.get(f"/conversations/{theirs}").status_code == 404
    assert theirs not in [c["uuid"] for c in phone.get("/conversations").json()["conversations"]]
