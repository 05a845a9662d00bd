"""What is kept on disk so that nothing is read twice: KV states of conversations and embeddings of pictures."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from impchat import paths, settings, storage
from impchat.app import App, Resources
from impchat.bundle import Bundle
from impchat.chat import Chat
from impchat.engines.local import tuning
from impchat.engines.local.disk_cache import DiskCache
from impchat.engines.local.engine import Kept, LocalEngine
from impchat.engines.local.kv_states import KvStates
from impchat.engines.local.vision import OnnxVision
from impchat.messages import Message, Ready, Sampling
from tests.core.conformance import GREEDY, ask, finished, run
from tests.core.conftest import Draw
from tests.core.scripted import SECONDS

ME = settings.OWNER


def answered(chat: Chat, question: str) -> Message:
    row = chat.send(question, sampling=Sampling(temperature=0.0)).wait(6 * SECONDS)
    assert row.state == "done" and row.stats, row
    return row


def begun(data: Path, draw: Draw, colour: str = "red", resources: Resources | None = None) -> str:
    """A conversation with a picture, a question and an answer, in an ImpChat that has ended."""
    with App.open(data) as app:
        if resources and app.bundle:
            app.run_with(app.bundle, resources)
        chat = app.chat()
        chat.attach(draw(colour).data)
        answered(chat, "What colour is the circle?")
        assert chat.conversation
        return chat.conversation


def states(data: Path) -> list[Path]:
    return sorted(paths.kv_states_dir(data).glob("[!.]*"))  # without those that are being written


def embeddings(data: Path) -> list[Path]:
    return sorted(paths.embeddings_dir(data).glob("[!.]*"))


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 6 * SECONDS
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def uninterrupted(tmp_path: Path, draw: Draw) -> str:
    """The second answer of a conversation that was never closed."""
    with App.open(tmp_path / "uninterrupted") as app:
        chat = app.chat()
        chat.attach(draw("red").data)
        answered(chat, "What colour is the circle?")
        return answered(chat, "Is there a square?").text


# KV states


def test_a_conversation_reopened_after_a_restart_is_not_read_again(tmp_path: Path, draw: Draw) -> None:
    conversation = begun(tmp_path, draw)
    with App.open(tmp_path) as app:
        row = answered(app.chat(conversation), "Is there a square?")
    assert row.stats
    assert row.stats.new_tokens < 40, "only the new question is read"
    assert row.stats.cached_tokens > 240, "the system text, the picture, the first question and its answer"
    assert row.stats.vision_s == 0
    assert row.text == uninterrupted(tmp_path, draw), "the next tokens are the same"


def test_a_conversation_is_saved_when_nothing_else_is_to_do(
    tmp_path: Path, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "KV_STATE_IDLE_S", 0.05)
    killed = tmp_path / "killed"
    with App.open(tmp_path / "data") as app:
        chat = app.chat()
        chat.attach(draw("red").data)
        answered(chat, "What colour is the circle?")
        until(lambda: len(states(tmp_path / "data")) == 1)
        shutil.copytree(tmp_path / "data", killed)  # as if the process had been killed now
    with App.open(killed) as app:
        stats = answered(app.chat(chat.conversation), "Is there a square?").stats
    assert stats and stats.cached_tokens > 240


def test_a_conversation_whose_slot_was_needed_is_not_read_again(tmp_path: Path, draw: Draw) -> None:
    with App.open(tmp_path, slots=1) as app:
        first = app.chat()
        first.attach(draw("red").data)
        answered(first, "What colour is the circle?")
        second = app.chat()
        second.attach(draw("blue").data)
        answered(second, "What colour is the circle?")
        stats = answered(first, "Is there a square?").stats
    assert stats and stats.new_tokens < 40


def test_another_conversation_about_the_picture_continues_from_a_saved_one(tmp_path: Path, draw: Draw) -> None:
    begun(tmp_path, draw)
    with App.open(tmp_path) as app:
        chat = app.chat()
        chat.attach(draw("red").data)
        stats = answered(chat, "Is there a square?").stats
    assert stats and stats.new_tokens < 40 and stats.vision_s == 0


def test_only_the_owner_can_read_what_is_kept(tmp_path: Path, draw: Draw) -> None:
    begun(tmp_path, draw)
    kept = [*states(tmp_path), *embeddings(tmp_path)]
    assert len(kept) == 2
    assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}
    assert {path.parent.stat().st_mode & 0o777 for path in kept} == {0o700}


@pytest.mark.parametrize("permanently", [False, True])
def test_a_deleted_conversation_leaves_no_state(tmp_path: Path, draw: Draw, permanently: bool) -> None:
    conversation = begun(tmp_path, draw)
    with App.open(tmp_path) as app:
        answered(app.chat(conversation), "Is there a square?")  # so that the engine holds it
        app.history.delete_conversation(conversation, ME)
        assert states(tmp_path) == []
        if permanently:
            app.history.purge_conversation(conversation, ME)
            assert embeddings(tmp_path) == [], "a picture that no conversation shows"
    assert states(tmp_path) == [], "closing does not save it again"


@pytest.mark.parametrize("damage", ["a changed byte", "cut off", "empty"])
def test_a_damaged_state_is_removed_and_the_conversation_read_again(tmp_path: Path, draw: Draw, damage: str) -> None:
    conversation = begun(tmp_path, draw)
    (file,) = states(tmp_path)
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes({"a changed byte": content, "cut off": content[:-1], "empty": b""}[damage])
    with App.open(tmp_path) as app:
        chat = app.chat(conversation)
        row = answered(chat, "Is there a square?")
        assert row.stats and row.stats.cached_tokens < 100, "at most the system text"
        assert row.text == uninterrupted(tmp_path, draw)
    (again,) = states(tmp_path)
    assert again.stat().st_size > len(content), "it has been saved again, and is longer by one turn"


def test_a_state_that_other_settings_made_is_removed(tmp_path: Path, demo: Bundle, draw: Draw) -> None:
    conversation = begun(tmp_path, draw)
    cache = DiskCache(paths.kv_states_dir(tmp_path), settings.KV_STATES_BYTES)
    (before,) = cache.descriptions().values()
    usual = tuning.default(demo)
    tuning.save(tmp_path, demo, replace(usual, flash_attention=not usual.flash_attention))
    with App.open(tmp_path) as app:
        stats = answered(app.chat(conversation), "Is there a square?").stats
    assert stats and stats.cached_tokens < 100
    (after,) = cache.descriptions().values()
    assert after["model"] != before["model"]


def test_a_state_longer_than_the_context_is_not_loaded(tmp_path: Path) -> None:
    kept = KvStates(DiskCache(tmp_path, 10_000), "model", lambda key: True)
    kept.save("a", [1, 2, 3, ("f" * 64, 0), ("f" * 64, 1), 4], np.zeros(8, np.uint8))
    name = paths.kv_state_name("a")
    assert kept.longest([1, 2, 3, ("f" * 64, 0), 9], limit=6) == (name, 4)
    assert kept.longest([1, 2, 3], limit=5) == ("", 0)


def test_a_state_that_another_process_replaces_has_its_own_cells(tmp_path: Path) -> None:
    ours, theirs = (KvStates(DiskCache(tmp_path, 10_000), "model", lambda key: True) for _ in range(2))
    ours.save("a", [1, 2, 3], np.full(8, 1, np.uint8))
    name, _ = ours.longest([1, 2, 3], limit=100)
    theirs.save("a", [1, 2, 4], np.full(8, 2, np.uint8))
    loaded = ours.load(name)
    assert loaded and loaded.cells == [1, 2, 4] and set(loaded.data) == {2}


def test_a_conversation_is_read_again_if_its_state_cannot_be_loaded(
    tmp_path: Path, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = begun(tmp_path, draw)

    def fails(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(KvStates, "load", fails)
    with App.open(tmp_path) as app:
        row = answered(app.chat(conversation), "Is there a square?")
    assert row.stats and row.stats.cached_tokens < 100
    assert row.text == uninterrupted(tmp_path, draw)


def test_a_state_is_used_with_other_threads(tmp_path: Path, draw: Draw) -> None:
    conversation = begun(tmp_path, draw)
    with App.open(tmp_path) as app:
        assert app.bundle
        app.run_with(app.bundle, Resources(threads=2, packed=False))  # as the phone app on the same data folder
        stats = answered(app.chat(conversation), "Is there a square?").stats
    assert stats and stats.cached_tokens > 240


def test_the_least_recently_used_states_are_removed_first(tmp_path: Path, draw: Draw) -> None:
    first = begun(tmp_path, draw)
    room = Resources(kv_states_bytes=5 * states(tmp_path)[0].stat().st_size // 2)
    second = begun(tmp_path, draw, "blue", room)
    with App.open(tmp_path) as app:
        answered(app.chat(first), "Is there a square?")
    begun(tmp_path, draw, "green", room)
    left = {path.name for path in states(tmp_path)}
    assert paths.kv_state_name(first) in left and paths.kv_state_name(second) not in left


def test_prompts_that_are_not_in_the_history_are_not_kept(tmp_path: Path, demo: Bundle, draw: Draw) -> None:
    engine = LocalEngine(demo, threads=1, kept=Kept(tmp_path, lambda key: key == "stored", lambda sha256: False))
    finished(run(engine.start(ask("What is it?", draw("red"), key="of a server's client"), GREEDY)))
    engine.close()
    assert states(tmp_path) == embeddings(tmp_path) == []


def test_nothing_is_kept_on_a_disk_that_is_nearly_full(
    tmp_path: Path, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "DISK_LOW_BYTES", 2**62)
    begun(tmp_path, draw)
    assert states(tmp_path) == embeddings(tmp_path) == []


# Embeddings


def test_a_picture_is_encoded_once_even_if_ImpChat_is_restarted(
    tmp_path: Path, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(tmp_path, draw)
    shutil.rmtree(paths.kv_states_dir(tmp_path))
    with App.open(tmp_path) as app:
        computed: list[str] = []
        monkeypatch.setattr(OnnxVision, "_encode", lambda _, picture: computed.append(picture.sha256))
        *_, (_, last) = app.chat().attach(draw("red").data).events(timeout_s=6 * SECONDS)
    assert isinstance(last, Ready) and last.stats.new_tokens > 196
    assert computed == []


def test_the_storage_shows_what_is_kept_and_frees_it(tmp_path: Path, draw: Draw) -> None:
    begun(tmp_path, draw)
    with App.open(tmp_path) as app:
        assert storage.used(app).kept > 0
        storage.clear_kept(app)
        assert storage.used(app).kept == 0
        assert app.history.conversations(ME)


# The files


def test_unfinished_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 1000)
    old, new = tmp_path / ".a.1.new", tmp_path / ".b.2.new"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    cache.write("a", {"is": "whole"}, memoryview(b"12345678"))
    assert cache.descriptions() == {"a": {"is": "whole"}}
    assert not old.exists() and new.exists(), "another process may be writing the new one"


def test_a_file_larger_than_the_budget_is_not_written(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 100)
    cache.write("small", {}, memoryview(bytes(50)))
    cache.write("large", {}, memoryview(bytes(200)))
    assert list(cache.descriptions()) == ["small"]


def test_a_folder_that_cannot_be_written_costs_only_the_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = DiskCache(tmp_path / "file", 100)
    cache.write("a", {}, memoryview(b"1"))
    assert cache.descriptions() == {} and cache.read("a") is None
