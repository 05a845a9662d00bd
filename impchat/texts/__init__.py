"""The catalogue of all user-visible sentences, in English and Chinese, for all front ends and errors.

In: a key and the values for its placeholders. Out: the sentence. The key of an error is `error.` + its code. This file
does not know the caller or where the sentence is shown.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from impchat.texts import en, zh

LANGUAGES = {"en": en.TEXTS, "zh": zh.TEXTS}


def say(key: str, language: str = "en", **values: Any) -> str:
    """Return the sentence for `key` in `language`, with its {placeholders} filled from `values`. The placeholders of
    `COMMANDS` need no value.

    An unknown language falls back to English. Raises KeyError for an unknown key or a missing value; both are bugs.
    """
    sentence = LANGUAGES.get(language, en.TEXTS)[key]
    for name, typed in COMMANDS.items():
        if f"{{{name}}}" in sentence:
            values.setdefault(name, typed())
    return sentence.format(**values)


def size(count: int) -> str:
    """Format a number of bytes in decimal units, as disks and system monitors do."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


# Commands that a sentence tells the user to type


@cache
def command(name: str = "impchat") -> str:
    """The command `name` of this Python environment, as the user can type it in the current folder: its bare name if
    PATH finds this one, else its path, else `python -m`."""
    import shutil

    here = shutil.which(name, path=os.path.dirname(sys.executable or ""))
    if here is None:
        return f"{_path(sys.executable) if sys.executable else 'python'} -m {name}"
    found = shutil.which(name)
    return name if found and os.path.samefile(found, here) else _path(here)


def install(extra: str = "") -> str:
    """The command that installs ImpChat's packages into this environment, with those of `extra` if it is given."""
    project = Path(__file__).parents[2]
    checkout = (project / "pyproject.toml").is_file()
    source = _relative(project) if checkout else "impchat"
    target = shlex.quote(f"{source}[{extra}]" if extra else source)
    return f"{command('pip')} install {'-e ' if checkout else ''}{target}"


COMMANDS: dict[str, Callable[[], str]] = {"impchat": command, "install": install}


def _path(path: str) -> str:
    return shlex.quote(_relative(Path(path)))


def _relative(path: Path) -> str:
    """`path` relative to the current folder if it is below it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (OSError, ValueError):  # the current folder may be gone
        return str(path)
