"""Asks questions as a person does, through `App` and `Chat`, and measures what the person waits for.

In: a bundle; a chat, pictures and questions. Out: `Timed` answers, and questions of a given number of tokens.
This file does not know benchmarks.
"""

from __future__ import annotations

import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from threading import Barrier
from typing import Any

from impchat import settings
from impchat.app import App
from impchat.bundle import Bundle
from impchat.chat import Chat
from impchat.deferred import Attachment
from impchat.errors import ImpChatError
from impchat.messages import Failed, Finished, Stats, Text
from impchat.models import library

Tell = Callable[..., None]
"""Reports the step that begins: the key of a text and its values."""

_POOL = 400  # words


@dataclass(frozen=True, slots=True)
class Timed:
    """An answer, as the person who waits for it sees it."""

    first_s: float  # from sending to the first text
    pause_s: float  # longest time between two pieces of text
    total_s: float  # from sending to the end
    tokens: int  # generated
    stats: Stats


@contextmanager
def opened(bundle: Bundle, data: Path, slots: int = settings.SLOTS) -> Iterator[App]:
    """An App with its own data folder `data`, whose engine is loaded."""
    data.mkdir(parents=True, exist_ok=True)
    library.permit(data, bundle)  # it has been chosen already
    with App.open(data, bundle.path, slots=slots) as app:
        app.engine  # noqa: B018 - loads it
        yield app


@contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder for data folders."""
    with tempfile.TemporaryDirectory(prefix="impchat-bench-") as path:
        yield Path(path)


def ready(attachment: Attachment) -> None:
    """Wait until the attached picture has been read. Raises the ImpChatError that ended it."""
    for _, event in attachment.events():
        if isinstance(event, Failed):
            raise ImpChatError(event.code, **event.values)
    attachment.settled.wait()


def send(app: App, chat: Chat, question: str, tokens: int) -> Timed:
    """Send `question` and read its answer of at most `tokens` tokens, the likeliest ones. Raises the ImpChatError that
    ended it."""
    sampling = replace(app.sampling, temperature=0.0, max_tokens=tokens)
    begun = time.perf_counter()
    return timed(begun, (event for _, event in chat.send(question, sampling=sampling).events()))


def timed(begun: float, events: Iterator[object]) -> Timed:
    """What the events of an answer, sent at `begun` (time.perf_counter), amount to. Raises the ImpChatError that ended
    it."""
    seen: list[float] = []
    for event in events:
        now = time.perf_counter()
        match event:
            case Text():
                seen.append(now)
            case Failed(code, values):
                raise ImpChatError(code, **values)
            case Finished():
                return timed_from(begun, seen, now, event.stats)
    raise ImpChatError("answer.no_end")


def timed_from(begun: float, seen: Sequence[float], ended: float, stats: Stats) -> Timed:
    """The times of an answer, from those (time.perf_counter) when it was sent, when each piece of text arrived, and
    when it ended."""
    pauses = [after - before for before, after in pairwise(seen)]
    first = seen[0] if seen else ended
    return Timed(first - begun, max(pauses, default=0.0), ended - begun, stats.generated_tokens, stats)


def type_slowly(chat: Chat, text: str, characters_per_s: float) -> None:
    """Type `text` at this speed into the draft of `chat`, which the engine reads meanwhile."""
    begun = time.perf_counter()
    for end in range(1, len(text) + 1):
        chat.read_typed(text[:end])
        time.sleep(max(0.0, begun + end / characters_per_s - time.perf_counter()))


def at_once(work: Sequence[Callable[[], Any]]) -> list[Any]:
    """Start all of `work` at the same moment, each on a thread of its own. Returns their results in order."""
    start = Barrier(len(work))

    def run(each: Callable[[], Any]) -> Any:
        start.wait()
        return each()

    with ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(run, work))


class Questions:
    """Makes questions of a given number of tokens, so that work can be compared between models and programs: random
    words of the model's vocabulary, each of which is one token with the space before it."""

    def __init__(self, bundle: Bundle) -> None:
        """Read the vocabulary of `bundle`. Raises as `llama.Model`."""
        from impchat.engines.local.llama import Model

        model = Model(bundle.language)
        try:
            self.eos = model.special_tokens().get(bundle.text.eos[0], "")  # as text
            self._draw = random.Random(0)
            self._words = list(_words(model, self._draw))
        finally:
            model.free()

    def of(self, tokens: int) -> str:
        """A new question of `tokens` tokens, at least 1, without the template's."""
        return " ".join(self._draw.choices(self._words, k=tokens))


def _words(model: Any, draw: random.Random) -> Iterator[str]:
    """Up to `_POOL` words of which any sequence gives one token each."""
    ids = list(range(model.vocabulary))
    draw.shuffle(ids)
    found = 0
    for token in ids:
        word = model.piece(token).decode("utf-8", "replace")
        if re.fullmatch(r" [A-Za-z]{2,8}", word) and model.tokenize(word + word) == [token, token]:
            yield word[1:]
            found += 1
            if found == _POOL:
                return
    if not found:
        yield from ("what", "is", "this")
