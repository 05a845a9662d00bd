"""How the page looks and handles: sizes of text, fingers, sharp pictures, little motion, few tab stops, any window."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from impchat import images, settings
from tests.core.scripted import ScriptedEngine
from tests.web.conftest import Serve, Site, Visit, drawing
from tests.web.hands import QUESTION, add_by_click, answer, send

FINGER_PX = 44
HEADINGS = "# One\n\n## Two\n\n### Three\n\n#### Four\n\nText.\n\n```python\nprint(1)\n```\n"


def conversation_with(site: Site, question: str, pictures: tuple[str, ...] = ()) -> str:
    """Add a conversation to the history; return its address."""
    history = site.app.history
    chat = history.create_conversation(settings.OWNER, title=question)
    history.add_question(chat.uuid, settings.OWNER, parent=None, text=question, images=pictures)
    return f"{site.url}/?c={chat.uuid}"


def style(page: Page, selector: str, name: str) -> str:
    return str(page.locator(selector).first.evaluate(f"(element) => getComputedStyle(element).{name}"))


def test_answers_are_set_to_be_read_and_headings_differ(serve: Serve, visit: Visit) -> None:
    engine = ScriptedEngine()
    page = visit(serve(engine).url)
    send(page, "Show me")
    engine.next().finish(HEADINGS)
    answer(page, 1)
    for selector in (".words p", ".bubble"):
        size, leading = style(page, selector, "fontSize"), style(page, selector, "lineHeight")
        assert (size, leading) == ("16px", "25.6px"), selector
    sizes = [float(style(page, f".words h{level}", "fontSize").removesuffix("px")) for level in (1, 2, 3, 4)]
    assert sizes == sorted(set(sizes), reverse=True)


SMALL = f"""() => [...document.querySelectorAll("button, #history a, summary")]
    .filter((each) => each.checkVisibility({{ visibilityProperty: true, opacityProperty: true }}))
    .map((each) => [each.outerHTML, each.getBoundingClientRect()])
    .filter(([_, {{ width, height }}]) => Math.min(width, height) < {FINGER_PX})
    .map(([html, {{ width, height }}]) => `${{width}} x ${{height}}: ${{html}}`)"""


def test_everything_that_a_finger_presses_is_large_enough(serve: Serve, visit: Visit) -> None:
    engine = ScriptedEngine()
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    page = visit(serve(engine).url, **phone)
    add_by_click(page, drawing())
    expect(page.get_by_role("button", name="Remove")).to_be_visible()
    assert page.evaluate(SMALL) == []
    send(page, "Show me")
    engine.next().finish()
    engine.next().finish(HEADINGS)
    answer(page, 1)
    assert page.evaluate(SMALL) == []
    page.get_by_role("button", name="Chats").click()
    expect(page.get_by_role("button", name="New chat")).to_be_visible()
    assert page.evaluate(SMALL) == []


def test_a_title_stays_where_it_is_under_the_pointer(serve: Serve, visit: Visit) -> None:
    site = serve(ScriptedEngine())
    page = visit(conversation_with(site, "A title that is much longer than the list of chats is wide"))
    title = page.locator("#history a")
    before = title.bounding_box()
    title.hover()
    expect(page.get_by_role("button", name="Delete")).to_have_css("opacity", "1")
    assert title.bounding_box() == before


def test_pictures_are_sharp_on_a_screen_with_two_pixels_for_each(serve: Serve, visit: Visit) -> None:
    site = serve(ScriptedEngine())
    sha256 = site.app.history.add_image(images.prepare(drawing(size=(1600, 1200))), settings.OWNER).sha256
    page = visit(conversation_with(site, "What is it?", (sha256,)), device_scale_factor=2)
    picture = page.locator(".picture img")
    expect(picture).to_have_js_property("complete", True)
    assert picture.evaluate("async (img) => (await createImageBitmap(img)).width >= 2 * img.clientWidth")


def test_the_empty_page_keeps_its_samples_when_a_picture_is_added(serve: Serve, visit: Visit) -> None:
    engine = ScriptedEngine()
    page = visit(serve(engine).url)
    samples = page.locator(".sample")
    expect(samples.first).to_be_visible()
    add_by_click(page, drawing())
    engine.next().finish()
    expect(page.locator("#chips .chip")).to_have_count(1)
    expect(samples.first).to_be_visible()


def test_a_few_tab_stops_lead_to_the_question_however_many_chats_there_are(serve: Serve, visit: Visit) -> None:
    site = serve(ScriptedEngine())
    for number in range(40):
        address = conversation_with(site, f"Question {number}")
    page = visit(address)
    expect(page.locator("#history li")).to_have_count(40)
    page.locator("#skip").focus()
    stops = 0
    while not page.locator(QUESTION).evaluate("(box) => box === document.activeElement"):
        page.keyboard.press("Tab")
        stops += 1
        assert stops < 10


def test_nothing_moves_for_those_who_want_little_motion(serve: Serve, visit: Visit) -> None:
    engine = ScriptedEngine()
    page = visit(serve(engine).url, reduced_motion="reduce")
    add_by_click(page, drawing())
    expect(page.locator(".chip.reading")).to_be_visible()
    assert page.evaluate("document.getAnimations().length") == 0
    engine.next().finish()
    send(page, "Show me")
    expect(page.locator("#live .dots")).to_be_visible()
    assert page.evaluate("document.getAnimations().length") == 0
    script = engine.next()
    script.say("Words")
    expect(page.locator("#live .words")).to_be_visible()
    assert page.evaluate("document.getAnimations().length") == 0
    script.finish()


@pytest.mark.parametrize(("width", "height"), [(320, 568), (3840, 2160)])
def test_the_page_fits_any_window(serve: Serve, visit: Visit, width: int, height: int) -> None:
    engine = ScriptedEngine()
    page = visit(serve(engine).url, viewport={"width": width, "height": height})
    overflow = """() => [document.documentElement, ...document.querySelectorAll("#scroll, #top, #composer")]
        .filter((each) => each.scrollWidth > each.clientWidth).map((each) => each.id)"""
    assert page.evaluate(overflow) == []
    expect(page.locator(".sample").first).to_be_in_viewport()
    send(page, "Show me what fits")
    engine.next().finish(f"{HEADINGS}\n\n{'word ' * 60}")
    answer(page, 1)
    assert page.evaluate(overflow) == []
    expect(page.locator(QUESTION)).to_be_in_viewport(ratio=1)
    assert page.locator(".words").evaluate("({ clientWidth }) => clientWidth") < 800  # lines stay short
