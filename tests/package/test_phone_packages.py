"""Every package of the app is available for phones, in a version that all its requirements accept.

Flet's index is not used; phone_wheels.txt lists the results of its recipes.
"""

from __future__ import annotations

import pytest
from packaging.requirements import Requirement

from tests.package.phone import PROJECT, needed, wheels

PHONES = pytest.mark.parametrize("phone", ["android", "ios"])


@PHONES
def test_compiled_packages_are_built_for_phones_in_a_required_version(phone: str) -> None:
    built = wheels()
    packages = needed(phone)
    assert {"numpy", "llama-cpp-python", "onnxruntime", "flet", "msgpack"} <= {package.name for package in packages}
    for package in packages:
        if package.name in built:
            for asked in package.asked:
                assert asked.specifier.contains(built[package.name]), f"{asked}, and phones have {built[package.name]}"
        else:
            assert package.pure, f"{package.name} is compiled, and there is no wheel of it for phones"


@PHONES
def test_packages_of_servers_and_desktops_are_not_on_the_phone(phone: str) -> None:
    brought = {package.name for package in needed(phone)}
    assert not brought & {"gradio", "fastapi", "uvicorn", "torch", "transformers", "rich", "flet-web", "flet-cli"}


def test_both_phones_and_the_desktop_have_the_same_flet() -> None:
    android, ios = (set(PROJECT["tool"]["flet"][phone]["dependencies"]) for phone in ("android", "ios"))
    assert android == ios
    desktop = [Requirement(line) for line in PROJECT["project"]["optional-dependencies"]["mobile"]]
    pinned = {f"{needed.name}{needed.specifier}" for needed in desktop if needed.name.startswith("flet")}
    assert {line for line in android if line.startswith("flet")} == pinned
    assert {Requirement(line).name for line in android} - {"impchat"} <= {needed.name for needed in desktop}
