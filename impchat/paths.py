"""The locations of ImpChat's data, models and included files on this machine.

In: the environment variable IMPCHAT_DATA, or the platform's folder for application data. Out: paths. Only
`ensure_data_dir` writes to the disk; if the package is in a zip, the included files are unpacked as well.
This file does not know what the files contain.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from impchat import settings
from impchat.errors import HistoryError


def data_dir() -> Path:
    """The folder of the history, the pictures and downloaded models. It need not exist yet.

    Raises HistoryError "data.no_home" and "data.no_user"."""
    from platformdirs import user_data_dir

    chosen = os.environ.get("IMPCHAT_DATA")
    return typed(chosen) if chosen else _of_platform(user_data_dir)


def typed(path: str) -> Path:
    """A data folder as typed by a user: `~` and `~user` are expanded.

    Raises HistoryError "data.no_user" if there is no such home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError as exc:
        raise HistoryError("data.no_user", path=path) from exc


def _of_platform(place: Callable[..., str]) -> Path:
    """The platform's folder for ImpChat. Raises HistoryError "data.no_home"."""
    try:
        return Path(place("impchat", appauthor=False)).expanduser()  # older versions of platformdirs do not expand `~`
    except RuntimeError as exc:
        raise HistoryError("data.no_home") from exc


def ensure_data_dir(path: Path) -> Path:
    """Create the folder `path` if it is missing, readable by its owner only, and return it.

    Raises HistoryError "data.unwritable" if it cannot be created or written to."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise HistoryError("data.unwritable", path=str(path)) from exc
    if not os.access(path, os.W_OK | os.X_OK):
        raise HistoryError("data.unwritable", path=str(path))
    return path


def history_file(data: Path) -> Path:
    """The database in the data folder `data`; the folder `images` next to it has its pictures."""
    return data / "history.db"


def kv_states_dir(data: Path) -> Path:
    """The folder of saved KV states in the data folder `data`."""
    return data / "kv-states"


def kv_state_name(conversation: str) -> str:
    """The name of the file with the KV state of a conversation."""
    return hashlib.sha256(conversation.encode()).hexdigest()[:32]


def embeddings_dir(data: Path) -> Path:
    """The folder of the saved embeddings of pictures in the data folder `data`. The names of a picture's files begin
    with its sha256 and a hyphen."""
    return data / "embeddings"


def models_dir(data: Path) -> Path:
    """The folder of downloaded and converted models in the data folder `data`."""
    return data / "models"


def checkpoints_dir(data: Path) -> Path:
    """The folder of checkpoints from which models in the data folder `data` are made, while they are needed."""
    return data / "checkpoints"


def server_dir(data: Path) -> Path:
    """The server's folder in the data folder `data`: access tokens, paired devices and its certificate."""
    return data / "server"


def apps_dir(data: Path) -> Path:
    """The folder in the data folder `data` with the app files that phones can download."""
    return data / "apps"


def cache_dir() -> Path:
    """The folder for files that can be recreated: `cache` in a chosen data folder, else the platform's cache."""
    from platformdirs import user_cache_dir

    chosen = os.environ.get("IMPCHAT_DATA")
    return typed(chosen) / "cache" if chosen else _of_platform(user_cache_dir)


def demo_bundle() -> Path:
    """The demo model included with ImpChat."""
    return _assets() / settings.DEMO_MODEL


def samples_dir() -> Path:
    """The folder of the included sample pictures."""
    return _assets() / "samples"


def samples(demo: bool = False) -> list[Path]:
    """The files of the included sample pictures, drawings before photographs. `demo`: only the drawings, because the
    demo model knows nothing else."""
    files = [path for path in samples_dir().glob("*") if path.suffix in ((".png",) if demo else (".png", ".jpg"))]
    return sorted(files, key=lambda path: (path.suffix != ".png", path.name))


def sample_of(sha256: str) -> str:
    """The name of the sample picture with this hash, without its extension; "" if it is another picture."""
    return _sample_names().get(sha256, "")


@lru_cache
def _sample_names() -> dict[str, str]:
    return {hashlib.sha256(path.read_bytes()).hexdigest(): path.stem for path in samples()}


@lru_cache
def _assets() -> Path:
    """The files included with ImpChat: inside the package in an installed wheel, next to it in a checkout. On an
    Android phone the package is in a zip, and they are unpacked from it."""
    package = Path(__file__).parent
    for folder in (package / "assets", package.parent / "assets"):
        if folder.is_dir():
            return folder
    from impchat import shipped

    archive = next(parent for parent in package.parents if parent.is_file())
    return shipped.unpack(archive, "impchat/assets/", cache_dir() / "shipped")
