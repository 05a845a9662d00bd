"""Pictures on the page: the editor of a draft's picture, the viewer, a part to ask about, boxes as chips."""

from __future__ import annotations

import io
import re
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import Locator, Page, expect

from impchat import images, settings
from impchat.images import marks
from tests.web.conftest import Serve, Site, Visit, drawing
from tests.web.hands import QUESTION, add_by_click, answer, conversation

ME = settings.OWNER
STATIC = Path(__file__).parents[2] / "web/impchat_web/static"


def drag(page: Page, surface: Locator, start: tuple[float, float], *through: tuple[float, float]) -> None:
    """Drag on an element; places in fractions of its size."""
    box = surface.bounding_box()
    assert box
    for number, (x, y) in enumerate((start, *through)):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=3 if number else 1)
        if not number:
            page.mouse.down()
    page.mouse.up()


def edit(page: Page, count: int = 1) -> Locator:
    """Open the editor of the only picture of the draft."""
    expect(page.locator("#chips .chip:not(.reading)")).to_have_count(count)
    page.get_by_role("button", name="Attached picture").click()
    canvas = page.locator("#editor canvas")
    expect(canvas).to_be_visible()
    return canvas


def draft(site: Site, page: Page) -> list[Image.Image]:
    """The pictures of the draft on the server."""
    row = site.app.history.conversation(conversation(page), ME)
    return [images.decode(site.app.history.image_bytes(sha)) for sha in row.draft_images]


def use(page: Page) -> None:
    page.get_by_role("button", name="Use this").click()
    expect(page.locator("#editor")).to_be_hidden()
    expect(page.locator("#chips .chip:not(.reading)").first).to_be_visible()


def reopened(page: Page) -> None:
    page.reload()
    page.wait_for_selector("body.ready")


def asked(site: Site, text: str, *pictures: bytes) -> str:
    """A conversation with one question about pictures, answered with `text`."""
    history = site.app.history
    chat = history.create_conversation(ME).uuid
    shas = [history.add_image(images.prepare(picture), ME).sha256 for picture in pictures]
    parent = history.add_question(chat, ME, parent=None, text="Where?", images=shas).uuid
    given = history.start_answer(chat, ME, parent=parent, model="scripted-1").uuid
    history.finish_answer(given, text=text, state="done", finish_reason="stop")
    return chat


def test_a_picture_is_cropped_rotated_and_marked_before_it_is_sent(serve: Serve, visit: Visit) -> None:
    site = serve()
    page = visit(site.url)
    page.fill(QUESTION, "What is it?")
    add_by_click(page, drawing(size=(400, 300)))
    canvas = edit(page)
    drag(page, canvas, (0, 0), (0.75, 1.2))  # to 300 x 300
    page.get_by_role("button", name="Turn right").click()
    page.get_by_role("button", name="Mark with a box").click()
    drag(page, canvas, (0.2, 0.2), (0.8, 0.8))
    page.get_by_role("button", name="Mark with an arrow").click()
    drag(page, canvas, (0.1, 0.9), (0.4, 0.6))
    page.get_by_role("button", name="Draw a line").click()
    drag(page, canvas, (0.9, 0.1), (0.9, 0.5), (0.6, 0.9))
    expect(page.locator("#editor .mark")).to_have_count(3)
    page.keyboard.press("Control+z")
    expect(page.locator("#editor .mark")).to_have_count(2)
    use(page)
    expect(page.locator(QUESTION)).to_have_value("Marked in the picture: box 1 (red), arrow 2 (yellow). What is it?")
    (picture,) = draft(site, page)
    assert abs(picture.width / picture.height - 1) < 0.02
    colours = {colour: count for count, colour in picture.convert("RGB").getcolors(1 << 20) or []}
    assert colours[255, 43, 43] > 100

    edit(page)  # the edits are still there, and the legend follows them
    page.get_by_role("button", name="Undo").click()
    use(page)
    expect(page.locator(QUESTION)).to_have_value("Marked in the picture: box 1 (red). What is it?")
    page.press(QUESTION, "Enter")
    answer(page, 1)
    reopened(page)
    expect(page.locator("#thread .bubble")).to_have_text("Marked in the picture: box 1 (red). What is it?")
    (message, _) = site.app.history.branch(conversation(page), ME)
    assert len(message.images) == 1


def test_the_editor_works_by_keyboard_and_keeps_edits_when_it_is_closed(serve: Serve, visit: Visit) -> None:
    site = serve(language="zh")
    page = visit(site.url)
    add_by_click_zh(page, drawing(size=(400, 300)))
    expect(page.locator("#chips .chip:not(.reading)")).to_have_count(1)
    page.locator("#chips .retouch").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#editor .stage")).to_be_focused()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")  # the middle half
    for tool in ("box", "arrow", "line"):
        page.locator(f"[data-tool={tool}]").focus()
        page.keyboard.press("Enter")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("Enter")
    expect(page.locator("#editor .mark")).to_have_count(3)
    page.keyboard.press("Escape")
    expect(page.locator("#editor")).to_be_hidden()
    page.locator("#chips .retouch").click()
    expect(page.locator("#editor .mark")).to_have_count(3)
    page.locator("[data-do=edit-use]").click()
    expect(page.locator("#editor")).to_be_hidden()
    expect(page.locator(QUESTION)).to_have_value(re.compile("1.*2.*3"))
    legend = page.input_value(QUESTION)
    assert "Marked" not in legend
    reopened(page)
    (picture,) = draft(site, page)
    assert abs(picture.width / picture.height - 4 / 3) < 0.03
    expect(page.locator("#chips .chip")).to_have_count(1)


def add_by_click_zh(page: Page, data: bytes) -> None:
    page.locator("#picker").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": data})


def printed() -> bytes:
    """A page of small print."""
    paper = Image.new("RGB", (1200, 900), "white")
    pen, font = ImageDraw.Draw(paper), ImageFont.load_default(15)
    for line in range(40):
        pen.text((30, 20 + 22 * line), "The quick brown fox jumps over the lazy dog and reads. " * 3, "black", font)
    out = io.BytesIO()
    paper.save(out, "PNG")
    return out.getvalue()


def test_a_hint_about_small_print_leads_to_what_the_model_sees(serve: Serve, visit: Visit) -> None:
    site = serve()
    page = visit(site.url)
    add_by_click(page, printed())
    page.get_by_role("button", name="Crop to the part you ask about").click()
    canvas = page.locator("#editor canvas")
    expect(canvas).to_be_visible()
    page.get_by_role("button", name="What the model sees").click()
    expect(page.locator("#editor .how")).to_have_text(re.compile(r"196 × 196 pixels\. Small print .* is lost"))
    page.wait_for_function("document.querySelector('#editor .input').naturalWidth === 196")
    page.get_by_role("button", name="What the model sees").click()
    drag(page, canvas, (0, 0), (0.1, 0.12))
    page.get_by_role("button", name="What the model sees").click()
    expect(page.locator("#editor .how")).to_have_text("The model sees 196 × 196 pixels.")
    use(page)
    expect(page.locator("#notice")).to_be_empty()
    reopened(page)
    (picture,) = draft(site, page)
    assert picture.width < 200


def test_a_refused_edit_loses_nothing(serve: Serve, visit: Visit) -> None:
    site = serve()
    page = visit(site.url, may_log=("422",))
    page.fill(QUESTION, "Still here")
    add_by_click(page, drawing())
    canvas = edit(page)
    drag(page, canvas, (0.1, 0.1), (0.6, 0.6))
    page.route("**/pictures/edit*", lambda route: route.continue_(post_data='[{"rotate": 9}]'))
    page.get_by_role("button", name="Use this").click()
    expect(page.locator("#editor .how")).to_contain_text("cannot be made")
    page.unroute("**/pictures/edit*")
    assert [p.size for p in draft(site, page)] == [(320, 240)]
    use(page)
    assert [p.size for p in draft(site, page)] == [(160, 120)]
    expect(page.locator(QUESTION)).to_have_value("Still here")


def test_the_viewer_zooms_and_goes_through_the_pictures(serve: Serve, visit: Visit) -> None:
    site = serve()
    chat = asked(site, "At [0.25, 0.25, 0.75, 0.75].", drawing("red"), drawing("blue", size=(900, 600)))
    page = visit(f"{site.url}/?c={chat}")
    page.locator("#thread .picture").first.click()
    picture = page.locator("#viewer img")
    expect(page.locator("#viewer .place")).to_have_text("1 of 3")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#viewer .place")).to_have_text("2 of 3")
    page.wait_for_function("document.querySelector('#viewer img')?.naturalWidth === 900")

    before = picture.bounding_box()
    assert before
    page.mouse.move(before["x"] + before["width"] / 2, before["y"] + before["height"] / 2)
    page.mouse.wheel(0, -300)
    page.wait_for_function(
        "width => document.querySelector('#viewer img').getBoundingClientRect().width > width", arg=before["width"] + 50
    )
    page.keyboard.press("0")
    assert picture.bounding_box() == before
    page.mouse.dblclick(before["x"] + before["width"] / 2, before["y"] + before["height"] / 2)
    after = picture.bounding_box()
    assert after and after["width"] > 2.5 * before["width"]
    drag(page, page.locator("#viewer .pane"), (0.5, 0.5), (0.6, 0.5))  # pans
    panned = picture.bounding_box()
    assert panned and panned["x"] > after["x"] + 50

    frames = page.locator("#viewer .sheet svg")
    expect(frames).to_have_count(1)  # the boxes of the answer about it
    page.keyboard.press("0")
    boxes = page.get_by_role("button", name="Boxes of the answer")
    boxes.click()
    expect(frames).to_be_hidden()
    boxes.click()
    expect(frames).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Save the picture").click()
    assert images.decode(Path(download.value.path()).read_bytes()).size == (900, 600)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy the picture").click()
    expect(page.locator("#viewer .how")).to_have_text("Copied")
    kinds = page.evaluate("navigator.clipboard.read().then((items) => items.flatMap((item) => item.types))")
    assert kinds == ["image/png"]
    page.keyboard.press("Escape")
    expect(picture).to_be_hidden()


def test_a_part_of_a_picture_is_asked_about(serve: Serve, visit: Visit) -> None:
    site = serve()
    chat = asked(site, "A circle.", drawing("red", size=(900, 600)))
    page = visit(f"{site.url}/?c={chat}")
    page.fill(QUESTION, "And this?")
    page.locator("#thread .picture").click()
    picture = page.locator("#viewer img")
    page.wait_for_function("document.querySelector('#viewer img')?.naturalWidth === 900")
    page.get_by_role("button", name="Ask about a part").click()
    drag(page, picture, (0.1, 0.1), (0.4, 0.4))
    page.get_by_role("button", name="Add this part").click()
    expect(page.locator("#viewer")).to_be_hidden()
    expect(page.locator("#chips .chip:not(.reading)")).to_have_count(1)
    page.locator("#thread .picture").click()  # the same by keyboard
    page.get_by_role("button", name="Ask about a part").press("Enter")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator("#chips .chip:not(.reading)")).to_have_count(2)
    expect(page.locator(QUESTION)).to_have_value("And this?")
    first, second = draft(site, page)
    assert 280 < first.width < 420 and 180 < first.height < 300
    assert second.width < 900
    page.press(QUESTION, "Enter")
    answer(page, 2)
    reopened(page)
    expect(page.locator("#thread .picture")).to_have_count(3)


def test_a_box_in_an_answer_highlights_its_frame(serve: Serve, visit: Visit) -> None:
    site = serve()
    text = "One at [0.1, 0.1, 0.4, 0.4], one at [0.5, 0.5, 0.9, 0.9]. Not `[0.1, 0.1, 0.4, 0.4]` or [1, 2, 3, 4]."
    chat = asked(site, text, drawing())
    page = visit(f"{site.url}/?c={chat}")
    chips, frames = page.locator("#thread .words .box"), page.locator("#thread .marked g")
    expect(chips).to_have_text(["[0.1, 0.1, 0.4, 0.4]", "[0.5, 0.5, 0.9, 0.9]"])
    chips.last.hover()
    expect(frames.last).to_have_class("lit")
    expect(frames.first).not_to_have_class("lit")
    page.locator(QUESTION).hover()
    expect(frames.last).not_to_have_class("lit")
    chips.first.focus()
    expect(frames.first).to_have_class("lit")
    page.locator("#thread .marked .over").click()
    expect(page.locator("#viewer .sheet rect")).to_have_count(4)
    expect(page.locator("#viewer img")).to_be_visible()


def test_the_editor_draws_marks_in_the_colours_of_the_picture() -> None:
    source = (STATIC / "editor.js").read_text(encoding="utf-8")
    (listed,) = re.findall(r"const COLOURS = \[(.*?)\]", source)
    assert re.findall(r"#\w+", listed) == list(marks.COLOURS.values())
