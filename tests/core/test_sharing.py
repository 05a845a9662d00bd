"""How the prompts that several people ask at the same time share a step of reading."""

from __future__ import annotations

import numpy as np

from impchat import settings
from impchat.engines.local.kv_cache import Cell, Slot
from impchat.engines.local.request import Request
from impchat.engines.local.scheduler import _share_out
from impchat.messages import Prompt
from tests.core.conformance import GREEDY


def reader(sequence: int, cells: list[Cell], read: int = 0) -> Request:
    """A request that has read `read` of its `cells`, in the slot `sequence`."""
    request = Request(Prompt("", ()), GREEDY)
    request.cells, request.slot = cells, Slot(sequence, cells[:read])
    request.read = read
    return request


def text(length: int) -> list[Cell]:
    return list(range(length))


def shares(readers: list[Request], budget: int) -> dict[int, int]:
    """Sequence -> cells of its part."""
    texts, pictures = _share_out(readers, budget)
    return {part.slot.sequence: len(part.cells) for part in (*texts, *pictures)}


def test_neighbours_read_equally_much() -> None:
    assert shares([reader(1, text(40)), reader(2, text(50))], 64) == {1: 32, 2: 32}
    assert shares([reader(1, text(40), read=32), reader(2, text(50), read=32)], 64) == {1: 8, 2: 18}


def test_what_is_left_goes_to_the_others() -> None:
    assert shares([reader(1, text(10)), reader(3, text(100))], 64) == {1: 10, 3: 54}
    assert shares([reader(3, text(100)), reader(1, text(10))], 64) == {3: 64}, "the first one in turn goes first"


def test_a_share_is_not_smaller_than_a_step_is_worth() -> None:
    least = settings.PREFILL_LEAST_TOKENS
    crowd = [reader(n, text(100)) for n in range(8)]
    assert shares(crowd, 4 * least) == dict.fromkeys(range(4), least)


def test_a_picture_that_is_not_encoded_yet_delays_nobody() -> None:
    waiting = reader(0, [("a" * 64, n) for n in range(196)])
    assert shares([waiting, reader(1, text(40)), reader(2, text(40))], 64) == {1: 32, 2: 32}


def test_a_long_text_does_not_keep_a_picture_waiting() -> None:
    picture = reader(0, [("a" * 64, n) for n in range(196)])
    picture.embeddings["a" * 64] = np.zeros((196, 1), np.float32)
    assert shares([picture, reader(1, text(1000))], 64) == {0: 64}
    assert shares([reader(1, text(1000)), picture], 64) == {1: 64}
