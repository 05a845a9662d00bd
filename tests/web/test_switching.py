"""Fast changes of conversation: the last chosen conversation is shown."""

from __future__ import annotations

import re
from itertools import pairwise, permutations

import pytest
from playwright.sync_api import Page, expect

from impchat import settings
from tests.core.scripted import ScriptedEngine
from tests.web.conftest import Serve, Site, Visit
from tests.web.hands import LEAVING, answer, send

GAPS_MS = (0, 1, 5, 20, 60, 150)  # between two clicks


@pytest.fixture
def site(serve: Serve) -> Site:
    return serve(ScriptedEngine())


@pytest.fixture
def uuids(site: Site) -> list[str]:
    """Add five conversations, "Chat 0" to "Chat 4"; return their uuids."""
    history, uuids = site.app.history, []
    for number in range(5):
        row = history.create_conversation(settings.OWNER)
        question = history.add_question(row.uuid, settings.OWNER, parent=None, text=f"Chat {number}")
        said = history.start_answer(row.uuid, settings.OWNER, parent=question.uuid, model="imp-test")
        history.finish_answer(said.uuid, text=f"Answer {number}", state="done", finish_reason="stop")
        uuids.append(row.uuid)
    return uuids


def click(page: Page, *uuids: str, gap_ms: int) -> None:
    """Click on conversations of the list, one after the other."""
    page.evaluate(
        """async ([uuids, gap]) => {
            for (const uuid of uuids) {
                document.querySelector(`#history li[data-conversation="${uuid}"] a`).click();
                if (gap) await new Promise((done) => setTimeout(done, gap));
            }
        }""",
        [list(uuids), gap_ms],
    )


def expect_chat(page: Page, uuids: list[str], uuid: str) -> None:
    """Check that all parts of the page show the conversation `uuid`."""
    number = uuids.index(uuid)
    page.wait_for_url(re.compile(f"c={uuid}$"))
    expect(page.locator("#title")).to_have_text(f"Chat {number}")
    expect(page.locator("#thread .bubble")).to_have_text(f"Chat {number}")
    expect(page.locator("#thread .words")).to_have_text(f"Answer {number}")
    expect(page.locator("#history [aria-current=page]")).to_have_text(f"Chat {number}")
    expect(page.get_by_role("alert")).to_be_empty()


def test_of_two_quick_clicks_the_last_is_shown(site: Site, visit: Visit, uuids: list[str]) -> None:
    page = visit(site.url)
    for round, (first, last) in enumerate(permutations(uuids, 2)):
        click(page, first, last, gap_ms=GAPS_MS[round % len(GAPS_MS)])
        expect_chat(page, uuids, last)
    click(page, *uuids, *uuids, gap_ms=0)
    expect_chat(page, uuids, uuids[-1])


def test_quick_steps_back_and_forward_end_at_the_right_conversation(site: Site, visit: Visit, uuids: list[str]) -> None:
    page = visit(site.url)
    for uuid in uuids:
        click(page, uuid, gap_ms=0)
        expect_chat(page, uuids, uuid)
    page.evaluate(
        "() => { history.back(); setTimeout(() => history.back(), 20); setTimeout(() => history.back(), 40); }"
    )
    expect_chat(page, uuids, uuids[1])
    page.evaluate("() => { history.forward(); setTimeout(() => history.forward(), 20); }")
    expect_chat(page, uuids, uuids[3])


def test_an_answer_stays_in_its_conversation_while_others_are_opened(
    serve: Serve, visit: Visit, uuids: list[str], site: Site
) -> None:
    engine = site.app.engine
    assert isinstance(engine, ScriptedEngine)
    page = visit(site.url, may_log=LEAVING)
    send(page, "Tell me")
    script = engine.next()
    script.say("One, ")
    expect(page.locator("#live .words")).to_have_text("One,")
    mine = page.url.partition("?c=")[2]
    for first, last in pairwise([mine, *uuids, mine]):
        click(page, first, last, gap_ms=5)
        if last != mine:
            expect_chat(page, uuids, last)
            expect(page.locator("#live .answer")).to_have_count(0)
        script.say("and ")
    expect(page.locator("#live .words")).to_have_text("One, " + "and " * 5 + "and")
    script.finish("two.")
    expect(answer(page, 1)).to_have_text("One, " + "and " * 6 + "two.")
    expect(page.locator("#live .answer")).to_have_count(0)
