"""Look closer: a question is asked about a picture and about its four quarters, and one answer is composed.

In: an engine, a question and a picture. Out: five rows, and the answer that they add up to, with the part that it is
from.
A quarter reaches the model at 1.7 times the resolution, so small things are found that the whole picture hides.
The composition changes the answer about the whole picture in two cases only: it says that something is not there and a
quarter has an answer; or it has boxes and those of a quarter are finer. `python -m benchmarks.closer` measures the gain
(docs/benchmarks.md).
This file does not know the model: absence is recognised by common words, in English and Chinese.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

from impchat import settings
from impchat.batch import Batch, Item
from impchat.engines import Engine
from impchat.images import boxes, edit
from impchat.images.boxes import Box
from impchat.messages import Sampling
from impchat.table import Row
from impchat.texts import say

WHOLE = "whole"
PARTS = {  # they overlap by a fifth of the picture, so that a small thing is complete in at least one
    WHOLE: Box(0, 0, 1, 1),
    "top_left": Box(0, 0, 0.6, 0.6),
    "top_right": Box(0.4, 0, 1, 0.6),
    "bottom_left": Box(0, 0.4, 0.6, 1),
    "bottom_right": Box(0.4, 0.4, 1, 1),
}
_ABSENT = re.compile(
    r"\bthere (?:is|are) (?:no|nothing|not any)\b|\bno .* (?:visible|seen)\b|(?:\bnot|n['’]t) (?:see|contain|show)\b"
    r"|\bempty\b|没有|看不|^(?:no|不|不是|否)[.。!！]?$",
    re.IGNORECASE,
)
_SAME = 0.1  # least overlap (IoU) of the box of a thing in the whole picture with that in a quarter
_AGREED = 0.2  # the same for two quarters that must agree, because the whole picture has no box


@dataclass(frozen=True, slots=True)
class Composed:
    """The answer of five rows. `answer` has boxes in fractions of the whole picture; its words for places refer to
    `part`, a key of `PARTS`. `notes`: the answer for each part, in the order of `PARTS`; "" for one that failed."""

    answer: str
    part: str
    notes: tuple[str, ...]

    def text(self, language: str) -> str:
        """The answer for people: it names the part, if that is not the whole picture."""
        if self.part == WHOLE:
            return self.answer
        return say("closer.found", language, part=say(f"closer.{self.part}", language), answer=self.answer)


def batch(
    engine: Engine,
    question: str,
    picture: bytes,
    *,
    system: str = settings.SYSTEM,
    sampling: Sampling | None = None,
    at_once: int = settings.SLOTS,
    language: str = "en",
) -> Batch:
    """The five questions as a `Batch`, with its progress and stop. The `file` of a row is its key of `PARTS`; pass all
    rows to `compose`. `picture`: the stored bytes. Raises as `Batch`; an unusable picture becomes failed rows."""
    items = [Item(name, partial(edit.cut, picture, box)) for name, box in PARTS.items()]
    return Batch(engine, question, items, system=system, sampling=sampling, at_once=at_once, language=language)


def compose(rows: Iterable[Row]) -> Composed | None:
    """The answer of the five rows, in any order; None if the one about the whole picture is missing or failed."""
    said = {row.file: row.answer for row in rows if not row.failed}
    if WHOLE not in said:
        return None
    notes = tuple(said.get(name, "") for name in PARTS)
    found = {  # the boxes of each quarter, in fractions of the whole picture
        name: [_outwards(box, PARTS[name]) for box in boxes.boxes(said.get(name, ""))]
        for name in PARTS
        if name != WHOLE
    }
    whole = said[WHOLE]
    if boxes.boxes(whole):
        return Composed(boxes.replace(whole, lambda box: _finer(box, found)), WHOLE, notes)
    if not _ABSENT.search(whole):
        return Composed(whole, WHOLE, notes)
    if any(found.values()):
        part = _agreed(found)
        answer = boxes.replace(said[part], lambda box: _outwards(box, PARTS[part])) if part else whole
        return Composed(answer, part or WHOLE, notes)
    seen = [name for name in found if said.get(name) and not _ABSENT.search(said[name])]
    if not seen:
        return Composed(whole, WHOLE, notes)
    answer, _ = Counter(said[name] for name in seen).most_common(1)[0]
    return Composed(answer, next(name for name in seen if said[name] == answer), notes)


def _outwards(box: Box, part: Box) -> Box:
    """A box in `part` as a box in the whole picture."""
    width, height = part.right - part.left, part.bottom - part.top
    return Box(
        part.left + box.left * width,
        part.top + box.top * height,
        part.left + box.right * width,
        part.top + box.bottom * height,
    )


def _finer(box: Box, found: Mapping[str, Sequence[Box]]) -> Box:
    """The box of the same thing in a quarter that contains all of it, if there is one, else `box`."""
    best = max((b for name in found if PARTS[name].contains(box) for b in found[name]), key=box.overlap, default=box)
    return best if box.overlap(best) >= _SAME else box


def _agreed(found: Mapping[str, Sequence[Box]]) -> str:
    """The first of two parts whose first boxes agree best; "" if no two agree."""
    pairs = [
        (found[one][0].overlap(found[other][0]), one)
        for one, other in combinations(found, 2)
        if found[one] and found[other]
    ]
    overlap, part = max(pairs, default=(0.0, ""))
    return part if overlap >= _AGREED else ""
