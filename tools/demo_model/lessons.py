"""Training data for the language: scenes and questions as token ids, laid out so that questions share a picture.

In: scenes, questions, a tokenizer. Out: `Lesson`s: arrays of ids with the positions of pictures and of the learned
tokens. The text equals that of `impchat.prompts`, piece by piece; a test compares them.
This file does not know the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from impchat import settings
from tools.demo_model import fractions, off_topic, questions, scenes, words
from tools.demo_model.questions import Exchange
from tools.demo_model.scenes import Scene, Style, Thing

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PICTURE_TOKENS = 196
EOS, IMAGE = "</s>", "<image>"
VOCABULARY = 2048
HUNDREDTHS = tuple(f"{n:02}" for n in range(100))
_ZH_WORDS = (
    "什么颜色",
    "什么",
    "哪里",
    "图形",
    "多少",
    "几个",
    "边界框",
    "图片",
    "一个",
    "两个",
    "三个",
    "四个",
    "没有",
    "是的",
    "在哪里",
    "有几个",
    "它",
    "第一张图",
    "第二张图",
    "小演示模型",
    "手绘图形",
    "说明",
    "安装",
    "形状",
    "请",
    "你",
    "问题",
    "的",
    "位置",
)


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of a row: a prefix, and a number of branches of equal length that share it."""

    name: str
    branches: int
    own: int  # tokens of a branch
    weight: float  # relative frequency


# One picture with many short conversations, with a few longer ones, one long one with up to two pictures, no picture.
LAYOUTS = (
    Layout("short", 6, 64, 0.72),
    Layout("longer", 2, 192, 0.12),
    Layout("two", 1, 560, 0.12),
    Layout("text", 6, 64, 0.04),
)


@dataclass(slots=True)
class Lesson:
    """One row of a batch."""

    ids: list[int] = field(default_factory=list)
    learned: list[float] = field(default_factory=list)  # weight of each id in the loss; 0: not learned
    about: list[int] = field(default_factory=list)  # the things that the answer mentions, one bit each
    pictures: list[Scene] = field(default_factory=list)
    shown: list[bool] = field(default_factory=list)  # True: the position holds a picture's embedding
    hundredths: dict[int, NDArray[np.float32]] = field(default_factory=dict)  # position -> weight of each hundredth

    def read(self, ids: list[int], learned: float = 0.0) -> None:
        """Append text; `learned` is its weight in the loss."""
        self.ids += ids
        self.learned += [learned] * len(ids)
        self.about += [0] * len(ids)
        self.shown += [False] * len(ids)

    def show(self, scene: Scene) -> None:
        """Append a picture."""
        self.pictures.append(scene)
        self.ids += [0] * PICTURE_TOKENS
        self.learned += [0.0] * PICTURE_TOKENS
        self.about += [0] * PICTURE_TOKENS
        self.shown += [True] * PICTURE_TOKENS

    def pad(self, length: int) -> None:
        """Pad or truncate to `length` ids."""
        missing = length - len(self.ids)
        self.ids = self.ids[:length] + [0] * missing
        self.learned = self.learned[:length] + [0.0] * missing
        self.about = self.about[:length] + [0] * missing
        self.shown = self.shown[:length] + [False] * missing


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Rows of one layout; the arrays are (rows, prefix + branches * own) unless noted."""

    ids: NDArray[np.int64]
    learned: NDArray[np.float32]
    about: NDArray[np.int64]
    shown: NDArray[np.bool_]
    hundredths: NDArray[np.float32]  # (rows, prefix + branches * own, 100): weights in boxes, 0 elsewhere
    pictures: list[Scene]  # of all rows, in order
    prefix: int


def make_tokenizer(seed: int = 196) -> Tokenizer:
    """A small byte-level BPE tokenizer as Phi-2's: English words, Chinese characters and words, all 256 bytes, and the
    tokens </s> and <image> last. Two digits are one token, longer numbers are not, so that each edge of a box is one
    choice. (As separate tokens, the second digit would be a sawtooth function of the edge, which was not learned.)"""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(_corpus(Random(seed)), trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (EOS, IMAGE)])
    return tokenizer


def _corpus(rng: Random) -> Iterator[str]:
    """The tokenizer's training text: English in sentences, Chinese in characters and words."""
    english = [settings.SYSTEM + " USER: ASSISTANT:"] * 200
    chinese: list[str] = []
    for language, lines in (("en", english), ("zh", chinese)):
        for _ in range(3000):
            scene = scenes.Scene(None, _some_things(rng), None)  # type: ignore[arg-type]
            exchange = questions.Asker(scene, language, rng).one()
            lines += [questions.typed(exchange.question, rng), " " + exchange.question, " " + exchange.answer]
        for _ in range(2000):
            lines += [off_topic.ask(language, rng).question, " " + off_topic.ask(language, rng).question]
            exchange = questions.small_talk(language, rng)
            lines += [exchange.question, " " + exchange.question, " " + exchange.answer]
        lines += [" " + words.REFUSAL[language], " " + words.NO_PICTURE[language]] * 100
        lines += [line for group in words.TWO[language].values() for line in group] * 20
    for line in english:
        yield re.sub(r"\d+", "", line)
    for line in chinese:
        yield from re.findall(r"[^\x00-\x7f]| ?[A-Za-z]+", line)
    names = [*_ZH_WORDS]
    for table in (words.SHAPE_NAMES["zh"], words.COLOUR_NAMES["zh"]):
        names += table.values()
    names += words.CELL_NAMES["zh"]
    yield from [*names, *HUNDREDTHS] * 400


def _some_things(rng: Random) -> tuple[scenes.Thing, ...]:
    cells = sorted(rng.sample(range(9), rng.randint(1, 4)))
    return tuple(
        scenes.Thing(rng.choice(scenes.SHAPES), rng.choice(list(scenes.COLOURS)), (0.1, 0.1, 0.2, 0.2), cell)
        for cell in cells
    )


class Lessons:
    """Creates lessons with a tokenizer."""

    def __init__(self, tokenizer: Tokenizer, style: Style = scenes.TRAIN) -> None:
        self.tokenizer, self.style = tokenizer, style

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; </s> in it becomes its own token."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def prefix(self, layout: Layout, rng: Random) -> Lesson:
        """The part that all branches of a row share: the system text and, in most layouts, a picture."""
        lesson = Lesson()
        if layout.name == "text":
            lesson.read(self.encode(settings.SYSTEM + " USER:"))
        else:
            lesson.read(self.encode(settings.SYSTEM + " USER: "))
        if layout.name in ("short", "longer"):
            lesson.show(scenes.scene(rng, self.style, 0.06))
        return lesson

    def answer(self, lesson: Lesson, exchange: Exchange, lead: str, rng: Random, scene: Scene | None = None) -> None:
        """Append `lead` and one exchange, whose answer is learned. `scene`: the prefix's picture, if the exchange is
        about it."""
        lesson.read(self.encode(f"{lead}{questions.typed(exchange.question, rng)} ASSISTANT:"))
        said = self.tokenizer.encode(f" {exchange.answer}{EOS}", add_special_tokens=False)
        lesson.read(said.ids, learned=1.0)
        if exchange.kind == "box" and exchange.thing is not None:
            self._box(lesson, said.tokens, exchange.thing)
        if scene is not None:
            looks = [(end + 1, _bits(scene, things)) for end, things in exchange.looks()]  # + 1 for the leading space
            lesson.about[-len(said.ids) :] = [
                next((bits for end, bits in looks if stop <= end), looks[-1][1]) for _, stop in said.offsets
            ]

    @staticmethod
    def _box(lesson: Lesson, tokens: list[str], thing: Thing) -> None:
        """The last `tokens` of the lesson are a box: give near hundredths weights too."""
        at = len(lesson.ids) - len(tokens)
        points = (i for i, token in enumerate(tokens) if token == ".")
        for edge, point in zip(thing.box, points, strict=True):
            if tokens[point - 1].endswith("0"):  # after 1 only zeros can follow
                lesson.hundredths[at + point + 1] = fractions.shares(edge)

    def talk(
        self,
        lesson: Lesson,
        exchanges: Iterator[Exchange],
        lead: str,
        rng: Random,
        length: int,
        scene: Scene | None = None,
    ) -> None:
        """Append exchanges until the lesson has at least `length` ids."""
        while len(lesson.ids) < length:
            self.answer(lesson, next(exchanges), lead, rng, scene)
            lead = "USER: "

    def branch(self, layout: Layout, pictures: list[Scene], rng: Random) -> Lesson:
        """One conversation that continues the prefix."""
        lesson = Lesson()
        language = rng.choice(questions.LANGUAGES)
        if layout.name == "two":
            self._two(lesson, language, rng, layout.own)
        elif layout.name == "text":
            self.talk(lesson, _about_nothing(language, rng), " ", rng, layout.own)
        else:
            self.talk(lesson, _about(pictures[0], language, rng), "\n", rng, layout.own, pictures[0])
        lesson.pad(layout.own)
        return lesson

    def _two(self, lesson: Lesson, language: str, rng: Random, length: int) -> None:
        first, second = (
            scenes.drawn(rng, self.style) if rng.random() < 0.95 else scenes.photo(rng, self.style) for _ in range(2)
        )
        lesson.show(first)
        both = _about_two(first, second, language, rng)
        if rng.random() < 0.5 and not (first.photo or second.photo):
            lesson.read(self.encode("\n"))
            lesson.show(second)
            self.talk(lesson, both, "\n", rng, length)
            return
        self.talk(lesson, _about(first, language, rng), "\n", rng, PICTURE_TOKENS + rng.randint(1, 90))
        lesson.read(self.encode("USER: "))
        lesson.show(second)
        mixed = both if rng.random() < 0.4 and not (first.photo or second.photo) else None
        self.answer(lesson, next(_about(second, language, rng)), "\n", rng)
        now = _about(second, language, rng)
        while len(lesson.ids) < length:
            self.answer(lesson, next(mixed if mixed and rng.random() < 0.5 else now), "USER: ", rng)

    def batch(self, layout: Layout, rng: Random, rows: int) -> Batch:
        """`rows` rows of a layout."""
        lessons = []
        prefix = 0
        hundredths: list[tuple[int, int, NDArray[np.float32]]] = []  # row, position, weights
        for row in range(rows):
            whole = self.prefix(layout, rng)
            prefix = len(whole.ids)  # equal for all rows of a layout
            for _ in range(layout.branches):
                branch = self.branch(layout, whole.pictures, rng)
                begin = len(whole.ids)
                hundredths += [(row, begin + at, each) for at, each in branch.hundredths.items() if at < layout.own]
                whole.ids += branch.ids
                whole.learned += branch.learned
                whole.about += branch.about
                whole.shown += branch.shown
                whole.pictures += branch.pictures
            lessons.append(whole)
        right = np.zeros((rows, len(lessons[0].ids), 100), np.float32)
        for row, at, each in hundredths:
            right[row, at] = each
        return Batch(
            np.array([one.ids for one in lessons]),
            np.array([one.learned for one in lessons], np.float32),
            np.array([one.about for one in lessons]),
            np.array([one.shown for one in lessons]),
            right,
            [scene for one in lessons for scene in one.pictures],
            prefix,
        )


def _bits(scene: Scene, things: Sequence[Thing]) -> int:
    return sum(1 << scene.things.index(thing) for thing in things)


def _about(scene: Scene, language: str, rng: Random) -> Iterator[Exchange]:
    """Questions about a picture, with some small talk and some that must be refused."""
    asker = questions.Asker(scene, language, rng)
    while True:
        chance = rng.random()
        if chance < 0.05:
            yield questions.small_talk(language, rng)
        elif chance < 0.18:
            yield off_topic.ask(language, rng)
        elif chance < 0.34 and not scene.photo and (listed := asker.of_several()):
            yield listed
        else:
            yield from asker.conversation(rng.choice((1, 1, 2)))


def _about_two(first: Scene, second: Scene, language: str, rng: Random) -> Iterator[Exchange]:
    while True:
        yield questions.two_pictures(first, second, language, rng)


def _about_nothing(language: str, rng: Random) -> Iterator[Exchange]:
    """Exchanges before there is a picture."""
    while True:
        make = rng.choices((questions.small_talk, off_topic.ask, questions.without_picture), (0.3, 0.45, 0.25))[0]
        yield make(language, rng)
