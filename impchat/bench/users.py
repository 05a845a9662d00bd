"""`impchat bench users`: several people ask at once, each about a picture of their own that was read before.

In: a bundle. Out: for each number of people the speed of all together, the time to the first token, and the longest
pause.
This file does not know how answers are timed.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from impchat import machine, speedtest
from impchat.app import App
from impchat.bench import asking, resources
from impchat.bench.asking import Questions, Tell, Timed
from impchat.bench.report import Collector, Figure
from impchat.bundle import Bundle

PEOPLE = (1, 2, 4, 8)
TOKENS = 32  # of each answer
QUESTION_TOKENS = 12


def run(bundle: Bundle, rounds: int, tell: Tell, people: Sequence[int] = PEOPLE) -> list[Figure]:
    """Measure in `rounds` rounds for each number of people whose conversations fit into free memory; the others are
    reported with "bench.no_room" and left out. Raises the ImpChatError that ended an answer."""
    questions = Questions(bundle)
    figures: list[Figure] = []
    with asking.folder() as data:
        for count in people:
            needed, memory = resources.kv_bytes(bundle, count * bundle.context_tokens), machine.memory()
            if count > 1 and memory and needed > memory.free:
                tell("bench.no_room", count=count)
                continue
            figures += _measure(bundle, data / str(count), questions, count, rounds, tell)
    return figures


def _measure(bundle: Bundle, data: Path, questions: Questions, count: int, rounds: int, tell: Tell) -> list[Figure]:
    found = Collector()
    with asking.opened(bundle, data, slots=count) as app:
        for number in range(1, rounds + 1):
            tell("bench.step.people", count=count, round=number, rounds=rounds)
            add(found, together(app, questions, count))
    return found.figures


def together(app: App, questions: Questions, count: int) -> list[Timed]:
    """The answers of `count` people, who ask at once about a picture that was read before."""
    chats = [app.chat() for _ in range(count)]
    for chat in chats:
        asking.ready(chat.attach(speedtest.fresh_picture().data))
    return asking.at_once([partial(asking.send, app, chat, questions.of(QUESTION_TOKENS), TOKENS) for chat in chats])


def add(found: Collector, answers: Sequence[Timed], program: str = "") -> None:
    """Add what the answers of several people in one round amount to."""
    case, firsts = str(len(answers)), [answer.first_s for answer in answers]
    speed = sum(answer.tokens for answer in answers) / max(answer.total_s for answer in answers)
    found.add("people_speed", speed, "tokens/s", case=case, program=program)
    found.add("people_first", statistics.median(firsts), case=case, program=program)
    found.add("people_first_worst", max(firsts), case=case, program=program)
    found.add("people_pause", max(answer.pause_s for answer in answers), case=case, program=program)
