"""Looking closer: five answers become one, which says where it is from."""

from __future__ import annotations

import io

import pytest
from PIL import Image, ImageDraw

from impchat import closer
from impchat.bundle import Bundle
from impchat.closer import PARTS, WHOLE, Composed, compose
from impchat.engines.local.engine import LocalEngine
from impchat.images.boxes import Box, boxes
from impchat.messages import Sampling
from impchat.table import Row

NOTHING = "There is no square."


def composed(whole: str, *quarters: str) -> Composed:
    said = (whole, *quarters, *[NOTHING] * 4)
    found = compose([Row(name, text, 1.0, "?") for name, text in zip(PARTS, said, strict=False)])
    assert found
    return found


def test_the_answer_about_the_whole_picture_stands_if_it_found_something() -> None:
    found = composed("The square is red.", "The square is blue.", "The square is blue.")
    assert (found.answer, found.part) == ("The square is red.", WHOLE)
    assert found.text("en") == "The square is red."
    assert found.notes[:3] == ("The square is red.", "The square is blue.", "The square is blue.")


@pytest.mark.parametrize(
    "absent",
    [
        "There is no square.",
        "No.",
        "no",
        "I don't see a square.",
        "I don’t see one",
        "The picture is empty.",
        "没有正方形。",
        "不，没有正方形。",
    ],
)
def test_what_only_a_quarter_shows_is_found(absent: str) -> None:
    found = composed(absent, NOTHING, "The square is blue.")
    assert (found.answer, found.part) == ("The square is blue.", "top_right")
    assert found.text("en") == "Looking closer, at the top right: The square is blue."
    assert found.text("zh") == "放大看右上部分：The square is blue."


@pytest.mark.parametrize(
    "found", ["No, the square is blue.", "Nobody is smiling.", "不，它是蓝色的。", "A note on a door."]
)
def test_a_no_that_describes_something_is_no_absence(found: str) -> None:
    assert composed(found, "Yes, the square is red.").answer == found


def test_absence_everywhere_stays_absence() -> None:
    assert composed(NOTHING) == Composed(NOTHING, WHOLE, (NOTHING,) * 5)


def test_the_answer_of_most_quarters_counts() -> None:
    found = composed(NOTHING, "It is a star.", "It is a square.", "It is a square.")
    assert (found.answer, found.part) == ("It is a square.", "top_right")


def test_a_box_is_refined_by_a_quarter_that_shows_all_of_the_thing() -> None:
    found = composed("[0.70, 0.10, 0.80, 0.20]", NOTHING, "[0.52, 0.20, 0.64, 0.30]")
    assert (found.answer, found.part) == ("[0.71, 0.12, 0.78, 0.18]", WHOLE)
    cut_off = composed("[0.50, 0.10, 0.90, 0.20]", "[0.80, 0.15, 1.0, 0.35]")
    assert cut_off.answer == "[0.50, 0.10, 0.90, 0.20]", "the top left quarter ends in the middle of the thing"
    elsewhere = composed("[0.10, 0.10, 0.20, 0.20]", "[0.80, 0.80, 0.90, 0.90]")
    assert elsewhere.answer == "[0.10, 0.10, 0.20, 0.20]", "another thing"


def test_a_box_that_only_quarters_give_counts_if_two_of_them_agree() -> None:
    alone = composed(NOTHING, "[0.80, 0.10, 0.90, 0.20]")
    assert alone.answer == NOTHING
    both = composed(NOTHING, "[0.75, 0.10, 0.91, 0.20]", "[0.09, 0.10, 0.25, 0.20]")
    [box] = boxes(both.answer)
    assert box == Box(0.45, 0.06, 0.55, 0.12)


def test_a_failed_part_is_left_out_and_a_failed_whole_has_no_answer() -> None:
    rows = [Row("top_left", "It broke.", None, "?"), Row(WHOLE, NOTHING, 1.0, "?"), Row("top_right", "Two.", 1.0, "?")]
    found = compose(rows)
    assert found and found.answer == "Two." and found.notes == (NOTHING, "", "Two.", "", "")
    assert compose([Row(WHOLE, "It broke.", None, "?"), Row("top_left", "Two.", 1.0, "?")]) is None
    assert compose([]) is None


def test_a_thing_too_small_for_the_whole_picture_is_found(demo: Bundle) -> None:
    drawing = Image.new("RGB", (900, 900), "white")
    ImageDraw.Draw(drawing).ellipse((628, 188, 692, 252), fill="red")  # 14 pixels wide in the model's input
    out = io.BytesIO()
    drawing.save(out, "PNG")
    engine = LocalEngine(demo)
    greedy = Sampling(temperature=0.0, max_tokens=60)

    def look(question: str) -> Composed:
        rows = list(closer.batch(engine, question, out.getvalue(), sampling=greedy).rows())
        assert len(rows) == 5
        found = compose(rows)
        assert found
        return found

    colour, box = look("What colour is the circle?"), look("Give the bounding box of the red circle.")
    engine.close()
    assert colour.notes[0] == "There is no circle."
    assert (colour.answer, colour.part) == ("The circle is red.", "top_right")
    true = Box(628 / 900, 188 / 900, 692 / 900, 252 / 900)
    [first], [finer] = boxes(box.notes[0]), boxes(box.answer)
    assert true.overlap(first) < 0.5 < true.overlap(finer)
