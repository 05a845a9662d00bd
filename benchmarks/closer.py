"""What looking closer gains: `python -m benchmarks.closer [--pictures N]`.

In: the demo model, and pictures in the held-out style of its evaluation with one to three things of several sizes, and
with the sizes of the evaluation itself. Out: on standard output, Markdown tables: exact answers by the size of the
things and the kind of question, and the overlap of boxes, about the whole picture and after looking closer.
This says nothing about other models: their words for absence, and what a quarter shows them, may differ.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from impchat import bundle, closer, paths
from impchat.engines.local.engine import LocalEngine
from tools.demo_model import questions, scenes
from tools.demo_model.evaluate import GREEDY, overlap, stored

SIZES = {  # radius of the things as a fraction of the shorter side; None: as the evaluation draws them
    "0.015 to 0.025": (0.015, 0.025),
    "0.025 to 0.04": (0.025, 0.04),
    "0.04 to 0.06": (0.04, 0.06),
    "as in the evaluation": None,
}


@dataclass(frozen=True, slots=True)
class Result:
    """How good the two answers to one question are: 1 or 0 for words, the overlap (IoU) for a box."""

    size: str
    kind: str
    whole: float
    closer: float


def results(engine: LocalEngine, size: str, pictures: int) -> list[Result]:
    """Ask a question of every kind about each picture, in English and Chinese in turn."""
    found = []
    for number in range(pictures):
        rng = Random(f"closer {size} {number}")
        scene = scenes.drawn(rng, replace(scenes.HELD_OUT, radii=SIZES[size]), count=rng.choice((1, 2, 3)))
        picture = stored(scene.picture).data
        for make, _ in questions.Asker(scene, questions.LANGUAGES[number % 2], rng).makers():
            exchange = make()
            if exchange is None:  # not possible for this picture
                continue
            composed = closer.compose(closer.batch(engine, exchange.question, picture, sampling=GREEDY).rows())
            assert composed
            answers = (composed.notes[0], composed.answer)
            if exchange.kind == "box" and exchange.thing:
                scores = [overlap(answer, exchange.thing.box) for answer in answers]
            else:
                scores = [float(answer == exchange.answer) for answer in answers]
            found.append(Result(size, exchange.kind, *scores))
    return found


def table(grouped: Mapping[tuple[str, ...], Sequence[Result]], heads: str, format_: str) -> str:
    """The means of each group as a Markdown table; `format_` of a number."""
    lines = [f"| {heads} | asked | whole picture | looking closer | better | worse |"]
    lines.append("|---" * (heads.count("|") + 6) + "|")
    for group, some in grouped.items():
        whole, closer_ = (sum(values) / len(some) for values in zip(*((r.whole, r.closer) for r in some), strict=True))
        better, worse = sum(r.closer > r.whole for r in some), sum(r.closer < r.whole for r in some)
        means = f"{whole:{format_}} | {closer_:{format_}}"
        lines.append(f"| {' | '.join(group)} | {len(some)} | {means} | {better} | {worse} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.closer", description=main.__doc__)
    parser.add_argument("--pictures", type=int, default=40, help="of each size")
    given = parser.parse_args(argv)
    engine = LocalEngine(bundle.load(paths.demo_bundle()))
    found = [result for size in SIZES for result in results(engine, size, given.pictures)]
    engine.close()
    by_size: dict[tuple[str, ...], list[Result]] = defaultdict(list)
    by_kind: dict[tuple[str, ...], list[Result]] = defaultdict(list)
    boxed: dict[tuple[str, ...], list[Result]] = defaultdict(list)
    for result in found:
        if result.kind == "box":
            boxed[result.size,].append(result)
        else:
            by_size[result.size,].append(result)
            by_kind[result.size, result.kind].append(result)
    print("Exact answers\n\n" + table(by_size, "radius of the things", ".0%"))
    print("\nBy kind of question\n\n" + table(by_kind, "radius of the things | kind", ".0%"))
    print("\nBoxes: mean overlap with the right one (IoU)\n\n" + table(boxed, "radius of the things", ".2f"))


if __name__ == "__main__":
    main()
