"""Where ImpChat's data, models and shipped files lie on this machine.

In: the environment variable IMPCHAT_DATA, or the platform's own place for an application's data. Out: paths; only
`ensure_data_dir` writes to the disk, and shipped files do where they lie in a zip. This file does not know what the
files in them hold.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from impchat import settings
from impchat.errors import HistoryError


def data_dir() -> Path:
    """The folder that holds the history, the pictures and downloaded models. It need not exist yet.

    Raises HistoryError "data.no_home" and "data.no_user"."""
    from platformdirs import user_data_dir

    chosen = os.environ.get("IMPCHAT_DATA")
    return typed(chosen) if chosen else _of_platform(user_data_dir)


def typed(path: str) -> Path:
    """A data folder as a person writes it: `~` and `~user` are home folders.

    Raises HistoryError "data.no_user" where that has none."""
    try:
        return Path(path).expanduser()
    except RuntimeError as exc:
        raise HistoryError("data.no_user", path=path) from exc


def _of_platform(place: Callable[..., str]) -> Path:
    """The platform's own folder for ImpChat. Raises HistoryError "data.no_home"."""
    try:
        return Path(place("impchat", appauthor=False)).expanduser()  # older ones of platformdirs leave `~` as it is
    except RuntimeError as exc:
        raise HistoryError("data.no_home") from exc


def ensure_data_dir(path: Path) -> Path:
    """Make the folder `path`, readable by its owner alone, if it is missing; give it back.

    Raises HistoryError "data.unwritable" where it cannot be made or nothing can be written into it."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise HistoryError("data.unwritable", path=str(path)) from exc
    if not os.access(path, os.W_OK | os.X_OK):
        raise HistoryError("data.unwritable", path=str(path))
    return path


def history_file(data: Path) -> Path:
    """The database of the data folder `data`; its pictures lie beside it in `images`."""
    return data / "history.db"


def models_dir(data: Path) -> Path:
    """The folder of downloaded and converted models in the data folder `data`."""
    return data / "models"


def checkpoints_dir(data: Path) -> Path:
    """The folder of the checkpoints that models in the data folder `data` are made from, while they are needed."""
    return data / "checkpoints"


def server_dir(data: Path) -> Path:
    """The folder of what the server keeps in the data folder `data`: who may use it, and its certificate."""
    return data / "server"


def apps_dir(data: Path) -> Path:
    """The folder in the data folder `data` from which phones are given the app itself."""
    return data / "apps"


def cache_dir() -> Path:
    """The folder for what can be made again: `cache` in a chosen data folder, else the platform's cache."""
    from platformdirs import user_cache_dir

    chosen = os.environ.get("IMPCHAT_DATA")
    return typed(chosen) / "cache" if chosen else _of_platform(user_cache_dir)


def demo_bundle() -> Path:
    """The bundled demo model."""
    return _assets() / settings.DEMO_MODEL


def samples_dir() -> Path:
    """The bundled sample pictures."""
    return _assets() / "samples"


def samples() -> list[Path]:
    """The files of the bundled sample pictures, drawings before photographs."""
    files = [path for path in samples_dir().glob("*") if path.suffix in (".png", ".jpg")]
    return sorted(files, key=lambda path: (path.suffix != ".png", path.name))


@lru_cache
def _assets() -> Path:
    """What ships with ImpChat: inside the package in an installed wheel, beside it in a checkout; on an Android phone
    the package lies in a zip, and they are copied out of it."""
    package = Path(__file__).parent
    for folder in (package / "assets", package.parent / "assets"):
        if folder.is_dir():
            return folder
    from impchat import shipped

    archive = next(parent for parent in package.parents if parent.is_file())
    return shipped.unpack(archive, "impchat/assets/", cache_dir() / "shipped")
