"""The model library: installed models, the chosen one, removal, and the commands for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from impchat import bundle as bundles
from impchat import machine, paths, settings
from impchat.app import App, choose_bundle
from impchat.bundle import MANIFEST, Bundle
from impchat.cli.main import main
from impchat.errors import ModelError
from impchat.machine import Memory
from impchat.models import catalog, library
from tests.core.hands import copy_model, terminal

GB = 1_000_000_000
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("IMPCHAT_MODEL", raising=False)
    return tmp_path / "data"


@pytest.fixture
def mine(data: Path, demo: Bundle) -> Path:
    """A model in the data folder."""
    return copy_model(demo.path, paths.models_dir(data) / "mine", id="mine", name="My own")


def impchat(data: Path, *words: object) -> int:
    return main(["--data", str(data), "--language", "en", *map(str, words)])


def refusal(code: str, function: object, *args: object, **how: object) -> str:
    assert callable(function)
    with pytest.raises(ModelError) as caught:
        function(*args, **how)
    assert caught.value.code == code
    assert "\n" not in caught.value.sentence("zh")
    return str(caught.value)


# The catalogue


def test_the_catalogue_holds_the_whole_family() -> None:
    family = [entry for entry in catalog.ENTRIES.values() if not entry.demo]
    assert [(entry.id, entry.source) for entry in family] == [
        ("imp-v1.5-3b-196", "MILVLG/Imp-v1.5-3B-196"),
        ("imp-v1.5-3b", "MILVLG/Imp-v1.5-3B-Phi2"),
        ("imp-v1-3b", "MILVLG/imp-v1-3b"),
        ("imp-v1.5-2b", "MILVLG/Imp-v1.5-2B-Qwen1.5"),
        ("imp-v1.5-4b", "MILVLG/Imp-v1.5-4B-Phi3"),
    ]
    assert family[0].id == settings.DEFAULT_MODEL, "the default comes first"
    for entry in family:
        assert abs(entry.download_bytes - 2 * entry.parameters) < 0.001 * entry.download_bytes
        assert 0.3 < entry.bundle_bytes / entry.download_bytes < 0.4
        assert "research use only" in entry.licence
        assert 3 * GB < catalog.memory_bytes(entry, entry.bundle_bytes, entry.context_tokens) < 6 * GB


def test_a_model_is_found_by_id_or_repository() -> None:
    assert catalog.find("imp-v1.5-4b") is catalog.find("MILVLG/Imp-v1.5-4B-Phi3")
    other = catalog.find("somebody/fine-tuned")
    assert (other.id, other.source) == ("fine-tuned", "somebody/fine-tuned")
    copy = catalog.find("somebody/imp-v1.5-4b")
    assert (copy.id, copy.source) == ("somebody-imp-v1.5-4b", "somebody/imp-v1.5-4b")


@pytest.mark.parametrize("text", ["", "imp-v2", "a/b/c", "../b", "a/..", "/b", "a/", settings.DEMO_MODEL])
def test_an_unknown_model_is_refused_with_the_list(text: str) -> None:
    assert "imp-v1.5-3b-196, imp-v1.5-3b," in refusal("model.not_in_catalogue", catalog.find, text)


# Installed models


def test_the_list_has_the_demo_the_catalogue_and_the_disk(data: Path, mine: Path) -> None:
    rows = library.models(data)
    assert [row.id for row in rows] == [*catalog.ENTRIES, "mine"]
    assert [row.id for row in rows if row.bundle] == [settings.DEMO_MODEL, "mine"]
    row = library.find(data, "mine")
    assert row.bundle and row.name == "My own"
    assert row.disk_bytes == sum(path.stat().st_size for path in mine.iterdir())
    refusal("model.unknown", library.find, data, "nowhere")


def test_unfinished_downloads_are_no_models(data: Path, mine: Path) -> None:
    for name in (".other.part", ".mine.old", "half"):
        shutil.copytree(mine, paths.models_dir(data) / name)
    (paths.models_dir(data) / "half" / MANIFEST).unlink()
    (paths.models_dir(data) / "file").touch()
    unfinished = paths.checkpoints_dir(data) / settings.DEFAULT_MODEL
    unfinished.mkdir(parents=True)
    (unfinished / library.PULL).write_text("{}")

    assert [row.id for row in library.models(data)][len(catalog.ENTRIES) :] == ["half", "mine"]
    half = library.find(data, "half")
    assert half.bundle is None and half.problem and half.problem.code == "model.missing"
    row = library.find(data, settings.DEFAULT_MODEL)
    assert row.unfinished and row.bundle is None
    refusal("model.not_here", choose_bundle, data, settings.DEFAULT_MODEL)


def test_memory_is_described_in_words() -> None:
    here = Memory(free=4 * GB, total=8 * GB)
    assert [here.fits(need * GB) for need in (0, 3, 4, 5, 8, 9)] == [
        "unknown",
        "fits",
        "fits",
        "tight",
        "tight",
        "too_large",
    ]
    real = machine.memory()
    assert real is None or 0 < real.free <= real.total


# The choice


def test_the_chosen_model_runs_until_another_is_named(
    data: Path, mine: Path, demo: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = copy_model(demo.path, tmp_path / "else where 别处", id="elsewhere")
    assert choose_bundle(data).id == settings.DEMO_MODEL
    library.choose(data, "mine")
    with App.open(data) as app:
        assert app.model == "mine"
    assert choose_bundle(data, settings.DEMO_MODEL).demo
    monkeypatch.setenv("IMPCHAT_MODEL", str(elsewhere))
    assert choose_bundle(data).id == "elsewhere"
    monkeypatch.delenv("IMPCHAT_MODEL")
    library.choose(data, elsewhere)
    assert choose_bundle(data).path == elsewhere
    library.choose(data, settings.DEMO_MODEL)
    assert library.chosen(data) == settings.DEMO_MODEL
    library.forget(data)
    assert library.chosen(data) is None


def test_a_choice_by_id_survives_moving_the_data_folder(data: Path, mine: Path, tmp_path: Path) -> None:
    library.choose(data, str(mine))
    data.rename(tmp_path / "moved")
    assert choose_bundle(tmp_path / "moved").id == "mine"


def test_a_model_that_cannot_run_is_not_chosen(data: Path, mine: Path) -> None:
    library.choose(data, "mine")
    refusal("model.unknown", library.choose, data, "nowhere")
    refusal("model.not_here", library.choose, data, settings.DEFAULT_MODEL)
    refusal("model.missing", library.choose, data, data / "nowhere")
    assert library.chosen(data) == "mine"


def test_a_chosen_model_that_is_gone_is_reported_and_not_silently_replaced(data: Path, mine: Path) -> None:
    library.choose(data, "mine")
    shutil.rmtree(mine)
    assert "impchat models use" in refusal("model.choice_gone", choose_bundle, data)
    assert choose_bundle(data, settings.DEMO_MODEL).demo


# Unverified models


@pytest.fixture
def doubtful(data: Path, demo: Bundle) -> Path:
    """A model in the data folder that is marked as unverified."""
    return copy_model(demo.path, paths.models_dir(data) / "doubtful", id="doubtful", unverified="nll 3.1 (≤ 2.5)")


def test_an_unverified_model_runs_only_on_request(data: Path, doubtful: Path, capsys: Capture) -> None:
    for model in ("doubtful", str(doubtful)):
        assert "nll 3.1 (≤ 2.5)" in refusal("model.unverified", library.choose, data, model)
        assert f"models use {model} --unverified" in refusal("model.unverified", choose_bundle, data, model)
    assert library.chosen(data) is None and choose_bundle(data).demo
    assert impchat(data, "models", "use", "doubtful") == 2
    assert "--unverified" in capsys.readouterr().err
    assert impchat(data, "models", "use", "doubtful", "--unverified") == 0
    assert choose_bundle(data).id == choose_bundle(data, str(doubtful)).id == "doubtful"
    assert impchat(data, "models", "use", settings.DEMO_MODEL) == 0
    assert impchat(data, "models", "use", "doubtful") == 0, "confirmed only once"


def test_other_weights_under_the_same_name_need_a_new_request(data: Path, doubtful: Path) -> None:
    library.choose(data, "doubtful", unverified=True)
    manifest = doubtful / MANIFEST
    manifest.write_text(manifest.read_text().replace(bundles.load(doubtful).files["language"].sha256, "0" * 64))
    refusal("model.unverified", choose_bundle, data)


def test_every_list_of_models_marks_unverified_ones(data: Path, doubtful: Path, capsys: Capture) -> None:
    assert impchat(data, "models", "list") == 0
    assert "here, not verified" in capsys.readouterr().out
    assert impchat(data, "models", "info", "doubtful") == 0
    output = capsys.readouterr()
    assert "here, not verified" in output.out and "nll 3.1 (≤ 2.5)" in output.err
    library.choose(data, "doubtful", unverified=True)
    assert impchat(data, "models", "list") == 0
    assert "runs now, not verified" in capsys.readouterr().out
    assert impchat(data, "doctor") == 0
    assert "! This model is not verified" in capsys.readouterr().out
    assert impchat(data, "ask", "What are you?") == 0
    assert "This model is not verified" in capsys.readouterr().err


def test_measured_figures_are_described_in_words(data: Path, mine: Path, demo: Bundle, capsys: Capture) -> None:
    assert impchat(data, "models", "info", "mine") == 0
    out = capsys.readouterr().out
    assert "Measured: eyes: cosine similarity to the checkpoint's output 0.99996 on average, 0.99984" in out
    assert "Measured: next tokens: 100 % are the checkpoint's, out of 91 tokens" in out
    assert "a right answer has a probability of 99.87 % (0.00134 nats), its end 100 % (0 nats)" in out
    assert "a wrong answer costs 22.7124 nats more" in out
    assert "scaled to 196 × 196 pixels (square), 196 tokens" in out
    assert "{" not in out


# Removal


def test_removing_frees_all_files_of_the_model(data: Path, mine: Path) -> None:
    for leftover in (paths.models_dir(data) / ".mine.part", paths.checkpoints_dir(data) / "mine"):
        leftover.mkdir(parents=True)
        (leftover / "file").write_bytes(b"x" * 1000)
    before = library.find(data, "mine").disk_bytes
    assert library.remove(data, "mine") == before
    assert library.disk_bytes(data) == 0
    refusal("model.unknown", library.remove, data, "mine")


def test_the_model_in_use_is_removed_only_on_request(data: Path, mine: Path) -> None:
    library.choose(data, "mine")
    assert "--in-use" in refusal("model.in_use", library.remove, data, "mine")
    assert mine.is_dir()
    library.remove(data, "mine", chosen_too=True)
    assert choose_bundle(data).demo


def test_missing_and_bundled_models_are_not_removed(data: Path, mine: Path) -> None:
    refusal("model.bundled", library.remove, data, settings.DEMO_MODEL)
    refusal("model.not_here", library.remove, data, settings.DEFAULT_MODEL)
    refusal("model.unknown", library.remove, data, "../data")
    with library.busy(data, "mine"):
        refusal("model.busy", library.remove, data, "mine")
    assert mine.is_dir()


# Licences


def test_a_licence_is_accepted_once(data: Path) -> None:
    assert not library.is_accepted(data, "terms")
    library.accept(data, "terms")
    library.accept(data, "其他条款")
    assert library.is_accepted(data, "terms") and library.is_accepted(data, "其他条款")
    assert not library.is_accepted(data, "other terms")
    (data / "licences.json").write_text("broken")
    assert not library.is_accepted(data, "terms"), "asked for confirmation again"


# The commands


def test_the_table_shows_installed_available_and_chosen_models(data: Path, mine: Path, capsys: Capture) -> None:
    assert impchat(data, "models", "use", "mine") == 0
    assert "My own runs from now on" in capsys.readouterr().err
    assert impchat(data, "models", "list") == 0
    rows = {
        line.split()[1] if "▶" in line else line.split()[0]: line for line in capsys.readouterr().out.splitlines()[1:]
    }
    assert rows.keys() == {*catalog.ENTRIES, "mine"}
    assert "▶" in rows["mine"] and "runs now" in rows["mine"] and "5 MB" in rows["mine"]
    assert "here" in rows[settings.DEMO_MODEL] and "▶" not in rows[settings.DEMO_MODEL]
    assert "6.4 GB to download" in rows[settings.DEFAULT_MODEL]
    assert sum("▶" in row for row in rows.values()) == 1
    assert impchat(data, "--model", settings.DEMO_MODEL, "models", "list") == 0
    assert any("▶" in line and settings.DEMO_MODEL in line for line in capsys.readouterr().out.splitlines())


def test_the_table_is_printed_in_chinese(data: Path, capsys: Capture) -> None:
    assert main(["models", "list", "--data", str(data), "--language", "zh"]) == 0
    assert "正在使用" in capsys.readouterr().out


def test_info_prints_all_details(data: Path, mine: Path, demo: Bundle, capsys: Capture) -> None:
    assert impchat(data, "models", "info", "mine") == 0
    out = capsys.readouterr().out
    for part in ("My own", str(mine), demo.files["language"].sha256, "q8_0", "196", "phi2"):
        assert part in out
    assert impchat(data, "models", "info", settings.DEFAULT_MODEL) == 0
    out = capsys.readouterr().out
    for part in ("MILVLG/Imp-v1.5-3B-196", "research use only", "3.19", "6.4 GB", "4.2 GB"):
        assert part in out


def test_verify_reads_every_byte(data: Path, mine: Path, demo: Bundle, capsys: Capture) -> None:
    language = mine / demo.files["language"].name
    language.write_bytes(language.read_bytes()[:-1] + b"?")
    assert impchat(data, "models", "verify", "mine") == 2
    assert "is not the one its manifest names" in capsys.readouterr().err


def test_nothing_is_removed_without_confirmation(data: Path, mine: Path, capsys: Capture) -> None:
    with terminal(data, "models", "rm", "mine") as screen:
        screen.expect("[y/N]")
        screen.type("n\n")
        assert screen.leave() == 1
    assert mine.is_dir()
    assert impchat(data, "models", "rm", "mine", "--yes") == 0
    assert "frees 5 MB" in capsys.readouterr().err
    assert not mine.exists()


def test_the_licence_is_shown_before_the_download(data: Path, capsys: Capture) -> None:
    assert impchat(data, "models", "pull") == 2
    err = capsys.readouterr().err
    assert "MILVLG/Imp-v1.5-3B-196" in err and "research use only" in err
    assert "--accept-licence" in err.strip().splitlines()[-1]


def test_the_doctor_names_an_unfinished_download(data: Path, capsys: Capture) -> None:
    unfinished = paths.checkpoints_dir(data) / settings.DEFAULT_MODEL
    unfinished.mkdir(parents=True)
    (unfinished / library.PULL).write_text("{}")
    assert impchat(data, "doctor") == 0
    assert "The download of imp-v1.5-3b-196 is unfinished" in capsys.readouterr().out
