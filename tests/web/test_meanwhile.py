"""Text, pictures and key presses during a pending request go to the chat that they were meant for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

from playwright.sync_api import Page, Route, expect

from impchat import settings
from impchat.app import App
from impchat.messages import Failed
from tests.core.scripted import ScriptedEngine
from tests.core.slow import SlowEngine
from tests.web.conftest import SECONDS, Serve, Visit, drawing
from tests.web.hands import LEAVING, QUESTION, add_by_click, add_by_drop, answer, conversation, send

ME = settings.OWNER
EVENTS = "**/gradio_api/run/**"


@contextmanager
def held(page: Page, pattern: str) -> Iterator[Callable[[], None]]:
    """Hold requests to `pattern` until the block ends. Yields a function that waits for the first."""
    routes: list[Route] = []
    held = True

    def arrived(route: Route) -> None:
        if held:
            routes.append(route)
        else:
            route.continue_()

    def wait() -> None:
        while not routes:
            page.wait_for_timeout(10)

    page.route(pattern, arrived)
    yield wait
    held = False
    for route in routes:
        route.continue_()


def chats(app: App, *titles: str) -> list[str]:
    """Add conversations with one answered question each; return their uuids."""
    uuids = []
    for title in titles:
        row = app.history.create_conversation(ME)
        asked = app.history.add_question(row.uuid, ME, parent=None, text=title)
        said = app.history.start_answer(row.uuid, ME, parent=asked.uuid, model="imp-test")
        app.history.finish_answer(said.uuid, text="Yes.", state="done", finish_reason="stop")
        uuids.append(row.uuid)
    return uuids


def open_chat(page: Page, title: str) -> None:
    page.locator("#history a", has_text=re.compile(f"^{title}$")).click()


def draft_images(app: App, uuid: str) -> int:
    return len(app.history.conversation(uuid, ME).draft_images)


def questions(app: App, uuid: str) -> list[str]:
    return [m.text for m in app.history.branch(uuid, ME) if m.role == "user"]


def drag(page: Page, *items: tuple[str, str]) -> None:
    """Drop data of these types on the thread, as if dragged from another page."""
    drop(page, {"items": [{"mimeType": kind, "data": text} for kind, text in items], "files": []})


def drop(page: Page, data: dict[str, Any]) -> None:
    devtools = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        dragged = {"type": kind, "x": 700, "y": 300, "data": data | {"dragOperationsMask": 1}}
        devtools.send("Input.dispatchDragEvent", dragged)


def test_text_is_kept_when_another_chat_cannot_be_opened(serve: Serve, visit: Visit) -> None:
    site = serve(ScriptedEngine())
    uuid, _ = chats(site.app, "Old", "New")
    page = visit(f"{site.url}/?c={uuid}", may_log=("ERR_CONNECTION_REFUSED", *LEAVING), locale="zh-CN")
    site.close()
    page.fill(QUESTION, "half a question")
    open_chat(page, "New")
    expect(page.get_by_role("alert")).to_contain_text("没有回应")
    expect(page.locator(QUESTION)).to_have_value("half a question")
    expect(page.locator(".toast-wrap")).to_be_hidden()  # Gradio's own notice, in English
    assert page.url.endswith(uuid)

    serve(ScriptedEngine(), port=site.port)
    expect(page.get_by_role("alert")).to_be_empty()  # the page reloads itself
    expect(page.locator(QUESTION)).to_have_value("half a question")
    open_chat(page, "New")
    expect(page.locator(QUESTION)).to_have_value("")
    open_chat(page, "Old")
    expect(page.locator(QUESTION)).to_have_value("half a question")


def test_a_long_text_pasted_just_before_a_reload_is_not_lost(serve: Serve, visit: Visit) -> None:
    site = serve(ScriptedEngine())
    uuid, _ = chats(site.app, "Old", "New")
    page = visit(f"{site.url}/?c={uuid}", may_log=LEAVING)
    page.fill(QUESTION, "word " * 14_000)
    page.reload()
    page.wait_for_selector("body.ready")
    for title, length in (("New", 0), ("Old", 70_000)):
        open_chat(page, title)
        expect(page.locator("#title")).to_have_text(title)
        assert len(page.input_value(QUESTION)) == length


def test_actions_before_the_page_has_loaded_are_for_the_chat_in_the_address(serve: Serve, visit: Visit) -> None:
    site = serve(SlowEngine(words_per_s=50, reading_s=0))
    uuid, other = chats(site.app, "Old", "Other")
    page = visit(site.url, may_log=LEAVING)
    with held(page, EVENTS) as begun:
        page.goto(f"{site.url}/?c={uuid}")
        begun()
        add_by_drop(page, drawing())
        page.locator(QUESTION).press_sequentially("What is it?")
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
    answer(page, 2)
    expect(page.locator("#thread .question").nth(1)).to_contain_text("What is it?")
    assert questions(site.app, uuid) == ["Old", "What is it?"]

    with held(page, EVENTS) as begun:  # the same while another chat loads
        open_chat(page, "Other")
        begun()
        page.locator(QUESTION).press_sequentially("And this?")
        page.keyboard.press("Enter")
    expect(page.locator("#title")).to_have_text("Other")
    answer(page, 2)
    assert questions(site.app, other) == ["Other", "And this?"]
    assert len(site.app.history.conversations(ME)) == 2


def test_pictures_go_to_the_chat_to_which_they_were_added(serve: Serve, visit: Visit) -> None:
    site = serve(SlowEngine(reading_s=0))
    old, new = chats(site.app, "Old", "New")
    page = visit(f"{site.url}/?c={old}", may_log=LEAVING)
    with held(page, "**/attach?**") as begun:
        for colour in ("red", "blue"):
            add_by_drop(page, drawing(colour))
        begun()
        open_chat(page, "New")
        expect(page.locator("#title")).to_have_text("New")
    open_chat(page, "Old")
    expect(page.locator("#title")).to_have_text("Old")
    page.wait_for_function("() => !document.querySelector('#chips .reading')")
    with page.expect_response(re.compile("/gradio_api/run/")):
        open_chat(page, "New")
    expect(page.locator("#title")).to_have_text("New")
    expect(page.locator("#chips .chip")).to_have_count(0)
    assert (draft_images(site.app, old), draft_images(site.app, new)) == (2, 0)


def test_a_question_waits_for_its_picture_and_is_sent_once(serve: Serve, visit: Visit) -> None:
    site = serve(SlowEngine(words_per_s=50, reading_s=0))
    old, new = chats(site.app, "Old", "New")
    page = visit(f"{site.url}/?c={old}", may_log=LEAVING)
    with held(page, "**/attach?**") as begun:
        add_by_drop(page, drawing())
        begun()
        page.fill(QUESTION, "What is it?")
        for _ in range(2):
            page.press(QUESTION, "Enter")
            page.locator("#send").click()
    expect(page.locator("#thread .question").nth(1).locator("img")).to_be_visible()
    answer(page, 2)
    expect(page.locator(QUESTION)).to_have_value("")

    open_chat(page, "New")
    expect(page.locator("#title")).to_have_text("New")
    with held(page, "**/attach?**") as begun:  # the user opens another chat meanwhile
        add_by_drop(page, drawing("blue"))
        begun()
        send(page, "And this?")
        open_chat(page, "Old")
        expect(page.locator("#title")).to_have_text("Old")
    expect(page.locator("#history a").first).to_have_text("New")  # it has the latest question
    expect(page.locator("#title")).to_have_text("Old")
    expect(page.locator("#thread .question")).to_have_count(2)
    assert questions(site.app, new) == ["New", "And this?"]
    open_chat(page, "New")
    expect(page.locator("#title")).to_have_text("New")
    answer(page, 2)
    expect(page.locator(QUESTION)).to_have_value("")


def test_a_sample_and_a_suggestion_clicked_in_quick_succession_send_a_question(serve: Serve, visit: Visit) -> None:
    page = visit(serve(SlowEngine(words_per_s=50, reading_s=0)).url)
    with held(page, "**/sample/**"):
        page.locator(".sample").first.click()
        page.locator(".ask").first.click()
    expect(page.locator("#thread .question img")).to_be_visible()
    answer(page, 1)


def test_keys_of_a_chinese_input_method_neither_send_nor_stop(serve: Serve, visit: Visit) -> None:
    engine = ScriptedEngine()
    page = visit(serve(engine).url)
    press = """([kind, key]) => document.querySelector("#question textarea").dispatchEvent(
        new KeyboardEvent(kind, { key, isComposing: true, bubbles: true, cancelable: true }))"""
    send(page, "One")
    script = engine.next()
    script.say("Words")
    expect(page.locator("#live .words")).to_have_text("Words")
    page.fill(QUESTION, "ni")
    page.evaluate(press, ["keydown", "Escape"])
    page.evaluate(press, ["keypress", "Enter"])
    script.finish(" and more.")
    expect(answer(page, 1)).to_have_text("Words and more.")
    expect(page.locator(QUESTION)).to_have_value("ni")
    assert engine.idle()


def test_a_double_click_removes_one_picture(serve: Serve, visit: Visit) -> None:
    page = visit(serve(SlowEngine(reading_s=0)).url)
    for colour in ("red", "green", "blue"):
        add_by_click(page, drawing(colour))
    expect(page.locator("#chips .chip[data-image='']")).to_have_count(0)
    page.locator("#chips .chip .close").first.dblclick()
    expect(page.locator("#chips .chip")).to_have_count(2)
    page.locator("#chips .chip .close").last.click()
    expect(page.locator("#chips .chip")).to_have_count(1)


def test_a_picture_sent_in_one_tab_disappears_from_the_composer_of_the_other(serve: Serve, visit: Visit) -> None:
    site = serve(SlowEngine(words_per_s=50, reading_s=0))
    page = visit(site.url, may_log=LEAVING)
    add_by_click(page, drawing())
    conversation(page)
    second = page.context.new_page()
    second.goto(page.url)
    expect(second.locator("#chips .chip")).to_have_count(1)
    send(page, "What is it?")
    answer(second, 1)
    expect(second.locator("#chips .chip")).to_have_count(0)


def test_a_dragged_link_is_inserted_and_a_dragged_foreign_picture_is_explained(serve: Serve, visit: Visit) -> None:
    page = visit(serve(ScriptedEngine()).url)
    page.fill(QUESTION, "See ")
    drag(page, ("text/uri-list", "https://example.org/a"), ("text/plain", "https://example.org/a"))
    expect(page.locator(QUESTION)).to_have_value("See https://example.org/a")
    drag(page, ("text/uri-list", "https://example.org/a.png"), ("text/html", '<img src="https://example.org/a.png">'))
    expect(page.get_by_role("alert")).to_contain_text("save or copy it")
    expect(page.locator(QUESTION)).to_have_value("See https://example.org/a")
    expect(page.locator("#chips .chip")).to_have_count(0)


def test_a_file_copied_in_a_file_manager_is_pasted_as_a_picture(serve: Serve, visit: Visit) -> None:
    page = visit(serve(SlowEngine(reading_s=0)).url)
    page.evaluate(
        """(bytes) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "red.png", { type: "image/png" }));
            transfer.setData("text/plain", "red.png");
            document.querySelector("#question textarea").dispatchEvent(
                new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true }));
        }""",
        list(drawing()),
    )
    expect(page.locator("#chips .chip")).to_have_count(1)
    expect(page.locator(QUESTION)).to_have_value("")


def test_a_file_that_is_no_picture_is_named_and_the_others_are_added(
    serve: Serve, visit: Visit, tmp_path: Path
) -> None:
    files = {"notes.txt": b"Milk, bread", "red.png": drawing("red"), "blue.png": drawing("blue")}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    page = visit(serve(SlowEngine(reading_s=0)).url, may_log=("422",))
    drop(page, {"items": [], "files": [str(tmp_path / name) for name in files]})
    expect(page.locator("#chips .chip")).to_have_count(2)
    expect(page.get_by_role("alert")).to_contain_text("notes.txt: This file is not a picture")


def test_typed_text_is_kept_when_its_chat_is_deleted_in_another_tab(serve: Serve, visit: Visit) -> None:
    site = serve(SlowEngine(words_per_s=50))
    uuid, _ = chats(site.app, "Old", "New")
    page = visit(f"{site.url}/?c={uuid}", may_log=LEAVING)
    page.fill(QUESTION, "half a question")
    second = page.context.new_page()
    second.goto(site.url)
    second.locator("#history li", has_text="Old").hover()
    second.get_by_role("button", name="Delete: Old").click()
    expect(page.get_by_role("alert")).not_to_be_empty()
    expect(page.locator("#history li")).to_have_count(1)
    expect(page.locator(QUESTION)).to_have_value("half a question")
    second.get_by_role("button", name="Undo").click()
    expect(page.locator("#history li")).to_have_count(2)


def test_a_question_from_another_browser_is_shown_when_the_user_returns(serve: Serve, visit: Visit) -> None:
    site = serve(SlowEngine(words_per_s=50))
    (uuid,) = chats(site.app, "Old")
    page, elsewhere = visit(f"{site.url}/?c={uuid}"), visit(f"{site.url}/?c={uuid}")
    page.fill(QUESTION, "half a question")
    send(elsewhere, "And this?")
    answer(elsewhere, 2)
    page.evaluate("dispatchEvent(new Event('focus'))")
    answer(page, 2)
    expect(page.locator(QUESTION)).to_have_value("half a question")


def test_chats_are_deleted_one_after_the_other_with_the_keyboard(serve: Serve, visit: Visit) -> None:
    site = serve(ScriptedEngine())
    chats(site.app, "One", "Two", "Three")
    page = visit(site.url)
    page.locator("#history a").first.focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    expect(page.locator("#history li")).to_have_count(2)
    expect(page.get_by_role("link", name="One")).to_be_focused()
    for key in ("ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    expect(page.locator("#history li")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(page.locator("#title")).to_have_text("Three")


def test_a_picture_added_during_an_answer_goes_with_the_next_question(serve: Serve, visit: Visit) -> None:
    engine = ScriptedEngine()
    site = serve(engine)
    page = visit(site.url)
    send(page, "One")
    first = engine.next()
    first.say("Words")
    expect(page.locator("#live .words")).to_have_text("Words")
    add_by_drop(page, drawing())
    expect(page.locator("#chips .chip")).to_have_attribute("data-image", re.compile("."))
    page.fill(QUESTION, "What is it?")
    page.press(QUESTION, "Enter")  # only one answer at a time
    expect(page.get_by_role("alert")).to_contain_text("still being written")
    expect(page.locator(QUESTION)).to_have_value("What is it?")
    first.finish(".")
    answer(page, 1)
    engine.next().finish()  # the picture is processed
    page.press(QUESTION, "Enter")
    expect(page.locator("#thread .question").nth(1).locator("img")).to_be_visible()
    engine.next().say(Failed("engine.decode_failed", {}))  # before the first word
    expect(page.locator("#thread .note.error")).to_be_visible()
    expect(page.locator("#send")).to_be_visible()
    send(page, "Again?")
    engine.next().finish("Yes.")
    expect(answer(page, 3)).to_have_text("Yes.")


def test_a_chat_deleted_while_its_model_loads_is_restored_with_its_answer(serve: Serve, visit: Visit) -> None:
    loaded = Event()
    engine = ScriptedEngine(on_start=lambda prompt: loaded.wait(SECONDS) and None)
    page = visit(serve(engine).url, may_log=LEAVING)
    send(page, "Tell me")
    expect(page.locator("#thread .waiting")).to_be_visible()
    page.fill(QUESTION, "half a question")
    page.locator("#history li").hover()
    page.get_by_role("button", name="Delete: Tell me").click()
    expect(page.locator(".welcome")).to_be_visible()
    expect(page.locator(QUESTION)).to_have_value("")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#thread .waiting")).to_be_visible()
    expect(page.locator(QUESTION)).to_have_value("half a question")
    loaded.set()
    engine.next().finish("At last.")
    expect(answer(page, 1)).to_have_text("At last.")
    expect(page.locator(QUESTION)).to_have_value("half a question")
