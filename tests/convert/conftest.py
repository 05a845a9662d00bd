"""Fixtures of the converter's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from tests.convert import checkpoints
from tests.convert.checkpoints import CORPUS, Change, Tiny, make_config, make_tensors, to_older

__all__ = ["CORPUS", "Tiny", "make_config", "make_tensors", "to_older"]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Use one torch thread: for models this small, more threads cost more time than they save."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return checkpoints.train_tokenizer()


@pytest.fixture
def make_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """make_checkpoint(Tiny(...), change=None) -> folder; `change(tensors, config)` can modify the content first."""

    def make(tiny: Tiny, change: Change | None = None) -> Path:
        name = f"checkpoint-{tiny.layout}-{tiny.head_size}-{tiny.seed}"
        return checkpoints.write(tmp_path / name, tiny, change)

    return make
