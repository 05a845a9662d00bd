"""A running or finished answer. The core owns it, so it does not depend on readers: it ends by itself or by `stop()`.

In: an engine's handle, and the row of the answer in the history. Out: numbered events for any number of readers, and a
row that is complete on disk before the last event arrives.
This file does not know prompts, engines or front ends.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from impchat import settings
from impchat.engines import Handle
from impchat.errors import ChatError, HistoryError, ImpChatError
from impchat.history.store import History
from impchat.messages import End, Event, Failed, Finished, Message, Progress, State, Stats, Text


class EventLog:
    """Numbered events in memory: one thread adds, any number of others read. Ready, Finished or Failed ends it."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._progress = Progress()
        self._changed = threading.Condition()

    def add(self, event: Event) -> None:
        """Append `event` under the next number (the first is 1). Ignored after the log has ended."""
        with self._changed:
            if not self._progress.end:
                self._events.append(event)
                self._progress = self._progress.plus(event)
                self._changed.notify_all()

    @property
    def progress(self) -> Progress:
        """What the events so far add up to."""
        with self._changed:
            return self._progress

    def _has_news(self, after: int) -> bool:
        return len(self._events) > after or self._progress.end is not None

    def latest(self, after: int, timeout_s: float) -> int:
        """Wait up to `timeout_s` seconds for an event with a number above `after`, or the end of the log. Returns the
        number of the last event, 0 if there is none."""
        with self._changed:
            self._changed.wait_for(partial(self._has_news, after), timeout_s)
            return len(self._events)

    def read(self, after: int = 0, timeout_s: float | None = None) -> Iterator[tuple[int, Event]]:
        """Yield the events with numbers above `after` as they arrive, up to the last. If no event arrives within
        `timeout_s` seconds, the iteration ends early; continue with the last number seen. If the log ended with fewer
        than `after` events, the number belongs to another log, so all events are yielded."""
        while True:
            with self._changed:
                self._changed.wait_for(partial(self._has_news, after), timeout_s)
                ended = self._progress.end is not None
                if ended and after > len(self._events):
                    after = 0
                new = self._events[after:]
            for event in new:  # not under the lock: a reader may hold an event for hours
                after += 1
                yield after, event
            if ended or not new:
                return

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait up to `timeout_s` seconds for the end; return whether it came."""
        with self._changed:
            return self._changed.wait_for(lambda: self._progress.end is not None, timeout_s)


def drain(handle: Handle, add: Callable[[Event], None]) -> End:
    """Pass every event of `handle` except the last to `add`, and return the last. An ImpChatError becomes a Failed."""
    try:
        for event in handle.events():
            if isinstance(event, End):
                return event
            add(event)
    except ImpChatError as exc:
        return Failed(exc.code, exc.values)
    return Failed("answer.no_end", {})


class Answer:
    """One answer. It does not depend on its readers, and can be read while it runs and afterwards.

    All methods may be called from any thread. `App.answer` and `Chat` create answers."""

    def __init__(self, row: Message, stop: Callable[[], None]) -> None:
        self._row = row
        self._stop = stop
        self.log = EventLog()  # only the core writes to it

    @property
    def message(self) -> str:
        """The uuid of its row in the history."""
        return self._row.uuid

    @property
    def conversation(self) -> str:
        return self._row.conversation

    def events(self, after: int = 0, timeout_s: float | None = None) -> Iterator[tuple[int, Event]]:
        """Yield numbered events (the first is 1) as they arrive, starting after number `after`. The last one is
        Finished or Failed.

        If no event arrives within `timeout_s` seconds, the iteration ends early; continue with the last number seen. An
        answer rebuilt from the history (after a restart) has fewer events than when it ran. A reader whose `after` is
        beyond them gets all of them: number 1 always means "start the text again"."""
        return self.log.read(after, timeout_s)

    @property
    def progress(self) -> Progress:
        """What the events so far add up to."""
        return self.log.progress

    @property
    def text(self) -> str:
        """The text so far."""
        return self.progress.text

    def latest(self, after: int, timeout_s: float) -> int:
        """Wait up to `timeout_s` seconds for an event after number `after`, or the end; return the last number."""
        return self.log.latest(after, timeout_s)

    @property
    def state(self) -> State:
        return self.snapshot().state

    def stop(self) -> None:
        """Stop the answer and keep its text; the last event follows soon. Does nothing if it has ended.

        Raises ChatError "answer.elsewhere" if another process writes it."""
        self._stop()

    def wait(self, timeout_s: float | None = None) -> Message:
        """Wait for the end, at most `timeout_s` seconds, and return the message as it is then."""
        self.log.wait(timeout_s)
        return self.snapshot()

    def end(self, event: End) -> None:
        """Add the last event, and release the engine's handle and the pictures it holds. Only the core calls this."""
        self._stop = _nothing
        self.log.add(event)

    def snapshot(self) -> Message:
        """The message as it is now."""
        return _with_progress(self._row, self.log.progress)


def _with_progress(row: Message, progress: Progress) -> Message:
    """`row` with the progress of its answer; a row that has ended is returned unchanged."""
    if row.state != "streaming":
        return row
    row = replace(row, text=progress.text, dropped_turns=progress.dropped.turns if progress.dropped else 0)
    match progress.end:
        case Finished(reason, stats, tokens):
            state: State = "stopped" if reason == "stopped" else "done"
            return replace(row, state=state, finish_reason=reason, stats=stats, tokens=tokens or None)
        case Failed() as error:
            return replace(row, state="failed", error=error)
        case _:
            return row


def _nothing() -> None:
    """The `stop` of an answer that has ended."""


def rebuilt(row: Message) -> Answer:
    """The answer of a row that has ended: its text as one event, then the end."""
    answer = Answer(row, stop=_nothing)
    if row.text:
        answer.log.add(Text(row.text))
    answer.end(_end_of(row))
    return answer


def _end_of(row: Message) -> Finished | Failed:
    match row.state:
        case "done" | "stopped":
            reason = row.finish_reason or ("stop" if row.state == "done" else "stopped")
            return Finished(reason, row.stats or Stats(), row.tokens or ())
        case "interrupted":
            return Failed("answer.interrupted", {})
        case _:
            return row.error or Failed("answer.no_end", {})


class _Writer:
    """The two threads of a running answer. One receives the engine's events, so that readers never wait for the disk;
    the other saves the text to the history, even while the engine yields nothing."""

    def __init__(self, history: History, answer: Answer, handle: Handle, leave: Callable[[_Writer], None]) -> None:
        self.answer = answer
        self.saved = False  # True: nothing is left to save
        self._history = history
        self._handle = handle
        self._leave = leave
        self._end: End = Failed("answer.no_end", {})  # kept if a bug ends the first thread
        self._drained = threading.Event()

    def start(self) -> None:
        # Daemon threads: a process that ends without App.close() must not hang. Its answer becomes "interrupted".
        for work in (self._take, self._keep):
            threading.Thread(target=work, name=f"answer-{work.__name__}", daemon=True).start()

    def _take(self) -> None:
        try:
            self._end = drain(self._handle, self.answer.log.add)
        finally:
            self._drained.set()

    def _keep(self) -> None:
        try:
            self._flush_until_drained()
            self.save()
        finally:
            self._leave(self)  # before the last event: its readers may ask the next question
            self.answer.end(self._end)

    def _flush_until_drained(self) -> None:
        flushed, at = "", time.monotonic()
        while not self._drained.wait(settings.FLUSH_S * 0.8):  # the rest of FLUSH_S is for the write
            text = self.answer.progress.text
            if text == flushed and time.monotonic() - at < settings.HEARTBEAT_S:
                continue
            try:
                self._history.flush_answer(self.answer.message, text)
            except HistoryError as exc:
                if exc.code == "history.no_message":  # the conversation was deleted permanently
                    self._handle.stop()
                continue  # the disk may have space by the end; if not, save() reports it
            flushed, at = text, time.monotonic()

    def save(self) -> None:
        """Write the whole answer to the history. If that fails, the answer ends with that error."""
        row = _with_progress(self.answer.snapshot(), self.answer.progress.plus(self._end))
        try:
            self._history.finish_answer(
                row.uuid,
                text=row.text,
                state=row.state,
                finish_reason=row.finish_reason,
                stats=row.stats,
                tokens=row.tokens,
                dropped_turns=row.dropped_turns,
                error=row.error,
            )
            self.saved = True
        except HistoryError as exc:
            self.saved = exc.code == "history.no_message"  # there is no row left to write to
            self._end = Failed(exc.code, exc.values)


class Answers:
    """The answers of one App: the running ones, and the most recent ended ones with their numbered events.

    All methods may be called from any thread."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._changed = threading.Condition()
        self._busy: dict[str, object] = {}  # conversation -> its running answer, or a claim made by `turn`
        self._known: OrderedDict[str, Answer] = OrderedDict()  # message -> answer, oldest first
        self._unsaved: list[_Writer] = []
        self._closing = threading.Event()

    @contextmanager
    def turn(self, conversation: str) -> Iterator[None]:
        """Claim `conversation`: no other answer can start in it inside the block.

        Raises ChatError "chat.busy" if an answer is running or about to start, "chat.closing" after close()."""
        claim = object()
        with self._changed:
            if self._closing.is_set():
                raise ChatError("chat.closing")
            if conversation in self._busy:
                raise ChatError("chat.busy")
            self._busy[conversation] = claim
        try:
            self.save_again()
            yield
        finally:
            with self._changed:
                if self._busy.get(conversation) is claim:
                    del self._busy[conversation]
                    self._changed.notify_all()

    def start(self, row: Message, handle: Handle) -> Answer:
        """Run the answer of `row` on `handle`. Call it inside `turn`."""
        answer = Answer(row, handle.stop)
        writer = _Writer(self._history, answer, handle, self._leave)
        with self._changed:
            self._busy[row.conversation] = answer
            self._remember(answer)
            self._changed.notify_all()
        writer.start()
        return answer

    def _remember(self, answer: Answer) -> None:
        self._known[answer.message] = answer
        ended = [message for message, known in self._known.items() if known.progress.end]
        for message in ended[: max(0, len(ended) - settings.ANSWERS_KEPT)]:
            del self._known[message]

    def _leave(self, writer: _Writer) -> None:
        with self._changed:
            del self._busy[writer.answer.conversation]
            if not writer.saved:
                self._unsaved.append(writer)
            self._changed.notify_all()

    def running(self, conversation: str) -> Answer | None:
        """The answer that is running in `conversation` in this process, if any."""
        with self._changed:
            answer = self._busy.get(conversation)
        return answer if isinstance(answer, Answer) else None

    @property
    def busy(self) -> bool:
        """Whether an answer is running in this process, or about to start."""
        with self._changed:
            return bool(self._busy)

    def find(self, message: str) -> Answer | None:
        """The answer with this message uuid, if this process still has it in memory."""
        with self._changed:
            unsaved = (w.answer for w in self._unsaved if w.answer.message == message)
            return self._known.get(message) or next(unsaved, None)

    def follow(self, row: Message, owner: str) -> Answer:
        """An answer that another process is writing: its text is read from the history as it is saved."""

        def elsewhere() -> None:
            raise ChatError("answer.elsewhere")

        answer = Answer(row, elsewhere)
        with self._changed:
            self._remember(answer)
        threading.Thread(target=self._follow, args=(answer, owner), name="answer-follow", daemon=True).start()
        return answer

    def _follow(self, answer: Answer, owner: str) -> None:
        end: End = Failed("answer.no_end", {})
        seen = 0
        try:
            while True:
                self._history.mark_interrupted()  # its writer may have died
                row = self._history.message(answer.message, owner)
                if len(row.text) > seen:
                    answer.log.add(Text(row.text[seen:]))
                    seen = len(row.text)
                if row.state != "streaming":
                    end = _end_of(row)
                    return
                if self._closing.wait(settings.FLUSH_S):  # polling: another process sends no signal
                    return
        except HistoryError as exc:
            end = Failed(exc.code, exc.values)
        finally:
            answer.end(end)

    def save_again(self) -> None:
        """Retry saving answers that could not be saved because of a full disk or a locked file."""
        with self._changed:
            waiting, self._unsaved = self._unsaved, []
        for writer in waiting:
            writer.save()
        with self._changed:
            self._unsaved += [w for w in waiting if not w.saved]

    def close(self) -> None:
        """Stop every answer, wait until each is saved as stopped, and accept no more."""
        self._closing.set()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: all(isinstance(a, Answer) for a in self._busy.values()))
                running = [a for a in self._busy.values() if isinstance(a, Answer)]
            if not running:
                break
            for answer in running:
                answer.stop()
            for answer in running:
                answer.wait()
        self.save_again()
