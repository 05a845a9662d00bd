"""The composer: typing, pasting, dropping and sending; each question is sent once, and no text is lost."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from impchat import settings
from impchat.messages import Failed
from tests.core.slow import SlowEngine
from tests.web.conftest import Serve, Visit, drawing
from tests.web.hands import LEAVING, QUESTION, add_by_click, answer, conversation, send

ME = settings.OWNER


def question(page: Page) -> str:
    return page.input_value(QUESTION)


def new_chat(page: Page) -> None:
    page.locator("#new").click()
    page.wait_for_url(re.compile(r"/$"))


def put_into_clipboard(page: Page, text: str, html: str = "") -> None:
    """Copy a picture together with text, as spreadsheets do."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(
        """async ([text, html]) => {
            const canvas = document.createElement("canvas");
            canvas.getContext("2d").fillRect(0, 0, 100, 50);
            const items = { "image/png": await new Promise((done) => canvas.toBlob(done)) };
            if (text) items["text/plain"] = new Blob([text], { type: "text/plain" });
            if (html) items["text/html"] = new Blob([html], { type: "text/html" });
            await navigator.clipboard.write([new ClipboardItem(items)]);
        }""",
        [text, html],
    )


def test_cells_of_a_table_are_pasted_as_text_and_offered_as_a_picture(serve: Serve, visit: Visit) -> None:
    page = visit(serve().url)
    put_into_clipboard(page, "Name\tAge\nAda\t36")
    page.fill(QUESTION, "Explain: ")
    page.keyboard.press("Control+V")
    expect(page.locator(QUESTION)).to_have_value("Explain: Name\tAge\nAda\t36")
    expect(page.locator("#chips .chip")).to_have_count(0)
    page.get_by_role("button", name="Add the picture").click()
    expect(page.locator("#chips .chip")).to_have_count(1)
    expect(page.locator("#chips")).to_contain_text("Ready")
    assert question(page).startswith("Explain: Name")
    page.evaluate("navigator.clipboard.writeText('  more words')")
    page.locator("#scroll").click(position={"x": 5, "y": 5})
    page.keyboard.press("Control+V")  # anywhere on the page
    expect(page.locator(QUESTION)).to_have_value("Explain: Name\tAge\nAda\t36  more words")


def test_a_picture_copied_from_a_web_page_is_added_at_once(serve: Serve, visit: Visit) -> None:
    page = visit(serve().url)
    put_into_clipboard(page, "", '<img src="https://example.org/cat.png">')
    page.focus(QUESTION)
    page.keyboard.press("Control+V")
    expect(page.locator("#chips .chip")).to_have_count(1)
    assert question(page) == ""


def test_enter_twice_sends_one_question(serve: Serve, visit: Visit) -> None:
    site = serve()
    page = visit(site.url)
    for number, gap in enumerate((0, 20, 100, 300), 1):
        page.fill(QUESTION, "What is it?")
        page.press(QUESTION, "Enter")
        page.wait_for_timeout(gap)
        page.press(QUESTION, "Enter")
        expect(page.locator("#thread .answer .receipt")).to_have_count(number)
        expect(page.locator("#thread .question")).to_have_count(number)
        expect(page.get_by_role("alert")).to_be_empty()
        expect(page.locator(QUESTION)).to_have_value("")
    page.locator("#send").dblclick(force=True)  # with nothing to send
    expect(page.get_by_role("alert")).to_be_empty()
    assert len(site.app.history.conversations(ME)) == 1


def test_a_folder_dropped_on_the_page_is_reported_as_a_folder(serve: Serve, visit: Visit, tmp_path: Path) -> None:
    folder, picture = tmp_path / "holiday", tmp_path / "red.png"
    folder.mkdir()
    picture.write_bytes(drawing("red"))
    page = visit(serve().url)
    devtools = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(folder), str(picture)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        devtools.send("Input.dispatchDragEvent", {"type": kind, "x": 700, "y": 300, "data": data})
    expect(page.locator("#chips .chip")).to_have_count(1)
    expect(page.get_by_role("alert")).to_contain_text("“holiday” is a folder")


@pytest.mark.parametrize("size", [70_000, 2_000_000])
def test_a_very_long_text_is_kept_and_refused_in_one_sentence(serve: Serve, visit: Visit, size: int) -> None:
    site = serve()
    page = visit(site.url)
    send(page, "Hello!")
    answer(page, 1)
    with page.expect_response(re.compile("/draft")) as saved:
        page.fill(QUESTION, "word " * (size // 5))
    assert saved.value.status == 204
    assert len(site.app.history.conversation(conversation(page), ME).draft) == size
    page.press(QUESTION, "Enter")
    expect(page.get_by_role("alert")).to_contain_text(f"{size}")
    assert len(question(page)) == size
    page.reload()
    page.wait_for_selector("body.ready")
    assert len(question(page)) == size


def test_text_typed_on_the_empty_page_is_kept_after_opening_another_chat(serve: Serve, visit: Visit) -> None:
    site = serve()
    page = visit(site.url)
    send(page, "Hello!")
    answer(page, 1)
    page.fill(QUESTION, "for the first chat")
    new_chat(page)
    expect(page.locator(QUESTION)).to_have_value("")
    page.fill(QUESTION, "for a new chat")
    page.locator("#history a").first.click()
    expect(page.locator(QUESTION)).to_have_value("for the first chat")
    new_chat(page)
    expect(page.locator(QUESTION)).to_have_value("for a new chat")
    add_by_click(page, drawing())  # creates the chat, to which the text now belongs
    expect(page.locator("#chips")).to_contain_text("Ready")
    uuid = conversation(page)
    page.locator("#history a").last.click()
    expect(page.locator(QUESTION)).to_have_value("for the first chat")
    assert site.app.history.conversation(uuid, ME).draft == "for a new chat"


def test_text_typed_while_a_question_is_sent_is_kept_for_the_next(serve: Serve, visit: Visit) -> None:
    page = visit(serve(SlowEngine(words_per_s=50)).url)
    page.fill(QUESTION, "What is it?")
    page.press(QUESTION, "Enter")
    page.keyboard.type(" And why?")
    expect(page.locator("#thread .question")).to_have_text("What is it?")
    expect(page.locator(QUESTION)).to_have_value(" And why?")
    answer(page, 1)
    expect(page.locator(QUESTION)).to_have_value(" And why?")


def test_all_chats_can_be_reached(serve: Serve, visit: Visit) -> None:
    site = serve()
    for number in range(250):
        row = site.app.history.create_conversation(ME, title=f"Chat {number}")
        site.app.history.add_question(row.uuid, ME, parent=None, text=f"Chat {number}")
    page = visit(site.url)
    expect(page.locator("#history li")).to_have_count(100)
    for seen in (200, 250):
        page.get_by_role("button", name="Show older chats").click()
        expect(page.locator("#history li")).to_have_count(seen)
    expect(page.get_by_role("button", name="Show older chats")).to_have_count(0)
    page.get_by_role("link", name="Chat 0", exact=True).click()
    expect(page.locator("#title")).to_have_text("Chat 0")
    expect(page.locator("#history li")).to_have_count(250)
    # The list is one tab stop, and a skip link leads past it.
    assert page.locator("#history [tabindex='0']").count() == 1
    page.locator("#history a[tabindex='0']").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("link", name="Chat 248", exact=True)).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("button", name="Rename: Chat 248")).to_be_focused()
    page.locator("#skip").focus()
    page.keyboard.press("Enter")
    expect(page.locator(QUESTION)).to_be_focused()


def test_a_double_click_deletes_one_chat(serve: Serve, visit: Visit) -> None:
    site = serve()
    for number in range(3):
        site.app.history.create_conversation(ME, title=f"Chat {number}")
    page = visit(site.url)
    page.locator("#history li").first.hover()
    place = page.get_by_role("button", name="Delete: Chat 2").bounding_box()
    assert place
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    page.mouse.click(x, y)
    expect(page.locator("#history li")).to_have_count(2)
    page.mouse.click(x, y)
    page.mouse.move(x + 40, y)
    page.get_by_role("link", name="Chat 0", exact=True).click()  # the last one in the list
    expect(page.locator("#title")).to_have_text("Chat 0")
    assert len(site.app.history.conversations(ME)) == 2
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#history li")).to_have_count(3)


def test_a_chat_that_began_with_a_picture_alone_is_titled_by_its_answer(serve: Serve, visit: Visit) -> None:
    page = visit(serve(SlowEngine("A red circle on white.", words_per_s=100, reading_s=0)).url)
    add_by_click(page, drawing())
    expect(page.locator("#chips")).to_contain_text("Ready")
    page.locator("#send").click()
    answer(page, 1)
    expect(page.locator("#history li a")).to_have_text("A red circle on white.")


def test_a_second_tab_shows_what_the_first_one_sends(serve: Serve, visit: Visit) -> None:
    site = serve(SlowEngine(words_per_s=20))
    page = visit(site.url)
    send(page, "Hello!")
    answer(page, 1)
    second = page.context.new_page()
    second.goto(page.url)
    second.wait_for_selector("body.ready")
    second.fill(QUESTION, "typed in the second tab")
    send(page, "And what now?")
    expect(second.locator("#thread .question").nth(1)).to_have_text("And what now?")
    answer(second, 2)
    expect(second.locator(QUESTION)).to_have_value("typed in the second tab")


def test_a_question_restores_a_chat_deleted_in_another_tab(serve: Serve, visit: Visit) -> None:
    site = serve()
    page = visit(site.url)
    send(page, "Hello!")
    answer(page, 1)
    site.app.history.delete_conversation(conversation(page), ME)
    send(page, "Are you there?")
    answer(page, 2)
    expect(page.locator("#history li")).to_have_count(1)
    assert len(site.app.history.conversations(ME)) == 1


def test_a_title_being_edited_is_kept_when_an_answer_ends(serve: Serve, visit: Visit) -> None:
    site = serve(SlowEngine(words_per_s=20))
    page = visit(site.url)
    send(page, "Hello!")
    page.locator("#history li").hover()
    page.locator("#history .tool.rename").click()
    page.fill("#history input", "A new title")
    answer(page, 1)
    expect(page.locator("#history input")).to_have_value("A new title")
    page.press("#history input", "Enter")
    expect(page.locator("#history li a")).to_have_text("A new title")


def test_a_slow_answer_shows_its_progress_and_can_be_stopped_and_can_fail(serve: Serve, visit: Visit) -> None:
    engine = SlowEngine()
    page = visit(serve(engine).url)
    add_by_click(page, drawing())
    expect(page.locator("#chips")).to_contain_text("%")
    send(page, "What is it?")  # while the picture is processed
    expect(page.locator("#thread .waiting")).to_contain_text("%")
    page.get_by_role("button", name="Stop").click()
    expect(answer(page, 1)).to_have_count(0)
    expect(page.locator("#thread .note")).to_contain_text("Stopped")

    send(page, "And now?")
    expect(page.locator("#thread .growing")).to_contain_text("This picture")
    page.fill(QUESTION, "typed meanwhile")
    page.press(QUESTION, "Enter")  # only one answer at a time
    expect(page.get_by_role("alert")).not_to_be_empty()
    expect(page.locator(QUESTION)).to_have_value("typed meanwhile")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#thread .note").nth(1)).to_contain_text("Stopped")

    engine.failure, engine.fails_after_words = Failed("engine.decode_failed", {}), 3
    page.press(QUESTION, "Enter")
    expect(page.locator("#thread .note.error")).to_contain_text("could not read this prompt")
    expect(answer(page, 3)).to_contain_text("This picture shows")
    expect(page.locator(QUESTION)).to_have_value("")


def test_a_chat_deleted_during_its_answer_is_not_shown(serve: Serve, visit: Visit) -> None:
    page = visit(serve(SlowEngine()).url, may_log=LEAVING)
    send(page, "Hello!")
    expect(page.locator("#thread .growing")).to_be_visible()
    page.locator("#history li").hover()
    page.locator("#history .tool.delete").click()
    expect(page.locator("#history li")).to_have_count(0)
    expect(page.locator(".welcome")).to_be_visible()
    expect(page.locator("#thread .turn")).to_have_count(0)
