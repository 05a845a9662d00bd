"""The page with the demo model: adding pictures, asking questions, and finding all of it again later."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from impchat import paths, settings
from impchat.models import library
from tests.core.hands import copy_model
from tests.web.conftest import Serve, Visit, drawing
from tests.web.hands import LEAVING, QUESTION, add_by_click, add_by_drop, add_by_paste, answer, conversation, send


@pytest.mark.parametrize("add", [add_by_click, add_by_drop, add_by_paste])
def test_the_colour_of_a_picture_added_by_click_drop_or_paste_is_recognised(
    serve: Serve, visit: Visit, add: Callable[[Page, bytes], None]
) -> None:
    page = visit(serve().url)
    add(page, drawing("red"))
    expect(page.locator("#chips")).to_contain_text("Ready, ask anything")
    send(page, "What colour is the circle?")
    expect(answer(page, 1)).to_contain_text(re.compile("red", re.IGNORECASE))
    expect(page.locator("#chips .chip")).to_have_count(0)
    picture = page.locator("#thread .question .picture img")
    assert picture.evaluate("image => image.complete && image.naturalWidth > 0")


def test_the_chat_continues_and_the_statistics_show_what_was_reused(serve: Serve, visit: Visit) -> None:
    page = visit(serve().url)
    add_by_click(page, drawing("blue", "rectangle"))
    send(page, "What colour is the square?")
    expect(answer(page, 1)).to_contain_text(re.compile("blue", re.IGNORECASE))
    send(page, "Is there a circle?")
    expect(answer(page, 2)).to_contain_text(re.compile("no", re.IGNORECASE))
    receipt = page.locator("#thread .answer .receipt").nth(1)
    for part in ("s to first token", "tokens/s", "prompt tokens reused"):
        expect(receipt).to_contain_text(part)


def test_a_box_is_drawn_on_the_picture(serve: Serve, visit: Visit) -> None:
    page = visit(serve().url)
    add_by_click(page, drawing("red"))
    send(page, "Give the bounding box of the circle.")
    expect(answer(page, 1)).to_contain_text("[0.")
    marked = page.get_by_role("img", name="The picture with the boxes of the answer")
    expect(marked).to_be_visible()
    picture, frame = marked.bounding_box(), page.locator("#thread .answer .marked rect").last.bounding_box()
    assert picture and frame
    left, top = (frame["x"] - picture["x"]) / picture["width"], (frame["y"] - picture["y"]) / picture["height"]
    right, bottom = left + frame["width"] / picture["width"], top + frame["height"] / picture["height"]
    drawn = (100 / 320, 60 / 240, 220 / 320, 180 / 240)
    assert (left, top, right, bottom) == pytest.approx(drawn, abs=0.06)


def test_the_layout_is_unchanged_when_the_banner_is_hidden(serve: Serve, visit: Visit) -> None:
    page = visit(serve().url)
    add_by_click(page, drawing("red"))
    send(page, "Give the bounding box of the circle.")
    answer(page, 1)
    before = page.locator("#composer").bounding_box()
    page.locator("[data-do=hide-banner]").click()
    expect(page.locator("#banner")).to_be_hidden()
    assert page.locator("#composer").bounding_box() == before


def test_an_empty_question_is_not_sent(serve: Serve, visit: Visit) -> None:
    site = serve()
    page = visit(site.url)
    for nothing in ("", " "):
        page.fill(QUESTION, nothing)
        expect(page.get_by_role("button", name="Send")).to_be_disabled()
        page.press(QUESTION, "Enter")
    expect(page.get_by_role("alert")).to_be_empty()
    assert site.app.history.conversations(settings.OWNER) == []


def test_a_chinese_browser_gets_a_chinese_page_and_a_chinese_answer(serve: Serve, visit: Visit) -> None:
    page = visit(serve().url, locale="zh-CN")
    expect(page.get_by_role("button", name="新对话")).to_be_visible()
    assert page.evaluate("document.documentElement.lang") == "zh"
    add_by_drop(page, drawing("red"))
    send(page, "圆形是什么颜色？")
    expect(answer(page, 1)).to_contain_text("红")


def test_the_demo_model_is_labelled_as_such(serve: Serve, visit: Visit) -> None:
    page = visit(serve().url)
    expect(page.locator("#banner")).to_contain_text("Demo model")
    expect(page.locator("#top")).to_contain_text("imp-demo-196")
    page.get_by_role("button", name="Hide").click()
    expect(page.locator("#banner")).to_be_hidden()
    page.reload()
    page.wait_for_selector("body.ready")
    expect(page.locator("#banner")).to_be_hidden()


def test_an_unverified_model_is_offered_and_labelled_while_it_answers(
    serve: Serve, visit: Visit, tmp_path: Path
) -> None:
    models = paths.models_dir(tmp_path / "data")
    copy_model(paths.demo_bundle(), models / "doubtful", id="doubtful", name="My <own>", unverified="nll 3.1")
    page = visit(serve().url)
    page.get_by_role("button", name="Hide").click()
    expect(page.locator("#banner")).to_contain_text("My <own> is here, but finds right answers")
    expect(page.locator("#banner").get_by_text("Demo model")).to_be_hidden()
    page.get_by_role("button", name="Use it all the same").click()
    expect(page.locator("#top")).to_contain_text("doubtful")
    expect(page.locator("#banner")).to_contain_text("may be wrong more often")
    expect(page.get_by_role("button", name="Use it all the same")).to_have_count(0)
    expect(page.get_by_role("button", name="Hide")).to_have_count(0)
    page.wait_for_selector("body.ready")
    add_by_click(page, drawing("red"))
    send(page, "What colour is the circle?")
    expect(answer(page, 1)).to_contain_text("red")
    assert library.chosen(tmp_path / "data") == "doubtful"


def test_a_sample_picture_and_a_suggested_question_get_an_answer(serve: Serve, visit: Visit) -> None:
    page = visit(serve().url)
    page.locator(".sample").first.click()
    expect(page.locator("#chips .chip")).to_have_count(1)
    page.get_by_role("button", name="What is in the picture?").click()
    expect(answer(page, 1)).not_to_be_empty()


def test_a_button_that_moves_while_it_is_pressed_does_its_work(serve: Serve, visit: Visit) -> None:
    page = visit(serve().url)
    page.locator(".sample").first.click()
    expect(page.locator("#chips .status")).to_have_text("Ready, ask anything")
    button = page.get_by_role("button", name="What is in the picture?")
    button.hover()
    page.mouse.down()
    page.evaluate("document.querySelector('.asks').style.marginTop = '200px'")
    page.mouse.up()
    expect(answer(page, 1)).not_to_be_empty()


def test_samples_are_those_that_the_demo_knows_and_bring_questions_that_fit(serve: Serve, visit: Visit) -> None:
    page = visit(serve().url)
    expect(page.locator(".sample")).to_have_count(3)
    page.locator('[data-sample="night.png"]').click()
    expect(page.get_by_role("button", name="Where is the heart?")).to_be_visible()
    page.get_by_role("button", name="Remove the picture").click()
    expect(page.locator(".ask")).to_have_count(3)
    page.locator('[data-sample="triangles.png"]').click()
    page.get_by_role("button", name="How many triangles are there?").click()
    expect(answer(page, 1)).to_contain_text("two")


def test_a_restarted_server_shows_the_conversation_again(serve: Serve, visit: Visit) -> None:
    site = serve()
    page = visit(site.url)
    add_by_click(page, drawing("green"))
    send(page, "What colour is the circle?")
    before = answer(page, 1).inner_text()
    uuid = conversation(page)
    site.close()
    page.close()

    page = visit(f"{serve().url}/?c={uuid}")
    assert answer(page, 1).inner_text() == before
    send(page, "Is there a circle?")
    expect(answer(page, 2)).to_contain_text(re.compile("yes", re.IGNORECASE))


def test_a_new_chat_is_empty_and_the_old_one_is_in_the_list(serve: Serve, visit: Visit) -> None:
    page = visit(serve().url, may_log=LEAVING)
    send(page, "Hello")
    first = answer(page, 1).inner_text()
    uuid = conversation(page)
    page.get_by_role("button", name="New chat").click()
    expect(page.get_by_role("heading", name="Ask about a picture")).to_be_visible()
    expect(page.locator("#thread .turn")).to_have_count(0)
    assert conversation_of(page) == ""

    page.get_by_role("link", name="Hello").click()
    assert answer(page, 1).inner_text() == first
    assert conversation(page) == uuid
    expect(page.get_by_role("link", name="Hello")).to_have_attribute("aria-current", "page")

    page.go_back()
    expect(page.locator("#thread .turn")).to_have_count(0)


def conversation_of(page: Page) -> str:
    page.wait_for_url(re.compile(r"/$"))
    return page.evaluate("new URLSearchParams(location.search).get('c') ?? ''")


def test_a_long_list_of_chats_scrolls_above_the_controls_below_it(serve: Serve, visit: Visit) -> None:
    site = serve()
    for number in range(40):
        row = site.app.history.create_conversation(settings.OWNER)
        site.app.history.add_question(row.uuid, settings.OWNER, parent=None, text=f"Question {number}", images=())
    page = visit(site.url)
    oldest = page.locator("#history a", has_text=re.compile("^Question 0$"))
    listed, below = page.locator("#history").bounding_box(), page.locator("#devices-button").bounding_box()
    assert listed and below and listed["y"] + listed["height"] <= below["y"]
    page.locator("#history").hover()
    page.mouse.wheel(0, 5000)
    expect(oldest).to_be_in_viewport()
    at = oldest.bounding_box()
    assert at and at["y"] + at["height"] <= below["y"]


def test_a_conversation_is_renamed(serve: Serve, visit: Visit) -> None:
    page = visit(serve().url)
    send(page, "Hello")
    answer(page, 1)
    entry = page.locator("#history li")
    entry.hover()
    entry.get_by_role("button", name="Rename").click()
    page.keyboard.type("我的 <b>图片</b>")
    page.keyboard.press("Enter")
    expect(entry.get_by_role("link")).to_have_text("我的 <b>图片</b>")
    expect(page.locator("#title")).to_have_text("我的 <b>图片</b>")


def test_undo_restores_a_deleted_conversation(serve: Serve, visit: Visit) -> None:
    page = visit(serve().url)
    send(page, "Hello")
    answer(page, 1)
    uuid = conversation(page)
    entry = page.locator("#history li")
    entry.hover()
    entry.get_by_role("button", name="Delete").click()
    expect(entry).to_have_count(0)
    expect(page.locator("#thread .turn")).to_have_count(0)

    page.get_by_role("button", name="Undo").click()
    expect(entry).to_have_count(1)
    answer(page, 1)
    assert conversation(page) == uuid


def test_a_draft_survives_a_reload(serve: Serve, visit: Visit) -> None:
    page = visit(serve().url)
    add_by_click(page, drawing())
    conversation(page)
    with page.expect_response(re.compile("/draft")):
        page.locator(QUESTION).press_sequentially("What is")
    page.reload()
    page.wait_for_selector("body.ready")
    expect(page.locator(QUESTION)).to_have_value("What is")
    expect(page.locator("#chips .chip")).to_have_count(1)
    page.get_by_role("button", name="Remove the picture").click()
    expect(page.locator("#chips .chip")).to_have_count(0)


def test_a_narrow_window_keeps_the_history_in_a_drawer(serve: Serve, visit: Visit) -> None:
    page = visit(serve().url, viewport={"width": 390, "height": 844})
    send(page, "Hello")
    answer(page, 1)
    expect(page.locator("#side")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("button", name="Chats").click()
    expect(page.get_by_role("link", name="Hello")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#side")).to_be_hidden()


def test_a_click_enlarges_a_picture(serve: Serve, visit: Visit) -> None:
    page = visit(serve().url)
    add_by_click(page, drawing(size=(900, 600)))
    send(page, "What is in the picture?")
    page.locator("#thread .picture").click()
    large = page.locator("#viewer img")
    expect(large).to_be_visible()
    page.wait_for_function("document.querySelector('#viewer img').naturalWidth === 900")
    page.keyboard.press("Escape")
    expect(large).to_be_hidden()


@pytest.mark.parametrize("width", [1280, 412])
def test_the_thinnest_and_smallest_pictures_are_visible(serve: Serve, visit: Visit, width: int) -> None:
    page = visit(serve().url, viewport={"width": width, "height": 800})

    def is_green(shown: Locator, least: int) -> None:
        page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=shown.element_handle())
        box = shown.bounding_box()
        assert box and least <= box["width"] <= 0.93 * width and least <= box["height"] <= 721, box
        pixels = Image.open(io.BytesIO(shown.screenshot())).convert("RGB")
        middle = [pixels.getpixel((pixels.width // 2 + x, pixels.height // 2 + y)) for x in (-4, 4) for y in (-4, 4)]
        assert all(green > red + 60 and green > blue + 60 for red, green, blue in middle), middle

    sizes = [(1, 20_000), (20_000, 1), (1, 1), (2, 3)]
    for number, size in enumerate(sizes, 1):
        add_by_click(page, drawing(size=size, paper="green"))
        expect(page.locator("#chips .chip:not(.reading)")).to_have_count(number)
        is_green(page.locator("#chips img").last, 24)
    send(page, "What is in the picture?")
    answer(page, 1)
    for picture in page.locator("#thread .picture").all():
        is_green(picture.locator("img"), 24)
        picture.click()
        is_green(page.locator("#viewer img"), 48)
        page.keyboard.press("Escape")
        expect(page.locator("#viewer img")).to_be_hidden()
