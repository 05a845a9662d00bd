"""An Imp checkpoint on disk, as published: config.json, safetensors, tokenizer.json.

In: a folder. Out: its configuration and tokenizer files (`Folder`, which does not need the weights), and its tensors by
name (read one at a time, so that gigabytes are never in memory at once); `write` creates such a folder.
This file does not know which names or shapes a model needs; `layouts` does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impchat.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    Array = NDArray[np.float32 | np.float16]

CONFIG = "config.json"
GENERATION = "generation_config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
ADDED_TOKENS = "added_tokens.json"
VOCAB = "vocab.json"  # in older checkpoints, these two replace tokenizer.json
MERGES = "merges.txt"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_DTYPES = {"F32": "float32", "F16": "float16"}
_NAMES_SHOWN = 6


class Config:
    """config.json, or an object in it, whose fields are read with their type.

    Older configurations use other field names, so several names may be given: the first one found counts. `default` is
    the default of the configuration's class in transformers.
    Raises ModelError "checkpoint.config" that names a field that is missing or of another type."""

    def __init__(self, values: Mapping[str, Any], path: Path) -> None:
        self.values = values
        self.path = path

    def integer(self, *names: str, default: int | None = None) -> int:
        value = self._take(int, names, default)
        if value < 1:
            raise self.wrong(names[0], value)
        return int(value)

    def number(self, *names: str, default: float | None = None) -> float:
        return float(self._take((int, float), names, default))

    def text(self, *names: str, default: str | None = None) -> str:
        return str(self._take(str, names, default))

    def only(self, field: str, *allowed: Any) -> None:
        """Raises unless `field` is one of `allowed` or missing."""
        if field in self.values and self.values[field] not in allowed:
            raise self.wrong(field, self.values[field])

    def inner(self, name: str) -> Config:
        return Config(self._take(dict, (name,)), self.path)

    def wrong(self, field: str, value: Any) -> ModelError:
        """The error for a field with an unsupported value; None: it is missing or of the wrong type."""
        return ModelError("checkpoint.config", path=str(self.path), field=field, value=json.dumps(value))

    def _take(self, kind: type | tuple[type, ...], names: tuple[str, ...], default: Any = None) -> Any:
        value = next((v for n in names if (v := self.values.get(n)) is not None), default)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.wrong(names[0], value)
        return value


class Folder:
    """A checkpoint folder without its weights, whose files need not exist yet.

    Raises ModelError: "checkpoint.missing" (a file does not exist), "checkpoint.broken" (a file cannot be read)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hashes: dict[str, str] = {}  # name -> sha256 of each file that was read
        self.config = Config(self.json(CONFIG), path / CONFIG)
        self.where = self._where()  # name of a tensor -> name of its weight file

    @property
    def names(self) -> set[str]:
        """Of all tensors."""
        return set(self.where)

    @property
    def weight_files(self) -> list[str]:
        return sorted(set(self.where.values()))

    def has(self, name: str) -> bool:
        return (self.path / name).is_file()

    def text(self, name: str) -> str:
        """The content of a text file of the folder."""
        try:
            data = (self.path / name).read_bytes()
            text = data.decode("utf-8")
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise ModelError("checkpoint.missing", path=str(self.path), file=name) from exc
        except (OSError, ValueError) as exc:
            raise self.broken(name, str(exc)) from exc
        self.hashes[name] = hashlib.sha256(data).hexdigest()
        return text

    def json(self, name: str) -> dict[str, Any]:
        """The content of a JSON file of the folder."""
        try:
            values = json.loads(self.text(name))
        except ValueError as exc:
            raise self.broken(name, str(exc)) from exc
        if not isinstance(values, dict):
            raise self.broken(name, "not an object")
        return values

    def broken(self, name: str, detail: str) -> ModelError:
        """The error for an unreadable file."""
        return ModelError("checkpoint.broken", path=str(self.path), file=name, detail=detail)

    def _where(self) -> dict[str, str]:
        if not self.has(INDEX):
            return dict.fromkeys(WeightFile(self.path / WEIGHTS).names, WEIGHTS)
        where = self.json(INDEX).get("weight_map")
        if not isinstance(where, dict) or not all(isinstance(f, str) and Path(f).name == f for f in where.values()):
            raise self.broken(INDEX, "weight_map")
        return where


class WeightFile:
    """An open safetensors file of a checkpoint.

    Raises ModelError: "checkpoint.missing" if it does not exist, "checkpoint.broken" if it cannot be read."""

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self.path = path
        if not path.is_file():
            raise ModelError("checkpoint.missing", path=str(path.parent), file=path.name)
        try:
            # Not closed explicitly: the mapping is released with the last reference.
            self._file: Any = safe_open(path, framework="numpy")
        except (SafetensorError, OSError) as exc:
            raise ModelError("checkpoint.broken", path=str(path.parent), file=path.name, detail=str(exc)) from exc
        self.names: list[str] = sorted(self._file.keys())

    def expect(self, names: Iterable[str]) -> None:
        """Raises ModelError "checkpoint.tensors_missing" or "checkpoint.tensors_unknown" unless the file contains
        exactly the tensors `names`."""
        expected, path = set(names), str(self.path)
        if missing := expected - {*self.names}:
            raise ModelError("checkpoint.tensors_missing", path=path, names=listed(missing))
        if unknown := {*self.names} - expected:
            raise ModelError("checkpoint.tensors_unknown", path=path, names=listed(unknown))

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file.get_slice(name).get_shape())

    def read(self, name: str, rows: tuple[int, int] | None = None) -> Array:
        """The tensor `name`, or its `rows` (start, end), in the stored type; bfloat16 as float32, because NumPy lacks
        it.

        Raises ModelError "checkpoint.dtype" for other types."""
        part = self._file.get_slice(name)
        wanted = slice(*rows) if rows else slice(None)
        if part.get_dtype() == "BF16":
            from safetensors import safe_open

            with safe_open(self.path, framework="pt") as opened:
                widened: Array = opened.get_slice(name)[wanted].float().numpy()
            return widened
        if part.get_dtype() not in _DTYPES:
            raise ModelError("checkpoint.dtype", path=str(self.path.parent), name=name, found=part.get_dtype())
        array: Array = part[wanted]
        return array


class Checkpoint(Folder):
    """An open checkpoint folder with its weights.

    Raises ModelError as Folder and WeightFile, also if the tensors of a weight file differ from the index."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._files = {file: WeightFile(path / file) for file in self.weight_files}
        for name, file in self._files.items():
            file.expect(tensor for tensor, where in self.where.items() if where == name)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._files[self.where[name]].shape(name)

    def read(self, name: str, rows: tuple[int, int] | None = None) -> Array:
        """As WeightFile.read."""
        return self._files[self.where[name]].read(name, rows)


def listed(names: Iterable[str]) -> str:
    """Tensor names for a sentence: the first few in order, and the number of the others."""
    ordered = sorted(names)
    more = len(ordered) - _NAMES_SHOWN
    return ", ".join(ordered[:_NAMES_SHOWN]) + (f" (+{more})" if more > 0 else "")


def write(path: Path, tensors: Mapping[str, Any], config: Mapping[str, Any], tokenizer: Tokenizer) -> None:
    """Write an Imp checkpoint into the folder `path` (created if missing, files replaced).

    `tensors`: name -> NumPy array or torch tensor, float32 or float16, stored unchanged; `config`: config.json."""
    import numpy as np
    from safetensors.numpy import save_file

    path.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for name, tensor in tensors.items():
        array = np.ascontiguousarray(tensor.detach().cpu().numpy() if hasattr(tensor, "detach") else tensor)
        assert str(array.dtype) in _DTYPES.values(), f"{name} is {array.dtype}"
        arrays[name] = array
    save_file(arrays, path / WEIGHTS, metadata={"format": "pt"})  # required by transformers
    tokenizer.save(str(path / TOKENIZER))
    added = tokenizer.get_added_tokens_decoder()
    eos = tokenizer.id_to_token(config["eos_token_id"])
    # `ensure_ascii` is off because people read these files too
    for name, values in {
        CONFIG: config,
        GENERATION: {"eos_token_id": config["eos_token_id"]},
        ADDED_TOKENS: {token.content: number for number, token in added.items()},
        "special_tokens_map.json": {"eos_token": eos},
        TOKENIZER_CONFIG: {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos},
    }.items():
        (path / name).write_text(json.dumps(values, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
