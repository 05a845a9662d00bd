"""One question about many pictures, several at a time.

In: an engine, a question and pictures. Out: a row of a table for each picture, as soon as its answer has ended. Nothing
is stored in the history.
This file does not know where the pictures come from, or where the table is written (`table`).
"""

from __future__ import annotations

import queue
import threading
import time
import uuid
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from impchat import images, settings
from impchat.engines import Engine, Handle
from impchat.errors import ChatError, ImpChatError
from impchat.messages import Failed, Finished, Picture, Prompt, Sampling, Text, Turn
from impchat.table import Row


@dataclass(frozen=True, slots=True)
class Item:
    """A picture to ask about. `read` returns the bytes of its file, and may raise an ImpChatError."""

    name: str
    read: Callable[[], bytes]


class Batch:
    """Asks one question about each picture. A picture that fails becomes a row with a sentence; the others go on."""

    def __init__(
        self,
        engine: Engine,
        question: str,
        items: Sequence[Item],
        *,
        system: str = settings.SYSTEM,
        sampling: Sampling | None = None,
        at_once: int = settings.SLOTS,
        language: str = "en",
    ) -> None:
        """`sampling` None: the values that the model recommends. `at_once`: questions that run at the same time; more
        than the engine has slots (`App.tuning.slots`) only wait. `language`: of the sentences of failed rows.

        Raises ChatError "question.empty", "question.too_long"."""
        if not question.strip():
            raise ChatError("question.empty")
        if len(question) > settings.QUESTION_CHARS:
            raise ChatError("question.too_long", chars=len(question), limit=settings.QUESTION_CHARS)
        self.total = len(items)
        self.done = 0  # rows that `rows` has yielded
        self._engine = engine
        self._question = question
        self._system = system
        self._sampling = sampling
        self._workers = min(at_once, len(items))
        self._language = language
        self._key = f"batch-{uuid.uuid4().hex}"
        self._left = iter(items)
        self._lock = threading.Lock()  # guards _left and _running
        self._running: dict[int, Handle] = {}  # worker -> its answer
        self._stopping = threading.Event()

    def rows(self) -> Generator[Row, None, None]:
        """Yield a row for each picture in the order in which their answers end. May be called once, from any thread.

        `stop` ends the iteration, and so does closing the generator; both drop the answers in progress."""
        ended: queue.SimpleQueue[Row | BaseException | None] = queue.SimpleQueue()  # None: a worker has ended
        threads = [
            threading.Thread(target=self._work, args=(number, ended.put), name=f"batch-{number}", daemon=True)
            for number in range(self._workers)
        ]
        for thread in threads:
            thread.start()
        working = len(threads)
        try:
            while working:
                match ended.get():
                    case None:
                        working -= 1
                    case Row() as row:
                        self.done += 1
                        yield row
                    case exc:
                        raise exc
        finally:
            self.stop()
            for thread in threads:
                thread.join()

    def stop(self) -> None:
        """End `rows` soon. May be called from any thread, and more than once."""
        self._stopping.set()
        with self._lock:
            running = list(self._running.values())
        for handle in running:
            handle.stop()

    def _work(self, number: int, put: Callable[[Row | BaseException | None], None]) -> None:
        try:
            while item := self._next():
                if row := self._row(number, item):
                    put(row)
        except BaseException as exc:  # noqa: BLE001 - a bug; raised to the reader of `rows`
            put(exc)
        finally:
            put(None)

    def _next(self) -> Item | None:
        with self._lock:
            return None if self._stopping.is_set() else next(self._left, None)

    def _row(self, number: int, item: Item) -> Row | None:
        """The row for `item`; None if it was stopped."""
        began = time.perf_counter()
        thumbnail = b""
        try:
            prepared = images.prepare(item.read())
            thumbnail = images.thumbnail(prepared.data, settings.TABLE_THUMBNAIL_SIDE)
            text = self._answer(number, Picture(prepared.image.sha256, prepared.data))
        except ImpChatError as exc:
            return Row(item.name, exc.sentence(self._language), None, self._question, thumbnail)
        if text is None:
            return None
        return Row(item.name, text, time.perf_counter() - began, self._question, thumbnail)

    def _answer(self, number: int, picture: Picture) -> str | None:
        """The answer about `picture`; None if it was stopped. Raises ImpChatError."""
        # The key names the worker: its next prompt reuses the KV cache of the system text, and one batch takes no more
        # slots than it has workers.
        prompt = Prompt(self._system, (Turn("user", self._question, (picture,)),), f"{self._key}-{number}")
        handle = self._engine.start(prompt, self._sampling or self._engine.info.sampling)
        with self._lock:
            self._running[number] = handle
        if self._stopping.is_set():  # `stop` may have missed this handle
            handle.stop()
        text = ""
        try:
            for event in handle.events():
                match event:
                    case Text(piece):
                        text += piece
                    case Finished(finish_reason="stopped"):
                        return None
                    case Failed(code, values):
                        raise ImpChatError(code, **values)
        finally:
            with self._lock:
                del self._running[number]
        return text.strip()
