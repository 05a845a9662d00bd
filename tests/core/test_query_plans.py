"""Lists, searches and saves find their rows through indexes, so that they stay fast in a large history.

SQLite explains each statement that the history runs. Without statistics, which ImpChat does not collect, its plan does
not depend on how many rows there are. benchmarks/test_history.py measures the times.
"""

from __future__ import annotations

import io
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from impchat import images
from impchat.history.store import History
from impchat.messages import Stats

ME = "local"

# Full scans that are meant. A virtual table is always said to be scanned; what follows the colon is how it is narrowed.
_MEANT = re.compile(
    r"SCAN (CONSTANT ROW|\(subquery-\d+\)|up|json_each .*"
    r"|\w+ VIRTUAL TABLE INDEX \d+:\S+"
    r"|messages USING (COVERING )?INDEX messages_streaming)"  # the index has only the streaming ones
)


@dataclass
class Watched:
    """A history with two conversations, and the plans of the statements that it runs."""

    history: History
    conversation: str
    image: str

    def plans(self, work: Callable[[], object]) -> dict[str, list[str]]:
        """The statements that `work` runs, each with the steps of its plan."""
        ran: list[str] = []
        self.history._database._connection.set_trace_callback(ran.append)
        work()
        self.history._database._connection.set_trace_callback(None)
        with closing(sqlite3.connect(self.history._database.path)) as db:
            return {
                sql: [row[3] for row in db.execute(f"explain query plan {sql}")]
                for sql in ran
                if re.match(r"\s*(select|insert|update|delete|replace|with)\b", sql, re.IGNORECASE)
            }

    def scans(self, work: Callable[[], object]) -> list[tuple[str, str]]:
        """Each step that reads a whole table or index, with its statement."""
        plans = self.plans(work)
        assert plans
        return [
            (step, sql)
            for sql, steps in plans.items()
            for step in steps
            if step.startswith("SCAN") and not _MEANT.fullmatch(step)
        ]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    history = History(tmp_path / "history.db")
    drawn = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(drawn, "PNG")
    image = history.add_image(images.prepare(drawn.getvalue()), ME).sha256
    for text in ("What is this?", "那是什么？"):
        conversation = history.create_conversation(ME).uuid
        history.update_conversation(conversation, ME, folder="Work", tags=["one"])
        question = history.add_question(conversation, ME, parent=None, text=text, images=[image])
        answer = history.start_answer(conversation, ME, parent=question.uuid, model="m")
        history.finish_answer(answer.uuid, text="A red square", state="done", stats=Stats())
    yield Watched(history, conversation, image)
    history.close()


@pytest.mark.parametrize("query", ["red", "r", "what is", "什", "nothing"])
def test_a_search_reads_only_what_it_finds(watched: Watched, query: str) -> None:
    plans = watched.plans(lambda: watched.history.search(ME, query))
    assert watched.scans(lambda: watched.history.search(ME, query)) == []
    assert not [step for steps in plans.values() for step in steps if "TEMP B-TREE" in step], "all hits are sorted"


def test_words_of_up_to_three_letters_have_an_index_of_prefixes(watched: Watched) -> None:
    with watched.history._database.read() as db:
        made = db.execute("select sql from sqlite_master where name in ('message_search', 'title_search')").fetchall()
    assert len(made) == 2
    assert all("prefix='1 2 3'" in row["sql"] for row in made)


def test_a_page_of_the_list_reads_the_owners_conversations_in_their_order(watched: Watched) -> None:
    plans = watched.plans(lambda: watched.history.conversations(ME, limit=50, offset=50))
    ((first, *rest),) = plans.values()
    assert re.fullmatch(r"SEARCH c USING INDEX conversations_\w+ \(owner=\?.*\)", first)
    assert not [step for step in rest if step == "USE TEMP B-TREE FOR ORDER BY"], "all of them are sorted"
    for filters in ({"folder": "Work"}, {"tag": "one"}, {"deleted": True}):
        assert watched.scans(lambda filters=filters: watched.history.conversations(ME, **filters)) == []  # type: ignore[misc]


def test_what_accompanies_a_page_is_read_for_that_page_alone(watched: Watched) -> None:
    history, page = watched.history, [watched.conversation]
    for work in (
        lambda: history.covers(ME, page),
        lambda: history.counts(ME, page),
        lambda: history.count(ME),
        lambda: history.branch(watched.conversation, ME),
        lambda: history.tree(watched.conversation, ME),
    ):
        assert watched.scans(work) == []


def test_pictures_are_read_from_the_latest_one_backwards(watched: Watched) -> None:
    (plan,) = watched.plans(lambda: watched.history.pictures(ME, limit=50)).values()
    assert [step for step in plan if step.startswith("SCAN")] == ["SCAN i"]
    assert not [step for step in plan if "TEMP B-TREE FOR ORDER BY" in step], "all of them are sorted"


def test_a_turn_is_saved_without_reading_the_history(watched: Watched) -> None:
    history, conversation = watched.history, watched.conversation

    def turn() -> None:
        leaf = history.conversation(conversation, ME).leaf
        question = history.add_question(conversation, ME, parent=leaf, text="And this?", images=[watched.image])
        answer = history.start_answer(conversation, ME, parent=question.uuid, model="m")
        history.flush_answer(answer.uuid, "A")
        history.finish_answer(answer.uuid, text="A square", state="done")

    assert watched.scans(turn) == []


def test_opening_reads_only_unfinished_answers(watched: Watched) -> None:
    assert watched.scans(watched.history.mark_interrupted) == []


def test_other_changes_read_only_their_own_rows(watched: Watched) -> None:
    history, conversation = watched.history, watched.conversation
    for work in (
        lambda: history.update_conversation(conversation, ME, title="New", tags=["two"], draft="?", draft_images=[]),
        lambda: history.delete_conversation(conversation, ME),
        lambda: history.purge_conversation(conversation, ME),
    ):
        assert watched.scans(work) == []
