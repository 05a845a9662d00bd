"""Thumbnails are made once, kept up to a limit, and left out if they cannot be made."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from impchat import images, settings
from impchat.errors import HistoryError
from impchat.history.store import History
from impchat.history.thumbnails import Thumbnails
from impchat.images import Prepared


def picture(colour: str) -> Prepared:
    out = io.BytesIO()
    Image.new("RGB", (640, 480), colour).save(out, "PNG")
    return images.prepare(out.getvalue())


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    history = History(tmp_path / "history.db")
    yield history
    history.close()


def file_of(history: History, sha256: str) -> Path:
    (file,) = history._database.path.parent.glob(f"images/*/{sha256}.*")
    return file


def test_a_thumbnail_is_made_once(history: History) -> None:
    red = history.add_image(picture("red"), "me").sha256
    thumbnails = Thumbnails(history)
    small = thumbnails.get(red)
    assert max(images.decode(small).size) == settings.THUMBNAIL_SIDE
    assert max(images.decode(thumbnails.get(red, scale=2)).size) == 2 * settings.THUMBNAIL_SIDE
    file_of(history, red).unlink()
    assert thumbnails.get(red) is small and thumbnails.available([red]) == {red: small}


def test_a_thumbnail_outlives_the_process_and_goes_with_its_picture(history: History, tmp_path: Path) -> None:
    conversation = history.create_conversation("me").uuid
    red = history.add_image(picture("red"), "me").sha256
    history.add_question(conversation, "me", parent=None, text="What is it?", images=[red])
    small = Thumbnails(history).get(red)
    file_of(history, red).write_bytes(b"damaged")
    assert Thumbnails(history).get(red) == small, "it was not made again"
    history.purge_conversation(conversation, "me")
    assert [path for path in tmp_path.rglob("*") if red in path.name] == []


@pytest.mark.parametrize("left", [b"", b"\xff\xd8half of a file"])
def test_half_a_thumbnail_is_made_again(history: History, tmp_path: Path, left: bytes) -> None:
    red = history.add_image(picture("red"), "me").sha256
    small = Thumbnails(history).get(red)
    (kept,) = tmp_path.rglob("*-thumbnail.jpg")
    kept.write_bytes(left)
    assert Thumbnails(history).get(red) == small
    assert kept.read_bytes() == small


def test_a_picture_without_a_thumbnail_is_left_out_until_it_has_one(history: History) -> None:
    red, blue, broken = (history.add_image(picture(colour), "me").sha256 for colour in ("red", "blue", "green"))
    data = file_of(history, blue).read_bytes()
    file_of(history, blue).unlink()
    file_of(history, broken).write_bytes(b"damaged")
    thumbnails = Thumbnails(history)
    assert thumbnails.available([red, blue, broken, "0" * 64]).keys() == {red}
    with pytest.raises(HistoryError) as caught:
        thumbnails.get(blue)
    assert caught.value.code == "history.image_missing"
    history.add_image(images.prepare(data), "me")
    assert thumbnails.available([red, blue, broken]).keys() == {red, blue}


def test_only_the_last_thumbnails_in_use_are_kept() -> None:
    class Counting(History):
        """Has every picture, and notes which are read."""

        def __init__(self) -> None:
            self.read: list[str] = []

        def thumbnail(self, sha256: str) -> bytes:
            self.read.append(sha256)
            return b""

    history = Counting()
    thumbnails = Thumbnails(history)
    many = [str(number) for number in range(settings.THUMBNAILS_KEPT + 1)]
    thumbnails.available(many)
    assert history.read == many
    thumbnails.available(many[1:])
    assert history.read == many
    thumbnails.get(many[0])
    assert history.read == [*many, many[0]]
