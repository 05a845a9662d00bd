"""Judges a demo bundle: `python -m impchat.models.demo.evaluate [BUNDLE]`, a Markdown table on standard output.

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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from PIL import Image

from impchat import images, paths, settings
from impchat.engines import Engine
from impchat.engines.local import LocalEngine
from impchat.messages import Failed, Finished, Picture, Prompt, Sampling, Text, Turn
from impchat.models import bundle
from impchat.models.demo import questions, scenes, words
from impchat.models.demo.questions import Asker, Exchange
from impchat.models.demo.scenes import HELD_OUT

GREEDY = Sampling(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, max_tokens=160)
REFUSED = ("small demo that knows", "小演示模型。其他")
# Asked of the demo nowhere in training, neither as they are nor as a frame with a topic.
OFF_GROUND = {
    "en": (
        "Could you help me with my homework?", "What were the causes of the French Revolution?", "Which planet is the largest?", "How do airplanes stay up in the air?",
        "Name three rivers in Asia.", "Who wrote Romeo and Juliet?", "What does photosynthesis mean?", "Give me tips for a good night's sleep.", "Is it going to rain tomorrow?",
        "Write a haiku about autumn leaves.", "What languages do you speak fluently?", "How tall is the Eiffel Tower?", "Why is the sky blue?", "What is the square root of 144?",
        "Recommend a good science fiction novel.", "Which team won the world cup?", "What should I wear to a job interview?", "How many calories are in a hamburger?",
        "Explain quantum entanglement simply.", "Debug my program please.", "What is the tallest building on earth?", "When did the Second World War end?", "Plan a trip to Italy for me.",
        "Can you draw something for me?", "What is the difference between a crocodile and an alligator?", "Who is standing behind the counter?", "How old does this lady look?",
        "What kind of dog breed is that?", "Is the food on the plate fresh?", "What is the license plate of the vehicle?", "Does he look angry?", "What season was this taken in?",
        "Are those clouds or smoke?", "What material is the sofa made of?", "Which city skyline is shown here?", "Identify the mushroom in the forest.", "What is she holding in her hands?",
        "Read the text on the billboard.", "How many passengers are boarding?", "Is the swimmer winning the race?", "Convert ten miles to kilometers.", "Tell me something interesting about whales.",
        "My printer does not work, what now?", "Who is the richest person alive?", "Is climate change real?", "How do vaccines work?", "What is your favorite movie?",
        "Give me a synonym for beautiful.", "Spell the word necessary.", "What is 37 plus 58?",
    ),
    "zh": (
        "你能帮我做作业吗？", "法国大革命的原因是什么？", "最大的行星是哪个？", "飞机为什么能飞起来？", "说出亚洲的三条河流。", "红楼梦的作者是谁？", "什么叫光合作用？", "怎样才能睡得好？", "明天会下雨吗？",
        "写一首秋天的俳句。", "你会说几种语言？", "埃菲尔铁塔有多高？", "天空为什么是蓝的？", "一百四十四的平方根是多少？", "推荐一本科幻小说。", "世界杯冠军是哪个队？", "面试应该怎么打扮？",
        "一个汉堡有多少卡路里？", "简单说说量子纠缠。", "帮我调试程序。", "世界上最高的楼是哪座？", "二战什么时候结束的？", "帮我计划去意大利旅行。", "能给我画点东西吗？", "鳄鱼有什么特点？",
        "柜台后面站着谁？", "这位女士看起来多大？", "那只狗是什么品种？", "盘子里的菜新鲜吗？", "车牌号码是多少？", "他看起来生气吗？", "这是什么季节拍的？", "那是云还是烟？", "沙发是什么材料做的？",
        "这是哪座城市的夜景？", "辨认一下森林里的蘑菇。", "她手里拿着什么？", "念一下广告牌上的字。", "有多少乘客在上车？", "游泳的人赢了吗？", "十英里等于多少公里？", "说点关于鲸鱼的趣事。",
        "我的打印机坏了怎么办？", "世界首富是谁？", "气候变化是真的吗？", "疫苗是如何起作用的？", "你最喜欢的电影是哪部？", "漂亮的近义词有哪些？", "今年的奥运会在哪里举行？", "三十七加五十八等于几？",
    ),
}


@dataclass(slots=True)
class Tally:
    """Right answers of one kind of question in one language."""

    asked: int = 0
    right: int = 0
    refused: int = 0
    overlaps: list[float] = field(default_factory=list)  # IoU of boxes


def answer(engine: Engine, turns: Sequence[Turn], key: str) -> tuple[str, tuple[int, ...]]:
    """The model's answer to the last turn, and its token ids. Raises RuntimeError where the engine fails."""
    text, tokens = "", ()
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


def each_kind(asker: Asker) -> Iterator[Exchange]:
    """One question of every kind that the picture allows."""
    many = len(asker.things) > scenes.MOST_COUNTED
    makers = (asker.describe, asker.count) if many else (
        asker.describe, asker.colour, asker.shape, asker.count, asker.where, asker.yes_no, asker.box, asker.digit
    )
    for make in makers:
        exchange = make()  # type: ignore[operator]
        while many and make == asker.count and "four" not in exchange.answer and "四" not in exchange.answer:
            exchange = make()  # type: ignore[operator]
        if exchange is not None:
            yield exchange


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
            for exchange in each_kind(Asker(scene, language, rng)):
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
            for i, question in enumerate(OFF_GROUND[language]):
                pictures = (stored(scenes.drawn(Random(f"off {i}"), HELD_OUT).picture),) if i % 2 else ()
                told, _ = answer(self.engine, [Turn("user", question, pictures)], f"off {i}")
                self.mark("to refuse", language, Exchange(question, words.REFUSAL[language], "off-topic question"), told)
            for i in range(50):
                rng = Random(f"photo {language} {i}")
                asked = Asker(scenes.photo(rng, HELD_OUT), language, rng).conversation(1)[0]
                picture = stored(scenes.photo(Random(f"photo {language} {i}"), HELD_OUT).picture)
                told, _ = answer(self.engine, [Turn("user", asked.question, (picture,))], f"photo {i}")
                self.mark("to refuse", language, Exchange(asked.question, words.REFUSAL[language], "photo-like picture"), told)


def table(tallies: dict[tuple[str, str, str], Tally]) -> str:
    """The tallies as Markdown."""
    lines = ["| group | kind | language | asked | exact | refused | mean IoU |", "|---|---|---|---|---|---|---|"]
    for (group, kind, language), t in tallies.items():
        iou = f"{sum(t.overlaps) / len(t.overlaps):.3f}" if t.overlaps else ""
        lines.append(f"| {group} | {kind} | {language} | {t.asked} | {t.right / t.asked:.1%} | {t.refused / t.asked:.1%} | {iou} |")
    own = [t for (group, _, _), t in tallies.items() if group != "to refuse"]
    if own:
        asked, refused = sum(t.asked for t in own), sum(t.refused for t in own)
        lines.append(f"\nRefused on its own ground: {refused} of {asked} ({refused / asked:.2%}).")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """The command: judges a bundle on 500 held-out pictures and 200 things to refuse."""
    parser = argparse.ArgumentParser(prog="python -m impchat.models.demo.evaluate", description=main.__doc__)
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
