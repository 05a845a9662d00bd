"""The text catalogue: both languages have the same keys, and every error that the code can raise has a sentence."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

import pytest

from impchat import errors, texts

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    file
    for folder in ("impchat", "web", "mobile")
    for file in (ROOT / folder).rglob("*.py")
    if "texts" not in file.parts
)
EN, ZH = texts.LANGUAGES["en"], texts.LANGUAGES["zh"]
CODE = re.compile(r"[a-z]+\.[a-z_]+")
RAISED = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
SAYING = {"say", "text", "note"}  # functions whose first argument is a key of the catalogue


def places(sentence: str) -> set[str]:
    """The places that need a value."""
    return {name for _, name, _, _ in Formatter().parse(sentence) if name is not None} - texts.COMMANDS.keys()


@dataclass(frozen=True)
class Site:
    """A call in the code that creates an error."""

    where: str
    codes: frozenset[str]  # more than one if a variable decides
    values: frozenset[str] | None  # names of the given values; None: not written out at the call


def calls(file: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node


def name_of(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def constant(node: ast.expr | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def sites() -> Iterator[Site]:
    for file in SOURCES:
        source = file.read_text(encoding="utf-8")
        written = {code for code in re.findall(r'"([a-z]+\.[a-z_]+)"', source) if f"error.{code}" in EN}
        for call in calls(file):
            kind, first = name_of(call), call.args[0] if call.args else None
            if kind not in RAISED | {"Failed"} or first is None:
                continue
            values: frozenset[str] | None
            if kind == "Failed":
                given = call.args[1]
                values = frozenset(filter(None, map(constant, given.keys))) if isinstance(given, ast.Dict) else None
            else:
                values = frozenset(k.arg for k in call.keywords if k.arg)
                values = None if any(k.arg is None for k in call.keywords) else values
            code = constant(first)
            if code is None and (kind == "Failed" or values is None):
                continue  # copies the code and the values of another error
            where = f"{file.relative_to(ROOT)}:{call.lineno}"
            yield Site(where, frozenset({code} if code else written), values)


SITES = list(sites())


def test_both_languages_have_the_same_keys_and_placeholders() -> None:
    assert EN.keys() == ZH.keys()
    different = [key for key in EN if places(EN[key]) != places(ZH[key])]
    assert different == []
    commands = [f"{{{name}}}" for name in texts.COMMANDS]
    assert [key for key in EN for name in commands if EN[key].count(name) != ZH[key].count(name)] == []


def test_chinese_is_chinese_and_english_is_not() -> None:
    chinese = re.compile(r"[\u4e00-\u9fff]")
    assert [key for key in EN if chinese.search(EN[key])] == ["language.zh"] * ("language.zh" in EN)
    untranslated = [key for key in ZH if not chinese.search(ZH[key]) and re.search(r"[A-Za-z]{2} [a-z]{2}", ZH[key])]
    assert untranslated == []


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.where)
def test_every_error_has_a_sentence_and_passes_its_values(site: Site) -> None:
    assert site.codes, "an error whose code cannot be found"
    for code in site.codes:
        assert CODE.fullmatch(code)
        assert f"error.{code}" in EN, f"no sentence for {code}"
        if site.values is not None and len(site.codes) == 1:
            assert places(EN[f"error.{code}"]) <= site.values, code


def test_every_error_sentence_is_used() -> None:
    used = {code for site in SITES for code in site.codes}
    for file in SOURCES:
        used |= set(re.findall(r'"([a-z]+\.[a-z_]+)"', file.read_text(encoding="utf-8")))
    assert [key for key in EN if key.startswith("error.") and key.removeprefix("error.") not in used] == []


def test_every_used_key_is_in_the_catalogue() -> None:
    missing = []
    for file in SOURCES:
        for call in calls(file):
            key = constant(call.args[0]) if call.args else None
            if name_of(call) in SAYING and key and re.fullmatch(r"[a-z]+(\.[a-z_]+)+", key):
                found = key in EN or f"help.{key}" in EN
                missing += [] if found else [f"{file.relative_to(ROOT)}:{call.lineno} {key}"]
    assert missing == []


def test_a_sentence_is_filled_with_its_values() -> None:
    assert texts.say("error.file.exists", "en", path="x.zip").startswith("x.zip exists")
    assert "x.zip" in texts.say("error.file.exists", "zh", path="x.zip")
    assert texts.say("app.name", "fr") == "ImpChat", "an unknown language falls back to English"
    with pytest.raises(KeyError):
        texts.say("error.file.exists", "en")
    assert str(errors.SettingsError("file.exists", path="x.zip")) == texts.say("error.file.exists", path="x.zip")


def test_a_sentence_names_a_command_as_the_user_can_type_it(tmp_path: Path) -> None:
    scripts = Path(sys.executable).parent  # of this environment, which holds a checkout
    code = "from impchat import texts; print(texts.say('servers.none')); print(texts.install('web'))"

    def told(folder: Path, path: str) -> list[str]:
        environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.splitlines()

    for folder, path, place, project in (
        (tmp_path, "", f"{scripts}/", ROOT),
        (scripts.parent, "", f"{scripts.name}/", ROOT),
        (ROOT, os.pathsep.join((str(tmp_path), str(scripts))), "", "."),
    ):
        sentence, install = told(folder, path)
        assert f": {place}impchat servers add URL" in sentence
        assert install == f"{place}pip install -e '{project}[web]'"
    (tmp_path / "impchat").write_text("#!/bin/sh\n")
    (tmp_path / "impchat").chmod(0o755)
    assert f" {scripts}/impchat servers" in told(tmp_path, str(tmp_path))[0], "the one on PATH is another program"
