"""`impchat models pull` with the real client and a hub on loopback: complete, interrupted, damaged and refused
downloads."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from impchat import bundle as bundles
from impchat import paths
from impchat.app import choose_bundle
from impchat.bundle import MANIFEST, Bundle
from impchat.cli.main import main
from impchat.errors import ModelError
from impchat.models import catalog, library
from impchat.models.convert import convert
from impchat.models.download import Progress, pull
from tests.convert import checkpoints
from tests.convert.checkpoints import Tiny
from tests.convert.fake_hub import Hub, running
from tests.core.hands import ROOT, copy_model, environment, terminal

REPOSITORY = "somebody/imp-tiny"
ID = "imp-tiny"
SHARDS = 3
TINY = Tiny("older", layers=2, eyes_layers=2, eyes_in="siglip-so400m-patch14-196")
TOKEN = "hf_thisIsTheSecretOfThisTest"


def write(folder: Path, seed: int = 0) -> Path:
    """A checkpoint with the hub's layout of the 196: older layout, weight files with an index, a folder for the
    vision configuration, and the other files of the repository."""
    checkpoints.write(folder, replace(TINY, seed=seed), shards=SHARDS)
    (folder / "README.md").write_text("What people read", encoding="utf-8")
    (folder / "modeling_imp.py").write_text("raise SystemExit('never run, never fetched')", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("hub") / "first")


@pytest.fixture(scope="module")
def expected(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle that `convert` makes of the same files."""
    return convert(checkpoint, tmp_path_factory.mktemp("converted") / ID)


@pytest.fixture
def hub(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub(REPOSITORY)
    hub.commit(checkpoint)
    with running(hub):
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "IMPCHAT_MODEL"):
            monkeypatch.delenv(name, raising=False)
        yield hub


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def fetch(data: Path, **how: Any) -> Bundle:
    return pull(catalog.find(REPOSITORY), data, **how)


def refusal(data: Path, **how: Any) -> ModelError:
    """The error of a pull that must fail. No model may be listed afterwards, and the message may contain no secret."""
    with pytest.raises(ModelError) as caught:
        fetch(data, **how)
    error = caught.value
    for language in ("en", "zh"):
        assert TOKEN not in error.sentence(language)
        assert "\n" not in error.sentence(language)
    assert not [model for model in library.models(data) if model.id == ID and (model.bundle or model.problem)]
    with pytest.raises(ModelError):
        choose_bundle(data, ID)
    return error


def interrupt(data: Path, file: str, **how: Any) -> None:
    """A pull that Ctrl-C ends when this file has been downloaded and is about to be converted."""

    def watch(step: Progress) -> None:
        if step.stage == "convert" and step.file == file:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(data, watch=watch, **how)


def shard(number: int) -> str:
    return f"model-{number:05}-of-{SHARDS:05}.safetensors"


# Complete downloads


def test_a_pull_gives_the_bundle_that_convert_gives(data: Path, hub: Hub, expected: Bundle) -> None:
    steps: list[Progress] = []
    weights: set[int] = set()

    def watch(step: Progress) -> None:
        steps.append(step)
        weights.add(len([*(paths.checkpoints_dir(data) / ID).glob("model-*")]))

    made = fetch(data, watch=watch)

    assert made.path == paths.models_dir(data) / ID
    for name in ("language.gguf", "vision.onnx"):
        assert (made.path / name).read_bytes() == (expected.path / name).read_bytes()
    assert (made.source, made.revision) == (REPOSITORY, hub.hash(0))
    made.verify()
    assert not (paths.checkpoints_dir(data) / ID).exists()
    assert weights == {0, 1}, "each weight file is deleted before the next download"
    assert [step.file for step in steps if step.stage == "convert"] == [shard(n) for n in (1, 2, 3)]
    assert steps[-1].stage == "finish"
    assert [s.done for s in steps] == sorted(s.done for s in steps)
    assert (
        steps[-1].done
        == steps[-1].total
        == sum(len(content) for name, content in hub.commits[0].items() if not name.endswith((".md", ".py")))
    )
    assert not [s for s in hub.seen if s.path.endswith((".md", ".py"))], "only the files that a conversion reads"


def test_nothing_is_downloaded_twice(data: Path, hub: Hub) -> None:
    first = fetch(data)
    hub.seen.clear()
    assert fetch(data) == first
    assert not hub.fetched()


def test_a_newer_commit_replaces_the_older_one(data: Path, hub: Hub, tmp_path: Path) -> None:
    first = fetch(data, language="q8_0")
    hub.commit(write(tmp_path / "second", seed=1))
    second = fetch(data)
    assert (first.revision, second.revision) == (hub.hash(0), hub.hash(1))
    assert second.files["language"].type == "q8_0", "the types are kept"
    assert second.files["language"].sha256 != first.files["language"].sha256


def test_a_kept_checkpoint_is_used_by_another_pull(data: Path, hub: Hub, checkpoint: Path) -> None:
    fetch(data, keep_source=True)
    kept = paths.checkpoints_dir(data) / ID
    for name in (shard(1), shard(2), shard(3), "config.json", "siglip-so400m-patch14-196/config.json"):
        assert (kept / name).read_bytes() == (checkpoint / name).read_bytes()
    assert not library.find(data, ID).unfinished
    hub.seen.clear()
    assert fetch(data, language="f16", keep_source=True).files["language"].type == "f16"
    assert not hub.fetched()


def test_a_checkpoint_in_one_file_needs_no_index(data: Path, hub: Hub, tmp_path: Path) -> None:
    source = checkpoints.write(tmp_path / "one", TINY)
    hub.commit(source)
    steps: list[Progress] = []
    made = fetch(data, watch=steps.append)
    assert steps[-1].done == steps[-1].total == max(step.done for step in steps)
    again = convert(source, tmp_path / ID)
    assert made.files["language"].sha256 == again.files["language"].sha256


def test_file_names_that_lead_out_of_the_folder_are_ignored(data: Path, hub: Hub) -> None:
    hub.names = ["../evil.json", "/etc/evil.json", "a/../../evil.json", "a\\..\\evil.json", ".pull.json", "..json"]
    interrupt(data, shard(1))
    assert not [s for s in hub.seen if "evil" in s.path or "/." in s.path]


# Interrupted downloads


def test_a_pull_killed_at_any_moment_ends_with_the_same_bytes(data: Path, hub: Hub, tmp_path: Path) -> None:
    def run(*steps: int) -> list[dict[str, Any]]:
        command = [sys.executable, "-m", "tests.convert.killed", tmp_path, REPOSITORY, *map(str, steps)]
        done = subprocess.run(command, cwd=ROOT, env=environment(data), capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    [whole] = run(0)
    changes = whole["changes"]
    assert changes > 30
    steps = [1, *range(8, changes, changes // 6), changes]
    for result in run(*steps):
        assert result["killed"], result
        assert result["offered"] in (None, "whole"), result
        assert result["files"] == whole["files"], result
        assert result["left"] == whole["left"], result
    assert set(whole["files"]) == {MANIFEST, "language.gguf", "vision.onnx"}


def test_a_pull_killed_within_a_file_resumes_within_it(data: Path, hub: Hub) -> None:
    half = len(hub.commits[0][shard(2)]) // 2
    hub.hold[shard(2)] = half
    command = [sys.executable, "-m", "impchat.cli.main", "models", "pull", REPOSITORY, "--accept-licence"]
    with subprocess.Popen(command, env=environment(data), stderr=subprocess.DEVNULL) as process:
        assert hub.held.wait(60)
        part = paths.checkpoints_dir(data) / ID / f"{shard(2)}.partial"
        while not part.exists() or part.stat().st_size < half:
            assert process.poll() is None
            threading.Event().wait(0.05)  # there is no event for another process's write
        process.kill()
    hub.go.set()
    row = library.find(data, ID)
    assert row.unfinished == REPOSITORY and not row.bundle and not row.problem
    hub.seen.clear()
    fetch(data).verify()
    assert [(s.path.rpartition("/")[2], s.start) for s in hub.fetched()] == [(shard(2), half), (shard(3), 0)]


def test_a_resumed_pull_keeps_the_commit_that_it_began_with(
    data: Path, hub: Hub, tmp_path: Path, expected: Bundle
) -> None:
    interrupt(data, shard(2))
    hub.commit(write(tmp_path / "second", seed=1))
    made = fetch(data)
    assert made.revision == hub.hash(0)
    assert made.files["language"].sha256 == expected.files["language"].sha256


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_a_broken_connection_is_opened_again(data: Path, hub: Hub, expected: Bundle, ranges: bool) -> None:
    hub.cut[shard(1)] = 100_000
    hub.ranges = ranges
    made = fetch(data)
    assert made.files["language"].sha256 == expected.files["language"].sha256
    assert [s.start for s in hub.fetched()] == [0, 100_000, 0, 0]


def test_an_unfinished_download_cannot_continue_with_other_types(data: Path, hub: Hub) -> None:
    interrupt(data, shard(1), language="q8_0")
    assert refusal(data, language="f16").code == "download.other_types"
    assert fetch(data).files["language"].type == "q8_0"


def test_simultaneous_pulls_of_one_model_are_refused(data: Path, hub: Hub) -> None:
    with library.busy(data, ID):
        assert refusal(data).code == "model.busy"
    assert not hub.seen


# Damaged and refused downloads


def test_a_damaged_file_is_named_and_downloaded_again(data: Path, hub: Hub, expected: Bundle) -> None:
    hub.spoiled.add(shard(2))
    error = refusal(data)
    assert (error.code, error.values["file"]) == ("download.corrupt", shard(2))
    hub.spoiled.clear()
    hub.seen.clear()
    assert fetch(data).files["language"].sha256 == expected.files["language"].sha256
    assert [s.path.rpartition("/")[2] for s in hub.fetched()] == [shard(2), shard(3)]


def test_a_small_file_is_verified_too(data: Path, hub: Hub) -> None:
    hub.spoiled.add("config.json")
    assert refusal(data).values["file"] == "config.json"


@pytest.mark.parametrize(
    ("fields", "token", "code"),
    [
        ({"token": TOKEN}, "", "download.unauthorised"),
        ({"token": "another"}, TOKEN, "download.unauthorised"),
        ({"gated": True}, TOKEN, "download.forbidden"),
        ({"broken": 403}, TOKEN, "download.forbidden"),
        ({"repository": "somebody/else", "token": TOKEN}, TOKEN, "download.not_found"),
        ({"repository": "somebody/else"}, "", "download.unauthorised"),
        ({"broken": 503}, TOKEN, "download.refused"),
        ({"portal": True}, TOKEN, "download.no_hub"),
        ({"commits": [{"config.json": b"{}"}]}, "", "download.file_missing"),
    ],
    ids=["no token", "wrong token", "gated", "403", "404", "unknown to a stranger", "503", "portal", "no weights"],
)
def test_a_refusal_of_the_hub_is_reported_in_one_sentence(
    data: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], token: str, code: str
) -> None:
    for name, value in fields.items():
        setattr(hub, name, value)
    monkeypatch.setenv("HF_TOKEN", token)
    assert refusal(data).code == code


def test_a_missing_network_is_reported_in_one_sentence(data: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        error = refusal(data)
    assert error.code == "download.no_network"
    assert "HF_ENDPOINT" in str(error)
    monkeypatch.setenv("HF_ENDPOINT", "no address at all")
    assert refusal(data).code == "download.no_network"


def test_offline_mode_is_respected(data: Path, hub: Hub) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "impchat.cli.main", "models", "pull", REPOSITORY, "--accept-licence"],
        env=environment(data) | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "Offline mode is on" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not hub.seen


def test_too_little_disk_space_is_reported_before_the_download(data: Path, hub: Hub) -> None:
    hub.sizes[shard(3)] = 10**15
    error = refusal(data)
    assert error.code == "download.no_space"
    assert "GB" in error.values["needed"]
    assert not hub.fetched()


def test_a_disk_that_fills_during_the_download_is_reported_and_the_next_pull_continues(
    data: Path, hub: Hub, expected: Bundle
) -> None:
    def fill(step: Progress) -> None:
        if step.stage == "convert" and step.file == shard(1):
            part = paths.checkpoints_dir(data) / ID / f"{shard(2)}.partial"
            part.symlink_to("/dev/full")  # every write fails with a full disk

    error = refusal(data, watch=fill)
    assert error.code == "download.disk_full"
    (paths.checkpoints_dir(data) / ID / f"{shard(2)}.partial").unlink()
    assert fetch(data).files["language"].sha256 == expected.files["language"].sha256


def test_a_folder_that_cannot_be_written_is_reported(data: Path, hub: Hub) -> None:
    data.mkdir()
    (data / "checkpoints").touch()
    with pytest.raises(ModelError) as caught:
        fetch(data)
    assert caught.value.code == "model.target_unwritable"


def test_the_token_is_sent_to_the_hub_only(
    data: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    hub.token = TOKEN
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with caplog.at_level(logging.DEBUG):
        interrupt(data, shard(2))
    assert {s.authorization for s in hub.seen if s.server == "hub"} == {f"Bearer {TOKEN}"}
    assert {s.authorization for s in hub.seen if s.server == "content"} == {None}
    out, err = capfd.readouterr()
    assert TOKEN not in out + err + caplog.text
    assert not [path for path in data.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]


# The command


def impchat(data: Path, *words: str) -> int:
    return main(["--data", str(data), "--language", "en", *words])


def test_the_command_downloads_the_model_and_the_app_uses_it(
    data: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert impchat(data, "models", "pull", REPOSITORY, "--accept-licence") == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert f"converting {shard(3)}" in err and "runs from now on" in err
    assert "\r" not in err and "\x1b[2K" not in err, "no progress bar without a terminal"
    assert choose_bundle(data).id == ID
    assert impchat(data, "models", "list") == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row for row in rows if row.startswith("▶") and ID in row and "runs now" in row]
    assert impchat(data, "models", "verify", ID) == 0
    assert "as the manifest says" in capsys.readouterr().err


def test_the_licence_is_confirmed_once_and_before_the_download(
    data: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert impchat(data, "models", "pull", REPOSITORY) == 2
    err = capsys.readouterr().err
    assert "terms" in err and "--accept-licence" in err.splitlines()[-1]
    assert not hub.seen
    assert impchat(data, "models", "pull", REPOSITORY, "--accept-licence") == 0
    assert "under these terms" in capsys.readouterr().err
    assert impchat(data, "models", "pull", REPOSITORY) == 0
    assert "under these terms" not in capsys.readouterr().err


def test_the_terminal_shows_the_speed_and_ctrl_c_explains_how_to_resume(data: Path, hub: Hub) -> None:
    hub.hold[shard(2)] = 1000
    with terminal(data, "models", "pull", REPOSITORY) as screen:
        screen.expect("[y/N]")
        screen.type("y\n")
        assert hub.held.wait(60)
        screen.expect("B/s")
        screen.expect(f"downloading {shard(2)}")
        screen.type("\x03")
        screen.expect("goes on from here")
        assert screen.leave() == 130
        assert "Traceback" not in screen.seen
    assert library.is_accepted(data, catalog.find(REPOSITORY).licence)
    hub.go.set()
    fetch(data).verify()


def test_a_model_that_fails_verification_is_kept_and_runs_on_request(
    data: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Random weights under a published name."""
    id, hub = "imp-v1-3b", Hub("MILVLG/imp-v1-3b")
    hub.commit(checkpoint)
    with running(hub):
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.delenv("IMPCHAT_MODEL", raising=False)
        assert impchat(data, "models", "pull", id, "--accept-licence") == 0
        err = capsys.readouterr().err
        assert "is not verified" in err and "nll" in err and f"impchat models use {id} --unverified" in err
        assert "runs from now on" not in err and choose_bundle(data).demo
        hub.seen.clear()
        assert impchat(data, "models", "pull", id) == 0
        assert not hub.fetched(), "nothing is downloaded twice"
        assert f"impchat models use {id} --unverified" in capsys.readouterr().err
    assert impchat(data, "models", "verify", id) == 2
    assert "--unverified" in capsys.readouterr().err
    assert impchat(data, "models", "use", id, "--unverified") == 0
    assert choose_bundle(data).id == id


def test_verify_measures_again_and_removes_the_mark(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The mark can come from bounds that were too narrow, or from an ImpChat with other prompts."""
    demo = bundles.load(paths.demo_bundle())
    copy_model(demo.path, paths.models_dir(data) / "mine", id="mine", unverified="nll 3.1 (≤ 2.5)")
    assert impchat(data, "models", "verify", "mine") == 0
    out, err = capsys.readouterr()
    assert "wide pictures: right answers cost square" in out and "no longer marked" in err
    assert not choose_bundle(data, "mine").unverified
    assert choose_bundle(data, "mine").figures["verify"]["cosine"] == demo.figures["verify"]["cosine"]
