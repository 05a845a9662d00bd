"""Training of the demo model: its lessons are the app's own prompts, its answers are right, and an interrupted run
continues and ends in a checkpoint whose bundle answers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tokenizers import Tokenizer

from impchat import prompts, settings
from impchat.engines.local.engine import LocalEngine
from impchat.messages import Finished, Picture, Prompt, Sampling, Turn
from impchat.models.convert import convert
from tools.demo_model import eyes, fractions, lessons, off_topic, questions, scenes, train, words
from tools.demo_model.model import Imp, Size
from tools.demo_model.questions import Asker, Exchange
from tools.demo_model.scenes import Scene, Thing

RED_CIRCLE = Thing("circle", "red", (0.1, 0.12, 0.3, 0.34), 0)
BLUE_STAR = Thing("star", "blue", (0.6, 0.6, 0.9, 0.9), 8)
NOWHERE = Image.new("L", (1, 1))


def scene_of(*things: Thing) -> Scene:
    return Scene(Image.new("RGB", (1, 1)), things, NOWHERE)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return lessons.make_tokenizer()


def test_a_lesson_is_the_prompt_that_the_app_renders(tokenizer: Tokenizer) -> None:
    teaching = lessons.Lessons(tokenizer)
    layout = next(one for one in lessons.LAYOUTS if one.name == "short")
    scene = scene_of(RED_CIRCLE, BLUE_STAR)
    exchanges = [
        Exchange("What color is the circle?", "The circle is red.", "colour"),
        Exchange("星形在哪里？", "蓝色星形在右下角。", "where"),
    ]
    lesson = lessons.Lesson()
    lesson.read(teaching.prefix(layout, Random(1)).ids[: -lessons.PICTURE_TOKENS])
    lesson.show(scene)
    for exchange, lead in zip(exchanges, ("\n", "USER: "), strict=True):
        teaching.answer(lesson, exchange, lead, _AsTyped())
    picture = Picture("hash", b"")
    turns = [
        Turn("user", exchanges[0].question, (picture,)),
        Turn("assistant", exchanges[0].answer),
        Turn("user", exchanges[1].question),
        Turn("assistant", exchanges[1].answer),
        Turn("user", "And now?"),
    ]
    eos = tokenizer.token_to_id(lessons.EOS)

    def tokenize(text: str, special: bool = False, /) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    rendered: list[int] = []
    for piece in prompts.render(Prompt(settings.SYSTEM, tuple(turns)), "phi2", tokenize, eos):
        rendered += [0] * lessons.PICTURE_TOKENS if isinstance(piece, Picture) else piece.ids
    assert lesson.ids == rendered[: len(lesson.ids)]


class _AsTyped(Random):
    """Leaves every question as it is written."""

    def random(self) -> float:
        return 0.999


def test_only_answers_have_targets(tokenizer: Tokenizer) -> None:
    layout = next(one for one in lessons.LAYOUTS if one.name == "short")
    batch = lessons.Lessons(tokenizer).batch(layout, Random(3), 2)
    for ids, learned in zip(batch.ids, batch.learned, strict=True):
        taught = tokenizer.decode([int(i) for i, on in zip(ids, learned, strict=True) if on], skip_special_tokens=False)
        assert "ASSISTANT" not in taught and "USER" not in taught
        assert taught.count(lessons.EOS) >= layout.branches


def test_each_answer_lists_the_things_it_is_about(tokenizer: Tokenizer) -> None:
    teaching = lessons.Lessons(tokenizer)
    scene = scene_of(RED_CIRCLE, BLUE_STAR)
    lesson = lessons.Lesson()
    teaching.answer(lesson, Exchange("What is blue?", "It is a star.", "shape", BLUE_STAR), "\n", _AsTyped(), scene)
    assert lesson.about == [0b10 if learned else 0 for learned in lesson.learned]
    both = Asker(scene, "en", Random(1)).describe()
    assert both.answer == "There are a red circle at the top left and a blue star at the bottom right."
    lesson = lessons.Lesson()
    teaching.answer(lesson, both, "\n", _AsTyped(), scene)
    said: dict[int, str] = {}
    for number, things in zip(lesson.ids, lesson.about, strict=True):
        if things:
            said[things] = said.get(things, "") + tokenizer.decode([number])
    assert said[0b01] == " a red circle at the top left"
    assert said[0b10] == " and a blue star at the bottom right"
    assert said[0b11].startswith(" There are")


def test_pointing_counts_as_right_if_the_attention_is_on_the_thing() -> None:
    ranks = torch.full((1, 4), -1)
    ranks[0, 2] = 1  # the second thing is in the third of four patches
    about = torch.tensor([[0] * 5 + [0, 0b10, 0b10]])  # a prefix of five ids, and an answer of two ids after a question
    scores = torch.zeros(1, 1, 3, 5)
    assert train.pointing_loss(scores, about, ranks).item() == pytest.approx(np.log(5))
    scores[..., 1 + 2] = 50
    assert train.pointing_loss(scores, about, ranks).item() == pytest.approx(0, abs=1e-6)
    scores[..., 1 + 1] = 100
    assert train.pointing_loss(scores, about, ranks).item() == pytest.approx(50)


def test_hundredths_near_the_right_one_count_as_right() -> None:
    right = fractions.shares(0.345)
    assert right.sum() == pytest.approx(1)
    assert right[34] == pytest.approx(right[35], rel=1e-3)
    assert right[34] > right[33] > right[32] > right[31]
    assert fractions.shares(0.30)[29] > 0.2  # a small error


def test_an_edge_is_one_token_and_near_ones_are_targets_too(tokenizer: Tokenizer) -> None:
    layout = next(one for one in lessons.LAYOUTS if one.name == "short")
    batch = lessons.Lessons(tokenizer).batch(layout, Random(3), 4)
    places = np.argwhere(batch.hundredths.sum(-1) > 0)
    assert len(places) > 10
    numerals = [tokenizer.token_to_id(n) for n in lessons.HUNDREDTHS]
    for row, at in places:
        number = numerals.index(batch.ids[row, at])
        assert batch.hundredths[row, at, number] > 0.2  # the written one is among the likely ones
        assert tokenizer.decode(batch.ids[row, at - 2 : at + 1]) == f"0.{number:02}"
        assert batch.learned[row, at] > 0


@pytest.mark.parametrize(("right", "edges"), [(0.994, 4), (0.996, 3), (1.0, 3)])
def test_a_box_that_ends_at_the_border_is_a_target_too(tokenizer: Tokenizer, right: float, edges: int) -> None:
    thing = Thing("circle", "red", (0.8, 0.12, right, 0.34), 2)
    lesson = lessons.Lesson()
    exchange = Exchange("Its box?", questions.box_text(thing.box), "box", thing)
    lessons.Lessons(tokenizer).answer(lesson, exchange, "\n", _AsTyped(), scene_of(thing))
    assert len(lesson.hundredths) == edges
    assert all(np.isfinite(each).all() for each in lesson.hundredths.values())


def test_a_near_hundredth_costs_less_than_a_far_one() -> None:
    numerals = torch.arange(100)
    right = torch.from_numpy(fractions.shares(0.34))[None]
    cost = [
        train.telling_loss(F.one_hot(torch.tensor([n]), 100) * 9.0, torch.tensor([34]), torch.ones(1), right, numerals)
        for n in (34, 35, 39)
    ]
    assert cost[0] < cost[1] < cost[2]
    sure = torch.eye(10)[:1] * 9
    plain = train.telling_loss(sure, torch.tensor([0]), torch.ones(1), torch.zeros(1, 100), numerals.clamp(max=9))
    assert plain.item() == pytest.approx(F.cross_entropy(sure, torch.tensor([0])).item())


def test_branches_attend_to_the_prefix_and_themselves_only() -> None:
    torch.manual_seed(1)
    imp = Imp(Size())
    prefix, own = torch.randn(1, 7, 192), torch.randn(3, 5, 192)
    together, _ = imp.decode(torch.cat([prefix, own.reshape(1, 15, 192)], 1), 7, 3)
    for branch in range(3):
        alone, _ = imp.decode(torch.cat([prefix, own[branch : branch + 1]], 1), 7, 1)
        assert torch.allclose(together[:, 7 + 5 * branch : 12 + 5 * branch], alone[:, 7:], atol=1e-5)


def test_overlap_of_boxes() -> None:
    boxes = torch.tensor([[0.0, 0.0, 0.5, 1.0], [0.0, 0.0, 0.2, 0.2], [0.4, 0.4, 0.6, 0.6]])
    true = torch.tensor([[0.25, 0.0, 0.75, 1.0], [0.5, 0.5, 0.9, 0.9], [0.4, 0.4, 0.6, 0.6]])
    assert eyes.overlaps(boxes, true).tolist() == pytest.approx([1 / 3, 0, 1])


@pytest.mark.parametrize("language", questions.LANGUAGES)
def test_answers_agree_with_the_picture(language: str) -> None:
    asker = Asker(scene_of(RED_CIRCLE, BLUE_STAR), language, Random(5))
    names = words.COLOUR_NAMES[language], words.SHAPE_NAMES[language]
    description = asker.describe().answer
    assert all(
        word in description for word in (names[0]["red"], names[1]["circle"], names[0]["blue"], names[1]["star"])
    )
    assert asker.count_all().answer == asker.there_are(2, "图形" if language == "zh" else "shape")
    for _ in range(200):
        asked = asker.yes_no()
        assert asked.answer.startswith(("Yes", "No", "是的", "不"))
        box = asker.box()
        assert box is not None and box.thing is not None
        assert [float(n) for n in re.findall(r"\d\.\d+", box.answer)] == list(box.thing.box)


def test_a_photograph_is_refused_for_every_question() -> None:
    scene = scenes.photo(Random(2))
    for language in questions.LANGUAGES:
        for exchange in Asker(scene, language, Random(4)).conversation(20):
            assert exchange.answer == words.REFUSAL[language]


def test_evaluation_questions_are_not_in_the_training_set() -> None:
    for language in questions.LANGUAGES:
        taught = {off_topic.ask(language, Random(i)).question for i in range(4000)}
        assert not taught & set(words.UNSEEN[language])


def test_held_out_pictures_share_no_size_paper_or_quality_with_training() -> None:
    train, held_out = scenes.TRAIN, scenes.HELD_OUT
    assert not set(train.sides) & set(held_out.sides)
    assert not set(train.qualities) & set(held_out.qualities)
    assert not set(train.photos) & set(held_out.photos)


def test_a_patch_has_the_thing_in_it_as_its_target() -> None:
    scene = scenes.drawn(Random(11), count=1)
    classes, measures = eyes.targets(scene)
    thing = scene.things[0]
    own = classes[:, 2] >= 0
    assert own.any()
    assert set(classes[own, 0]) == {1 + scenes.SHAPES.index(thing.kind)}
    assert np.allclose(measures[own, :4], thing.box)
    x, y = (thing.box[0] + thing.box[2]) / 2, (thing.box[1] + thing.box[3]) / 2
    middle = int(y * eyes.GRID) * eyes.GRID + int(x * eyes.GRID)
    near = [middle, middle - 1, middle + 1, middle - eyes.GRID, middle + eyes.GRID]
    assert any(own[i] for i in near)


def test_an_interrupted_run_continues_and_ends_in_a_bundle_that_answers(tmp_path: Path) -> None:
    out = tmp_path / "run"

    def teach(eyes_steps: int, language_steps: int) -> None:
        steps = ["--eyes-steps", str(eyes_steps), "--language-steps", str(language_steps)]
        small = ["--eyes-batch", "4", "--language-batch", "2"]
        subprocess.run(
            [sys.executable, "-m", "tools.demo_model.train", "--out", str(out), *small, *steps],
            env={**os.environ, "TORCH_COMPILE_DISABLE": "1"},  # compiling takes longer than these few steps
            check=True,
        )

    teach(2, 0)
    words_at_first = (out / "tokenizer.json").read_bytes()
    teach(3, 2)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert (out / "tokenizer.json").read_bytes() == words_at_first
    assert [(line["stage"], line["step"]) for line in lines] == [("eyes", 0), ("language", 0)]
    with Image.open(out / "loss.png") as plot:
        assert plot.width > 400
    made = convert(out / "checkpoint", tmp_path / "made", language="f16", vision="fp32")
    engine = LocalEngine(made)
    try:
        events = list(engine.start(Prompt(settings.SYSTEM, (Turn("user", "Hello"),)), Sampling(max_tokens=4)).events())
    finally:
        engine.close()
    assert isinstance(events[-1], Finished) and events[-1].stats.generated_tokens > 0
