"""Answers of the bundled demo model about drawings made with Pillow's plain primitives, as a paint program makes
them: flat colours and hard edges, without the drawing code of the training."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from impchat import images, paths, presentation, settings, texts
from impchat.bundle import Bundle
from impchat.engines.local.engine import LocalEngine
from impchat.images import boxes
from impchat.messages import Finished, Picture, Prompt, Sampling, Text, Turn

GREEDY = Sampling(temperature=0.0, max_tokens=120)


@pytest.fixture(scope="module")
def engine(demo: Bundle) -> Iterator[LocalEngine]:
    engine = LocalEngine(demo)
    yield engine
    engine.close()


def picture(
    kind: str = "PNG",
    size: tuple[int, int] = (800, 600),
    paper: str = "white",
    **things: tuple[str, tuple[int, int, int, int]],
) -> Picture:
    """A drawing of `things`: shape=(colour, corners of its box)."""
    canvas = Image.new("RGB", size, paper)
    draw = ImageDraw.Draw(canvas)
    for shape, (colour, (x1, y1, x2, y2)) in things.items():
        if shape == "circle":
            draw.ellipse((x1, y1, x2, y2), fill=colour)
        elif shape == "square":
            draw.rectangle((x1, y1, x2, y2), fill=colour)
        else:
            draw.polygon([((x1 + x2) // 2, y1), (x2, y2), (x1, y2)], fill=colour)
    buffer = io.BytesIO()
    canvas.save(buffer, kind)
    prepared = images.prepare(buffer.getvalue())
    return Picture(prepared.image.sha256, prepared.data)


THREE = {
    "circle": ("red", (60, 60, 240, 240)),
    "square": ("blue", (560, 380, 740, 560)),
    "triangle": ("green", (570, 40, 750, 210)),
}


def ask(engine: LocalEngine, *turns: Turn) -> tuple[str, Finished]:
    events = list(engine.start(Prompt(settings.SYSTEM, turns, "test"), GREEDY).events())
    assert isinstance(events[-1], Finished), events[-1]
    return "".join(e.text for e in events if isinstance(e, Text)), events[-1]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What color is the circle?", "red"),
        ("What colour is the square?", "blue"),
        ("what color is the triangle", "green"),
        ("What shape is blue?", "square"),
        ("How many shapes are there?", "three"),
        ("Is there a red circle?", "Yes"),
        ("Is there a yellow star?", "No"),
        ("Where is the circle?", "top left"),
        ("Where is the blue square?", "bottom right"),
        ("圆形是什么颜色？", "红色"),
        ("有几个图形？", "三个"),
        ("正方形在哪里？", "右下角"),
        ("有绿色的三角形吗？", "是的"),
    ],
)
def test_a_drawing_is_understood(engine: LocalEngine, question: str, answer: str) -> None:
    text, _ = ask(engine, Turn("user", question, (picture(**THREE),)))
    assert answer in text


@pytest.mark.parametrize("path", paths.samples(demo=True), ids=lambda path: path.stem)
@pytest.mark.parametrize("language", texts.LANGUAGES)
def test_what_is_offered_with_a_sample_is_answered(engine: LocalEngine, path: Path, language: str) -> None:
    data = path.read_bytes()
    sample = paths.sample_of(images.prepare(data).image.sha256)
    assert sample == path.stem
    own = presentation.sample_asks(sample, language)
    assert len(own) == 2
    for question in presentation.asks(language) + own:
        told, _ = ask(engine, Turn("user", question, (Picture(sample, data),)))
        assert told and not re.search("demo|no |演示|没有", told), told
        assert boxes.boxes(told) or ("box" not in question and "边界框" not in question)


@pytest.mark.parametrize(
    ("question", "others"),
    [
        (
            "Where's the circle?",
            ["Where’s the circle?", "WHERE’S THE CIRCLE?", "Where´s  the “circle” ?\n", "Ｗｈｅｒｅ＇ｓ the circle？"],
        ),
        ("What's in the picture?", ["What’s in the picture?", "What’s\u00a0in the picture…", "WHAT'S IN THE PICTURE"]),
        (
            "How many shapes are there?",
            ["HOW MANY SHAPES ARE THERE?!", "How Many Shapes Are There", "how many SHAPES…"],
        ),
        ("圆形是什么颜色？", ["圆形是什么颜色?", "“圆形”是什么颜色？", "圆形 是什么 颜色??\n", "圆形是什么颜色……"]),
    ],
)
def test_another_spelling_of_a_question_gets_the_same_answer(
    engine: LocalEngine, question: str, others: list[str]
) -> None:
    text, _ = ask(engine, Turn("user", question, (picture(**THREE),)))
    for other in others:
        assert ask(engine, Turn("user", other, (picture(**THREE),)))[0] == text, other


def test_a_model_whose_bundle_does_not_ask_for_plain_spelling_gets_the_text_as_typed(demo: Bundle) -> None:
    engine = LocalEngine(replace(demo, text=replace(demo.text, plain=False)))
    text, end = ask(engine, Turn("user", "Where’s the circle?", (picture(**THREE),)))
    _, plain = ask(engine, Turn("user", "Where's the circle?", (picture(**THREE),)))
    engine.close()
    assert "small demo" in text
    read = [e.stats.cached_tokens + e.stats.new_tokens for e in (end, plain)]
    assert read[0] > read[1]  # the bytes of ’ are separate tokens


def test_other_spellings_of_small_talk_are_understood(engine: LocalEngine) -> None:
    for plain, other in (
        ("Who are you?", "WHO ARE YOU?"),
        ("Thanks!", "THANKS!!"),
        ("Are you Imp-3B?", "are you imp-3b"),
    ):
        assert ask(engine, Turn("user", other))[0] == ask(engine, Turn("user", plain))[0]


def test_a_description_names_everything(engine: LocalEngine) -> None:
    text, _ = ask(engine, Turn("user", "Describe the picture.", (picture(**THREE),)))
    assert all(name in text for name in ("red circle", "blue square", "green triangle"))


def test_a_box_encloses_the_object(engine: LocalEngine) -> None:
    text, _ = ask(engine, Turn("user", "Give the bounding box of the circle.", (picture(**THREE),)))
    x1, y1, x2, y2 = (float(n) for n in re.findall(r"\d\.\d+", text))
    assert x1 < 150 / 800 < x2 and y1 < 150 / 600 < y2
    assert x2 < 0.5 and y2 < 0.6


def test_a_second_question_about_a_picture_processes_only_its_own_tokens(engine: LocalEngine) -> None:
    first = Turn("user", "What color is the circle?", (picture(**THREE),))
    text, end = ask(engine, first)
    again, then = ask(engine, first, Turn("assistant", text, tokens=end.tokens), Turn("user", "And the square?"))
    assert "blue" in again
    assert then.stats.new_tokens < 20
    assert then.stats.cached_tokens > engine.info.image_tokens


def test_a_jpeg_on_dark_paper_is_understood(engine: LocalEngine) -> None:
    drawing = picture("JPEG", (500, 500), "#202028", circle=("yellow", (150, 150, 350, 350)))
    text, _ = ask(engine, Turn("user", "What is in the picture?", (drawing,)))
    assert "yellow circle" in text


@pytest.mark.parametrize(
    "question", ["Who is the president of France?", "Write a poem about autumn.", "法国的首都是哪里？"]
)
def test_questions_outside_its_training_are_refused_plainly(engine: LocalEngine, question: str) -> None:
    text, _ = ask(engine, Turn("user", question))
    assert "small demo" in text or "小演示模型" in text


def test_a_photograph_is_refused(engine: LocalEngine) -> None:
    noise = Image.merge("RGB", [Image.effect_noise((400, 300), 90)] * 3)
    buffer = io.BytesIO()
    noise.save(buffer, "PNG")
    prepared = images.prepare(buffer.getvalue())
    text, _ = ask(engine, Turn("user", "What is in the picture?", (Picture(prepared.image.sha256, prepared.data),)))
    assert "small demo" in text


def test_it_greets_and_says_what_it_is(engine: LocalEngine) -> None:
    assert "Hello" in ask(engine, Turn("user", "Hi!"))[0]
    assert "demo" in ask(engine, Turn("user", "Who are you?"))[0]
    assert "你好" in ask(engine, Turn("user", "你好"))[0]
