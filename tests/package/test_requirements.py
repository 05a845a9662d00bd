"""The packages that installing ImpChat brings, computed from the installed metadata as pip does it."""

from importlib.metadata import requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.package.flet_build import ROOT

# The platforms as pip sees them: Flet's packager sets platform_system to its target and leaves sys_platform unchanged.
DESKTOP = {"platform_system": "Linux", "sys_platform": "linux", "extra": ""}
ANDROID = {"platform_system": "Android", "sys_platform": "linux", "extra": ""}
IOS = {"platform_system": "iOS", "sys_platform": "darwin", "extra": ""}


def wanted(environment: dict[str, str]) -> dict[str, str]:
    """Name -> version specifier of every package that the core installs in `environment`."""
    found = [Requirement(line) for line in requires("impchat") or []]
    return {r.name: str(r.specifier) for r in found if r.marker is None or r.marker.evaluate(environment)}


def test_a_desktop_gets_the_fast_llama_cpp_and_the_terminal() -> None:
    assert wanted(DESKTOP)["llama-cpp-python"] == "==0.3.36"
    assert "rich" in wanted(DESKTOP)


@pytest.mark.parametrize("phone", [ANDROID, IOS], ids=["android", "ios"])
def test_a_phone_gets_the_llama_cpp_that_has_phone_wheels_and_nothing_for_terminals(phone: dict[str, str]) -> None:
    assert wanted(phone)["llama-cpp-python"] == "==0.3.32"
    assert "rich" not in wanted(phone)


@pytest.mark.parametrize("environment", [DESKTOP, ANDROID, IOS], ids=["desktop", "android", "ios"])
def test_the_core_alone_brings_no_front_end_and_no_training_framework(environment: dict[str, str]) -> None:
    assert not {"gradio", "flet", "torch", "transformers", "fastapi"} & set(wanted(environment))


def test_every_package_has_a_locked_version_that_fits() -> None:
    locked: dict[str, list[str]] = {}
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines():
        name, version = line.partition(";")[0].strip().split("==")
        locked.setdefault(canonicalize_name(name), []).append(version)
    found = [Requirement(line) for line in requires("impchat") or []]
    ours = [r for r in found if r.name != "impchat" and '== "Android"' not in str(r.marker)]
    wrong = [str(r) for r in ours if not any(map(r.specifier.contains, locked.get(canonicalize_name(r.name), [])))]
    assert len(ours) > 30
    assert wrong == []  # `make lock` writes requirements.lock again
