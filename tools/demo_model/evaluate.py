"""Judges a demo bundle: `python -m tools.demo_model.evaluate [BUNDLE]`, a Markdown table on standard output.

In: a bundle, run by LocalEngine as the app runs it, at temperature 0. Out: exact answers per kind of question and
language on held-out pictures (other sizes, papers, aspects and JPEG qualities than in training), the mean IoU of
boxes, refusals of what is off its ground and refusals on its own ground. This file does not know the training.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from PIL import Image

from impchat import bundle, images, paths, settings
from impchat.engines import Engine
from impchat.engines.local.engine import LocalEngine
from impchat.messages import Failed, Finished, Picture, Prompt, Sampling, Text, Turn
from tools.demo_model import questions, scenes, words
from tools.demo_model.questions import Asker, Exchange
from tools.demo_model.scenes import HELD_OUT

GREEDY = Sampling(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, max_tokens=160)
REFUSED = ("small demo that knows", "小演示模型。其他")


@dataclass(slots=True)
class Tally:
    """Right answers of one kind of question in one language."""

    asked: int = 0
    right: int = 0
    refused: int = 0
    overlaps: list[float] = field(default_factory=list)  # IoU of boxes


def answer(engine: Engine, turns: Sequence[Turn], key: str) -> tuple[str, tuple[int, ...]]:
    """The model's answer to the last turn, and its token ids. Raises RuntimeError where the engine fails."""
    text = ""
    tokens: tuple[int, ...] = ()
    for event in engine.start(Prompt(settings.SYSTEM, tuple(turns), key), GREEDY).events():
        if isinstance(event, Text):
            text += event.text
        elif isinstance(event, Failed):
            raise RuntimeError(f"{event.code} {dict(event.values)}")
        elif isinstance(event, Finished):
            tokens = event.tokens
    return text.strip(), tokens


def stored(picture: Image.Image) -> Picture:
    """A picture as the app stores it before a model sees it."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    prepared = images.prepare(buffer.getvalue())
    return Picture(prepared.image.sha256, prepared.data)


def overlap(told: str, box: Sequence[float]) -> float:
    """Intersection over union of a box in an answer and the true one; 0 where the answer holds no box."""
    numbers = [float(n) for n in re.findall(r"\d\.\d+", told)]
    if len(numbers) != 4:
        return 0.0
    x1, y1, x2, y2 = numbers
    across = max(0.0, min(x2, box[2]) - max(x1, box[0])) * max(0.0, min(y2, box[3]) - max(y1, box[1]))
    area = max(0.0, x2 - x1) * max(0.0, y2 - y1) + (box[2] - box[0]) * (box[3] - box[1]) - across
    return across / area if area > 0 else 0.0


class Judge:
    """Asks an engine and keeps the tallies, per (group, kind, language)."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.tallies: dict[tuple[str, str, str], Tally] = defaultdict(Tally)
        self.wrong: list[tuple[str, str, str]] = []

    def mark(self, group: str, language: str, exchange: Exchange, told: str) -> None:
        """Count one answer."""
        tally = self.tallies[group, exchange.kind, language]
        tally.asked += 1
        tally.right += told == exchange.answer
        tally.refused += any(r in told for r in REFUSED)
        if exchange.kind == "box" and exchange.thing is not None:
            tally.overlaps.append(overlap(told, exchange.thing.box))
        elif told != exchange.answer and len(self.wrong) < 400:
            self.wrong.append((exchange.question, exchange.answer, told))

    def single(self, number: int) -> None:
        """One held-out picture, a question of every kind in both languages, each on its own."""
        rng = Random(f"judge {number}")
        scene = scenes.drawn(rng, HELD_OUT)
        picture = stored(scene.picture)
        for language in questions.LANGUAGES:
            for make, _ in Asker(scene, language, rng).makers():
                exchange = make()
                if exchange is None:  # the picture does not allow it
                    continue
                told, _ = answer(self.engine, [Turn("user", exchange.question, (picture,))], f"{number}")
                self.mark("one question", language, exchange, told)

    def several(self, number: int) -> None:
        """One held-out picture and a conversation of five questions in one language."""
        rng = Random(f"judge {number}")
        scene = scenes.drawn(rng, HELD_OUT)
        language = questions.LANGUAGES[number % 2]
        turns: list[Turn] = []
        for i, exchange in enumerate(Asker(scene, language, rng).conversation(5)):
            turns.append(Turn("user", exchange.question, (stored(scene.picture),) if i == 0 else ()))
            told, tokens = answer(self.engine, turns, f"{number}")
            turns.append(Turn("assistant", told, tokens=tokens))
            self.mark("five turns", language, exchange, told)

    def off_ground(self) -> None:
        """200 things to refuse: 100 unseen questions, half of them with a drawing, and 100 photo-like pictures."""
        for language in questions.LANGUAGES:
            for i, question in enumerate(words.UNSEEN[language]):
                pictures = (stored(scenes.drawn(Random(f"off {i}"), HELD_OUT).picture),) if i % 2 else ()
                told, _ = answer(self.engine, [Turn("user", question, pictures)], f"off {i}")
                self.mark(
                    "to refuse", language, Exchange(question, words.REFUSAL[language], "off-topic question"), told
                )
            for i in range(50):
                rng = Random(f"photo {language} {i}")
                asked = Asker(scenes.photo(rng, HELD_OUT), language, rng).conversation(1)[0]
                picture = stored(scenes.photo(Random(f"photo {language} {i}"), HELD_OUT).picture)
                told, _ = answer(self.engine, [Turn("user", asked.question, (picture,))], f"photo {i}")
                self.mark(
                    "to refuse", language, Exchange(asked.question, words.REFUSAL[language], "photo-like picture"), told
                )


def table(tallies: dict[tuple[str, str, str], Tally]) -> str:
    """The tallies as Markdown."""
    lines = ["| group | kind | language | asked | exact | refused | mean IoU |", "|---|---|---|---|---|---|---|"]
    for (group, kind, language), t in tallies.items():
        iou = f"{sum(t.overlaps) / len(t.overlaps):.3f}" if t.overlaps else ""
        shares = f"{t.right / t.asked:.1%} | {t.refused / t.asked:.1%}"
        lines.append(f"| {group} | {kind} | {language} | {t.asked} | {shares} | {iou} |")
    own = [t for (group, _, _), t in tallies.items() if group != "to refuse"]
    if own:
        asked, refused = sum(t.asked for t in own), sum(t.refused for t in own)
        lines.append(f"\nRefused although it should answer: {refused} of {asked} ({refused / asked:.2%}).")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """The command: judges a bundle on 500 held-out pictures and 200 things to refuse."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo_model.evaluate", description=main.__doc__)
    parser.add_argument("bundle", type=Path, nargs="?", default=None)
    parser.add_argument("--pictures", type=int, default=500, help="a fifth of them in conversations of five turns")
    parser.add_argument("--wrong", type=Path, help="write wrong answers to this JSON file")
    given = parser.parse_args(argv)
    began = time.monotonic()
    engine = LocalEngine(bundle.load(given.bundle or paths.demo_bundle()), slots=1)
    judge = Judge(engine)
    singles = given.pictures - given.pictures // 5
    for number in range(singles):
        judge.single(number)
    for number in range(singles, given.pictures):
        judge.several(number)
    judge.off_ground()
    engine.close()
    print(table(judge.tallies))
    print(f"\n{given.pictures} pictures in {time.monotonic() - began:.0f} s.")
    if given.wrong:
        given.wrong.write_text(json.dumps(judge.wrong, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
