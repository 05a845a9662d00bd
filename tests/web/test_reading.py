"""Reloads, stops and changes of conversation while a scripted engine writes an answer."""

from __future__ import annotations

import time

from playwright.sync_api import expect

from impchat.errors import EngineError
from impchat.messages import Encoding, Reading, Ready, Stats
from tests.core.scripted import ScriptedEngine
from tests.web.conftest import Serve, Visit, drawing
from tests.web.hands import LEAVING, QUESTION, add_by_click, answer, conversation, send


def test_an_answer_continues_after_a_reload(serve: Serve, visit: Visit) -> None:
    engine = ScriptedEngine()
    page = visit(serve(engine).url, may_log=LEAVING)
    send(page, "Tell me")
    script = engine.next()
    script.say("One, ", "two, ")
    expect(page.locator("#live .words")).to_have_text("One, two,")
    page.reload()
    expect(page.locator("#live .words")).to_have_text("One, two,")
    script.say("three, ")
    expect(page.locator("#live .words")).to_have_text("One, two, three,")
    script.finish("four.")
    expect(answer(page, 1)).to_have_text("One, two, three, four.")
    expect(page.locator("#live .answer")).to_have_count(0)
    expect(page.get_by_role("button", name="Send")).to_be_visible()


def test_a_stopped_answer_keeps_its_text(serve: Serve, visit: Visit) -> None:
    engine = ScriptedEngine()
    page = visit(serve(engine).url)
    send(page, "Tell me")
    script = engine.next()
    script.say("One, ", "two")
    expect(page.locator("#live .words")).to_have_text("One, two")
    page.get_by_role("button", name="Stop").click()
    expect(answer(page, 1)).to_have_text("One, two")
    assert script.stopped
    expect(page.locator("#thread")).to_contain_text("Stopped here.")
    send(page, "Go on")
    engine.next().finish("three")
    expect(answer(page, 2)).to_have_text("three")


def test_an_answer_continues_while_another_conversation_is_open(serve: Serve, visit: Visit) -> None:
    engine = ScriptedEngine()
    page = visit(serve(engine).url)
    send(page, "First")
    first = engine.next()
    first.say("Slowly ")
    expect(page.locator("#live .words")).to_have_text("Slowly")
    page.get_by_role("button", name="New chat").click()
    expect(page.locator("#live .words")).to_have_count(0)
    expect(page.get_by_role("alert")).to_be_empty()
    send(page, "Second")
    first.say("spoken ")
    engine.next().finish("Quick.")
    expect(answer(page, 1)).to_have_text("Quick.")

    page.get_by_role("link", name="First").click()
    expect(page.locator("#live .words")).to_have_text("Slowly spoken")
    first.finish("words.")
    expect(answer(page, 1)).to_have_text("Slowly spoken words.")


def test_a_page_that_lost_its_server_says_so_and_reconnects_with_the_typed_text(serve: Serve, visit: Visit) -> None:
    engine = ScriptedEngine()
    site = serve(engine)
    page = visit(site.url, may_log=("ERR_CONNECTION_REFUSED", *LEAVING))
    send(page, "First")
    engine.next().finish("Answer.")
    expect(answer(page, 1)).to_have_text("Answer.")
    site.close()
    send(page, "Are you there?")
    expect(page.get_by_role("alert")).to_contain_text("start it again")
    expect(page.locator(QUESTION)).to_have_value("Are you there?")

    again = ScriptedEngine()
    serve(again, port=site.port)
    expect(page.get_by_role("alert")).to_be_empty()  # the page reloads itself
    expect(page.locator(QUESTION)).to_have_value("Are you there?")
    page.press(QUESTION, "Enter")
    again.next().finish("Yes.")
    expect(answer(page, 2)).to_have_text("Yes.")


def test_two_pages_show_one_answer(serve: Serve, visit: Visit) -> None:
    engine = ScriptedEngine()
    site = serve(engine)
    page = visit(site.url)
    send(page, "Tell me")
    script = engine.next()
    script.say("Together ")
    other = visit(f"{site.url}/?c={conversation(page)}")
    script.say("we ")
    for each in (page, other):
        expect(each.locator("#live .words")).to_have_text("Together we")
    script.finish("read.")
    for each in (page, other):
        expect(answer(each, 1)).to_have_text("Together we read.")


def test_two_browsers_show_two_simultaneous_answers(serve: Serve, visit: Visit) -> None:
    engine = ScriptedEngine()
    site = serve(engine)
    pages = [visit(site.url), visit(site.url)]
    scripts = []
    for page, text in zip(pages, ("One", "Two"), strict=True):
        send(page, text)
        scripts.append(engine.next())
        scripts[-1].say(f"{text} is ")
    for page, text in zip(pages, ("One", "Two"), strict=True):
        expect(page.locator("#live .words")).to_have_text(f"{text} is")
    for page, script in zip(pages, scripts, strict=True):
        script.finish("told.")
        expect(answer(page, 1)).to_contain_text("is told.")


def test_a_question_during_an_answer_is_refused_and_kept(serve: Serve, visit: Visit) -> None:
    engine = ScriptedEngine()
    page = visit(serve(engine).url)
    send(page, "First")
    script = engine.next()
    script.say("Wait")
    expect(page.locator("#live .words")).to_have_text("Wait")
    send(page, "Second")
    expect(page.get_by_role("alert")).not_to_be_empty()
    expect(page.locator(QUESTION)).to_have_value("Second")
    script.finish(" for me.")
    expect(answer(page, 1)).to_have_text("Wait for me.")
    page.press(QUESTION, "Enter")
    engine.next().finish("Now.")
    expect(answer(page, 2)).to_have_text("Now.")


def test_the_page_shows_the_progress_of_reading_a_picture(serve: Serve, visit: Visit) -> None:
    engine = ScriptedEngine()
    page = visit(serve(engine).url)
    add_by_click(page, drawing())
    reading = engine.next()
    reading.say(Encoding(""), Reading(50, 200))
    expect(page.locator("#chips")).to_contain_text("25 %")
    reading.say(Ready(Stats()))
    expect(page.locator("#chips")).to_contain_text("Ready, ask anything")


def test_a_question_can_be_sent_before_its_picture_is_processed(serve: Serve, visit: Visit) -> None:
    engine = ScriptedEngine()
    page = visit(serve(engine).url)
    add_by_click(page, drawing())
    send(page, "What is it?")
    reading = engine.next()
    reading.say(Reading(100, 200))
    expect(page.locator("#live")).to_contain_text("Reading 50 %")
    reading.say(Ready(Stats()))
    engine.next().finish("A circle.")
    expect(answer(page, 1)).to_have_text("A circle.")


def test_an_engine_failure_is_reported_in_one_sentence_and_the_next_question_works(serve: Serve, visit: Visit) -> None:
    engine = ScriptedEngine()
    page = visit(serve(engine).url)
    send(page, "First")
    error = EngineError("answer.no_end")
    script = engine.next()
    script.say("Half an")
    script.crash(error)
    expect(answer(page, 1)).to_have_text("Half an")
    expect(page.locator("#thread .note.error")).to_have_text(str(error))
    send(page, "Again")
    engine.next().finish("Whole.")
    expect(answer(page, 2)).to_have_text("Whole.")


def test_the_page_follows_the_answer_unless_the_reader_scrolls_up(serve: Serve, visit: Visit) -> None:
    engine = ScriptedEngine()
    page = visit(serve(engine).url)
    send(page, "A long one")
    script = engine.next()
    distance = (
        "() => { const s = document.querySelector('#scroll'); return s.scrollHeight - s.scrollTop - s.clientHeight }"
    )
    script.say(*(f"{n}\n\n" for n in range(60)))
    expect(page.locator("#live")).to_contain_text("59")
    page.wait_for_function(f"({distance})() < 5")
    page.evaluate("document.querySelector('#scroll').scrollTop = 0")
    expect(page.get_by_role("button", name="To the latest words")).to_be_visible()
    script.say("the end")
    expect(page.locator("#live")).to_contain_text("the end")
    assert page.evaluate("document.querySelector('#scroll').scrollTop") == 0
    page.get_by_role("button", name="To the latest words").click()
    page.wait_for_function(f"({distance})() < 5")
    script.finish()


def test_words_are_read_as_they_are_typed(serve: Serve, visit: Visit) -> None:
    engine = ScriptedEngine()
    page = visit(serve(engine).url)
    send(page, "First")
    engine.next().finish("Yes.")
    expect(answer(page, 1)).to_have_text("Yes.")
    page.locator(QUESTION).press_sequentially("What colour is")
    deadline = time.monotonic() + 20
    while engine.typed[-1:] != ["What colour"]:
        assert time.monotonic() < deadline, engine.typed
        page.wait_for_timeout(50)
