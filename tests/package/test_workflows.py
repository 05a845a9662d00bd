"""The workflows: linted, and their shell steps run here if they need neither a toolchain nor GitHub."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from impchat import paths
from impchat.app import App
from impchat.texts import LANGUAGES
from tests.package.flet_build import ROOT

WORKFLOWS = ROOT / ".github" / "workflows"
TOOLS = Path(sys.executable).parent


def lint(*files: Path) -> subprocess.CompletedProcess[str]:
    command = [TOOLS / "actionlint", "-no-color", "-shellcheck", str(TOOLS / "shellcheck"), *files]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def step(workflow: str, id: str) -> str:
    """The shell script of a step."""
    jobs: dict[str, Any] = yaml.safe_load((WORKFLOWS / f"{workflow}.yml").read_text(encoding="utf-8"))["jobs"]
    [found] = [s["run"] for job in jobs.values() for s in job.get("steps", []) if s.get("id") == id]
    return str(found)


def run(workflow: str, id: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a step as GitHub does."""
    path = {"PATH": f"{TOOLS}:/usr/local/bin:/usr/bin:/bin", "GITHUB_STEP_SUMMARY": str(folder / "summary")}
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step(workflow, id)]
    return subprocess.run(command, cwd=folder, env=path | environment, capture_output=True, text=True, check=False)


def test_the_workflows_and_their_shell_steps_pass_the_linter() -> None:
    checked = lint(*sorted(WORKFLOWS.glob("*.yml")))
    assert (checked.returncode, checked.stdout) == (0, "")


def test_the_linter_finds_errors(tmp_path: Path) -> None:
    broken = (WORKFLOWS / "release.yml").read_text().replace('"$TAG" != "v$version"', "$TAG != v$version")
    (tmp_path / "broken.yml").write_text(broken.replace("needs: version", "needs: versions"))
    said = lint(tmp_path / "broken.yml").stdout
    assert "SC2086" in said
    assert '"versions"' in said


@pytest.mark.parametrize(
    ("tag", "log", "code", "said"),
    [
        ("v1.2.3", "## [1.2.3] - 2026-11-01", 0, ""),
        ("v1.2.4", "## [1.2.3] - 2026-11-01", 1, "pyproject.toml says 1.2.3"),
        ("v1.2.3", "## [Unreleased]", 1, "no section [1.2.3]"),
    ],
    ids=["agree", "another tag", "no section"],
)
def test_a_tag_that_differs_from_the_version_stops_a_release(
    tmp_path: Path, tag: str, log: str, code: int, said: str
) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "impchat"\nversion = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{log}\n")
    done = run("release", "compare", tmp_path, TAG=tag)
    assert done.returncode == code
    assert said in done.stdout


def test_the_release_notes_are_the_versions_own_section(tmp_path: Path) -> None:
    sections = [
        "# Changelog",
        "## [Unreleased]",
        "## [1.2.3] - 2026-11-01",
        "### Added",
        "- This.",
        "## [1.2.2]",
        "- That.",
    ]
    (tmp_path / "CHANGELOG.md").write_text("\n\n".join(sections) + "\n")
    assert run("release", "notes", tmp_path, TAG="v1.2.3").returncode == 0
    assert (tmp_path / "notes.md").read_text().split() == ["###", "Added", "-", "This."]


def test_the_checksums_cover_all_files_and_are_right(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for name in ("impchat-arm64-v8a.apk", "impchat-0.1.0-py3-none-any.whl"):
        (tmp_path / "files" / name).write_bytes(name.encode())
    assert run("release", "checksums", tmp_path).returncode == 0
    listed = (tmp_path / "files" / "SHA256SUMS").read_text()
    assert {line.split()[1] for line in listed.splitlines()} == {
        "impchat-arm64-v8a.apk",
        "impchat-0.1.0-py3-none-any.whl",
    }
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path / "files", check=True)


def test_the_key_comes_from_the_secrets_and_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    secrets = {"KEYSTORE": base64.b64encode(b"a key").decode(), "PASSWORD": "pass word", "ALIAS": "upload"}
    where = {"RUNNER_TEMP": str(tmp_path), "GITHUB_ENV": str(tmp_path / "env")}
    done = run("mobile", "key", tmp_path, **secrets, **where)
    assert done.returncode == 0
    assert "pass word" not in done.stdout + done.stderr
    key = tmp_path / "release.jks"
    assert key.read_bytes() == b"a key"
    assert key.stat().st_mode & 0o077 == 0
    given = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    assert given["FLET_ANDROID_SIGNING_KEY_STORE"] == str(key)
    assert given["FLET_ANDROID_SIGNING_KEY_STORE_PASSWORD"] == given["FLET_ANDROID_SIGNING_KEY_PASSWORD"] == "pass word"
    assert given["FLET_ANDROID_SIGNING_KEY_ALIAS"] == "upload"


def test_without_secrets_the_debug_key_signs_and_a_notice_says_so(tmp_path: Path) -> None:
    where = {"RUNNER_TEMP": str(tmp_path), "GITHUB_ENV": str(tmp_path / "env")}
    done = run("mobile", "key", tmp_path, KEYSTORE="", PASSWORD="", ALIAS="", **where)
    assert done.returncode == 0
    assert "debug key" in done.stdout
    assert not (tmp_path / "env").exists()


@pytest.mark.parametrize("lacking", ["", "libllama.so", "language.gguf"], ids=["whole", "no llama.cpp", "no model"])
def test_an_apk_without_its_engine_or_its_model_is_rejected(tmp_path: Path, lacking: str) -> None:
    (tmp_path / "build/apk").mkdir(parents=True)
    packages = tmp_path / "packages.zip"
    with zipfile.ZipFile(packages, "w") as packed:
        for name in ("impchat/assets/imp-demo-196/language.gguf", "impchat/app.pyc"):
            if not lacking or lacking not in name:
                packed.writestr(name, "")
    for abi in ("arm64-v8a", "x86_64"):
        with zipfile.ZipFile(tmp_path / f"build/apk/impchat-{abi}.apk", "w") as packed:
            for name in ("libllama.so", "libonnxruntime-capi-onnxruntime_pybind11_state.so"):
                if name != lacking:
                    packed.writestr(f"lib/{abi}/{name}", "")
            packed.write(packages, "assets/sitepackages.zip")
            packed.writestr("assets/app.zip", "")
    assert run("mobile", "inside", tmp_path).returncode == bool(lacking)


def test_an_xcode_archive_becomes_an_ipa(tmp_path: Path) -> None:
    app = tmp_path / "build/ipa/Runner.xcarchive/Products/Applications/Runner.app"
    app.mkdir(parents=True)
    (app / "Info.plist").write_text("")
    assert run("mobile", "pack", tmp_path).returncode == 0
    with zipfile.ZipFile(tmp_path / "out/impchat-unsigned.ipa") as packed:
        assert "Payload/Runner.app/Info.plist" in packed.namelist()


def flow() -> list[Any]:
    """The steps in the emulator."""
    _, deeds = yaml.safe_load_all((ROOT / "tests" / "mobile" / "emulator.yaml").read_text(encoding="utf-8"))
    return [deed for deed in deeds if isinstance(deed, dict)]


def sought() -> list[str]:
    """The texts that are tapped or waited for."""
    found: list[Any] = [deed["tapOn"] for deed in flow() if "tapOn" in deed]
    found += [deed["extendedWaitUntil"]["visible"] for deed in flow() if "extendedWaitUntil" in deed]
    return [words for each in found for words in (each.values() if isinstance(each, dict) else [each])]


def test_the_emulator_taps_texts_of_the_phone_app() -> None:
    app = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "mobile").rglob("*.py"))
    shown = [re.sub(r"\{\w+\}", "2", text) for key, text in LANGUAGES["en"].items() if f'"{key}"' in app]
    assert "Your question" not in shown, "the text belongs to the page"
    plain = [words for words in sought() if not words.startswith(".*")]
    assert len(plain) > 4
    assert [words for words in plain if words not in shown] == []


def test_the_answer_in_the_emulator_is_the_demos_and_no_other_text_of_the_app(tmp_path: Path) -> None:
    [question] = [deed["inputText"] for deed in flow() if "inputText" in deed]
    [answer] = {words for words in sought() if words.startswith(".*")}
    assert [text for text in (question, *LANGUAGES["en"].values()) if re.fullmatch(answer, text, re.DOTALL)] == []
    with App.open(tmp_path) as app:
        chat = app.chat()
        chat.attach(paths.samples()[1].read_bytes())  # "Sample picture 2"
        list(chat.send(question).events())  # wait for its end
        assert re.fullmatch(answer, chat.branch()[-1].text, re.DOTALL)
    waits = [deed["extendedWaitUntil"]["visible"] for deed in flow() if "extendedWaitUntil" in deed]
    assert waits[-1] == answer, "the text after the restart is the answer"
