"""Importing the core does not import heavy packages; they are imported on first use."""

import json
import pkgutil
import subprocess
import sys

import impchat

# A phone lacks the first five; each of the others takes longer to import than the rest of the core.
LAZY = ["gradio", "flet", "torch", "transformers", "fastapi", "llama_cpp", "onnxruntime", "sqlite_utils", "httpx"]

# The parts of the package that a phone never imports.
APART = ("impchat.models.convert", "impchat.server", "impchat.__main__")

CORE = ["impchat"] + [
    m.name for m in pkgutil.walk_packages(impchat.__path__, "impchat.") if not m.name.startswith(APART)
]


def test_importing_the_whole_core_imports_no_heavy_package() -> None:
    code = f"""
import importlib, json, sys
for name in {CORE!r}:
    importlib.import_module(name)
print(json.dumps([*sys.modules]))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    assert set(CORE) <= set(loaded)
    assert [name for name in LAZY if name in loaded] == []
