"""The thread: what stays unchanged while an answer grows, copying, and the appearance of answers."""

from __future__ import annotations

import io

import pytest
from PIL import Image
from playwright.sync_api import Locator, expect

from impchat import images, settings
from impchat.messages import Failed
from tests.core.scripted import ScriptedEngine
from tests.core.slow import ANSWER, SlowEngine
from tests.web.conftest import Serve, Visit, drawing
from tests.web.hands import QUESTION, add_by_click, answer, conversation, send

FIRST = "A paragraph that a reader has marked.\n\n"
TABLE = f"| {' | '.join(f'Column{n}' for n in range(30))} |\n{'|---' * 30}|\n{'| word ' * 30}|\n"
CODE = '```python\nprint("hello")\n```\n'

MARK = """() => {
    const words = document.querySelector("#live .words > p").firstChild;
    getSelection().setBaseAndExtent(words, 2, words, 11);
}"""
MARKED = "() => getSelection().toString()"


def test_a_selection_and_a_scrolled_table_stay_while_an_answer_grows_and_when_it_ends(
    serve: Serve, visit: Visit
) -> None:
    engine = ScriptedEngine()
    page = visit(serve(engine).url)
    send(page, "Tell me")
    script = engine.next()
    script.say(FIRST, TABLE)
    table = page.locator("#thread .wide")
    expect(table).to_contain_text("Column29")
    table.evaluate("table => (table.scrollLeft = 150)")
    page.evaluate(MARK)
    assert page.evaluate(MARKED) == "paragraph"
    for piece in ("| last row |\n", "\nMore, and **bold", " words** too.\n\n", CODE, "The end"):
        script.say(piece)
        expect(page.locator("#live .words")).to_contain_text(
            piece.strip("|`\n* ").split("\n")[-1].replace("**", "")[:4]
        )
    script.finish(" of it.")
    expect(answer(page, 1)).to_contain_text("The end of it.")
    expect(page.locator("#live")).to_have_count(0)
    assert page.evaluate(MARKED) == "paragraph"
    assert table.evaluate("table => table.scrollLeft") == 150
    expect(page.locator("#thread .words strong")).to_have_text("bold words")

    send(page, "And?")
    engine.next().finish("Nothing.")
    expect(answer(page, 2)).to_have_text("Nothing.")
    assert page.locator("#thread .turn").count() == 4
    assert page.evaluate(MARKED) in ("paragraph", "")  # now the input has the focus
    page.reload()
    answer(page, 2)
    assert page.locator("#thread .words").first.locator("> *").count() == 5


@pytest.mark.parametrize("way", ["allowed", "without https"])
def test_copy_gives_the_code_alone_and_an_answer_as_markdown(serve: Serve, visit: Visit, way: str) -> None:
    engine = ScriptedEngine()
    page = visit(serve(engine).url, permissions=["clipboard-read", "clipboard-write"])
    text = f"Some *words* and\n\n{CODE}\n| a | b |\n|---|---|\n| 1 | 2 |"
    send(page, "Tell me")
    engine.next().finish(text)
    answer(page, 1)
    if way != "allowed":
        page.evaluate("delete Navigator.prototype.clipboard")
    code, whole = page.locator("[data-do=copy-code]"), page.locator("[data-do=copy-answer]")
    for button, expected in ((code, 'print("hello")'), (whole, text)):
        button.click()
        button.click()
        expect(button).to_have_text("Copied")
        page.fill(QUESTION, "")
        page.press(QUESTION, "Control+v")
        expect(page.locator(QUESTION)).to_have_value(expected)
        expect(button).to_have_text("Copy")
    page.evaluate("getSelection().selectAllChildren(document.querySelector('#thread .answer'))")
    page.keyboard.press("Control+c")
    page.fill(QUESTION, "")
    page.press(QUESTION, "Control+v")
    by_hand = page.locator(QUESTION).input_value()
    assert 'print("hello")' in by_hand and "Copy" not in by_hand and "python" not in by_hand


def test_a_browser_that_cannot_copy_reports_it(serve: Serve, visit: Visit) -> None:
    engine = ScriptedEngine()
    page = visit(serve(engine).url)
    send(page, "Tell me")
    engine.next().finish("Words.")
    answer(page, 1)
    page.evaluate("delete Navigator.prototype.clipboard; document.execCommand = () => false")
    page.locator("[data-do=copy-answer]").click()
    expect(page.get_by_role("alert")).to_contain_text("does not let ImpChat copy")
    expect(page.locator("[data-do=copy-answer]")).to_have_text("Copy")


FORMULAS = r"""Inline \(a^2\) and $b_1 * c_1 * d$ cost $5 and $6, \(open.

\[
\frac{a}{b}
- \{c\} \\
\]

$$
e = *mc*^2
$$"""


def test_words_in_a_table_are_not_broken_and_formulas_keep_their_symbols(serve: Serve, visit: Visit) -> None:
    engine = ScriptedEngine()
    page = visit(serve(engine).url, viewport={"width": 390, "height": 844})
    send(page, "Tell me")
    head = "| Model | Parameters | Tokens | Throughput | Licence | Resolution |\n|---|---|---|---|---|---|\n"
    address = "https://example.org/" + "long/" * 30
    engine.next().finish(f"{head}| Imp-3B | three billion | 196 | fast | Apache | 196x196 |\n\n{FORMULAS}\n\n{address}")
    words = answer(page, 1)
    rows = """cell => {
        const range = document.createRange();
        range.selectNodeContents(cell);
        return new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size;
    }"""
    for cell in words.locator("th").all():
        assert cell.evaluate(rows) == 1, cell.inner_text()
    assert words.locator(".wide").evaluate("table => table.scrollWidth > table.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert words.evaluate("words => words.scrollWidth <= words.clientWidth")
    text = words.inner_text()
    for formula in (r"\(a^2\) and $b_1 * c_1 * d$ cost $5 and $6, \(open.", "e = *mc*^2"):
        assert formula in text
    assert "\\[\n\\frac{a}{b}\n- \\{c\\} \\\\\n\\]" in text
    expect(words.locator("ul, em")).to_have_count(0)


MESSAGES = 500
QUESTION_BYTES = 50_000  # one second on a slow connection


def test_a_question_in_a_chat_of_500_messages_transfers_little(serve: Serve, visit: Visit) -> None:
    engine = ScriptedEngine()
    site = serve(engine)
    history, owner = site.app.history, settings.OWNER
    chat = history.create_conversation(owner).uuid
    parent = None
    for number in range(MESSAGES // 2):
        asked = history.add_question(chat, owner, parent=parent, text=f"Question {number}").uuid
        parent = history.start_answer(chat, owner, parent=asked, model="scripted-1").uuid
        text = f"Answer {number} with **some** words. " * 20
        history.finish_answer(parent, text=text, state="done", finish_reason="stop")
    page = visit(f"{site.url}/?c={chat}")
    expect(page.locator("#thread .turn")).to_have_count(MESSAGES)
    first = page.locator("#thread .turn").first.evaluate_handle("turn => turn")
    received: list[int] = []
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    network.on("Network.loadingFinished", lambda event: received.append(event["encodedDataLength"]))
    send(page, "One more?")
    engine.next().finish("One more.")
    expect(answer(page, MESSAGES // 2 + 1)).to_have_text("One more.")
    expect(page.locator("#thread .turn")).to_have_count(MESSAGES + 2)
    print(f"{sum(received)} bytes for a question in a chat of {MESSAGES} messages")
    assert 0 < sum(received) < QUESTION_BYTES
    assert first.evaluate("turn => turn.isConnected")  # no other turn was rendered again


def test_a_chat_deleted_elsewhere_leaves_the_page_when_its_answer_ends(serve: Serve, visit: Visit) -> None:
    engine = ScriptedEngine()
    site = serve(engine)
    page = visit(site.url)
    send(page, "Tell me")
    script = engine.next()
    script.say("A secret")
    expect(page.locator("#live .words")).to_have_text("A secret")
    chat = conversation(page)
    site.app.history.delete_conversation(chat, settings.OWNER)
    script.finish(" is told.")
    expect(page.get_by_role("heading", name="Ask about a picture")).to_be_visible()
    expect(page.locator("#thread .turn")).to_have_count(0)
    expect(page.get_by_role("alert")).to_contain_text("may have been deleted")

    page.goto(f"{site.url}/?c={chat}")  # an old bookmark
    expect(page.get_by_role("alert")).to_contain_text("may have been deleted")
    expect(page.locator("#thread .turn")).to_have_count(0)


def test_a_slow_model_shows_its_progress_a_stop_button_and_the_reason_of_a_failure(serve: Serve, visit: Visit) -> None:
    engine = SlowEngine(words_per_s=20)
    page = visit(serve(engine).url)
    add_by_click(page, drawing())
    send(page, "What is it?")
    stop = page.get_by_role("button", name="Stop")
    expect(stop).to_be_visible()
    expect(page.locator("#live .waiting")).to_contain_text("%")
    expect(page.locator("#live .words")).to_contain_text("red circle")
    expect(stop).to_be_visible()
    expect(answer(page, 1)).to_have_text(ANSWER.replace("**", ""))
    expect(stop).to_be_hidden()

    engine.failure, engine.fails_after_words = Failed("answer.no_end", {}), 3
    send(page, "And then?")
    expect(answer(page, 2)).to_have_text("This picture shows")
    expect(page.locator("#thread .note.error")).to_have_count(1)
    expect(page.locator("#thread .note.error")).to_be_visible()
    expect(page.get_by_role("button", name="Send")).to_be_visible()


def painted(element: Locator) -> int:
    """The number of colours within an element, without its border."""
    picture = Image.open(io.BytesIO(element.screenshot())).convert("RGB")
    across, down = picture.width // 4, picture.height // 4
    return len(picture.crop((across, down, picture.width - across, picture.height - down)).getcolors(1 << 16) or [])


def test_pictures_fill_their_frames_and_icons_are_visible_in_forced_colours(serve: Serve, visit: Visit) -> None:
    engine = ScriptedEngine()
    site = serve(engine)
    history, owner = site.app.history, settings.OWNER
    chat = history.create_conversation(owner).uuid
    parent = None
    for sizes in ([(400, 300), (300, 700), (900, 200), (1, 20_000), (20_000, 1)], [(1, 20_000)]):
        shas = [history.add_image(images.prepare(drawing(size=size)), owner).sha256 for size in sizes]
        asked = history.add_question(chat, owner, parent=parent, text="What?", images=shas).uuid
        parent = history.start_answer(chat, owner, parent=asked, model="scripted-1").uuid
        history.finish_answer(parent, text="That.", state="done", finish_reason="stop")
    page = visit(f"{site.url}/?c={chat}", forced_colors="active", viewport={"width": 800, "height": 600})
    pictures = page.locator("#thread .picture")
    expect(pictures).to_have_count(6)
    for picture in pictures.all():
        picture.scroll_into_view_if_needed()
        frame, image = picture.bounding_box(), picture.locator("img").bounding_box()
        assert frame and image and min(image["width"], image["height"]) >= 20 and image["height"] <= 300
        assert abs(frame["width"] - image["width"]) <= 2 and abs(frame["height"] - image["height"]) <= 2
    pictures.last.click()
    expect(page.locator("#viewer img")).to_be_visible()
    page.wait_for_function("document.querySelector('#viewer img').getBoundingClientRect().width > 20")
    page.keyboard.press("Escape")

    page.set_viewport_size({"width": 1280, "height": 800})
    entry = page.locator("#history li")
    entry.hover()
    for sign in (page.locator("#attach"), page.locator("#send"), entry.locator(".rename"), entry.locator(".delete")):
        assert painted(sign) > 1, sign
