"""Asking and talking in a terminal: the answer goes to stdout, everything about it to stderr.

In: an App, questions and picture files. Out: printed text and exit codes.
This file does not know options, how an answer is made or kept.
"""

from __future__ import annotations

import io
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from impchat import settings, texts
from impchat.answer import Answer
from impchat.app import App
from impchat.errors import ChatError, ImpChatError, SettingsError
from impchat.messages import Dropped, Encoding, Event, Message, Reading, Sampling, Stats, Text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status
    from rich.table import Table

EXIT_ERROR = 2
EXIT_STOPPED = 130  # what shells report of a command that Ctrl-C ended

# What a terminal takes as orders, but for line feed and tab: words of a model or of an imported conversation must
# not move the cursor, rename the window or worse.
_ORDERS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def printable(text: str) -> str:
    """`text` without anything that a terminal would obey."""
    return text.translate(_ORDERS)


def read_file(path: str) -> bytes:
    """The bytes of a file. Raises SettingsError "file.unreadable"."""
    try:
        return Path(os.path.expanduser(path)).read_bytes()
    except (OSError, ValueError) as exc:  # ValueError: a null byte
        raise SettingsError("file.unreadable", path=path, detail=getattr(exc, "strerror", None) or exc) from exc


def open_streams() -> None:
    """Make something of the standard streams, whatever this process was started with.

    No character that a terminal or a pipe cannot carry ends a command. Use of a closed stdin or stdout raises OSError,
    what goes to a closed stderr is lost; their numbers must not go to files that are opened later, the history among
    them, because C libraries write to 1 and 2."""
    closed = {"stdin": ("r", os.O_WRONLY), "stdout": ("w", os.O_RDONLY), "stderr": ("w", os.O_WRONLY)}
    for name, (mode, useless) in closed.items():
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, useless), mode, encoding="utf-8"))
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def give_up(stream: TextIO) -> None:
    """Let all that `stream` still gets go nowhere. Python would try to write it when it ends, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def announce(line: str) -> None:
    """Print what is good to know of a server that runs. It runs all the same where nobody can be told."""
    try:
        print(line, flush=True)
    except OSError:
        give_up(sys.stdout)


class Screen:
    """Prints answers as they come, and what is to be said about them, in one language."""

    def __init__(self, language: str) -> None:
        self.language = language

    @cached_property
    def _err(self) -> Console:  # made when there is something to say: the doctor runs where rich is missing
        from rich.console import Console

        return Console(stderr=True, markup=False, highlight=False, soft_wrap=True)

    @cached_property
    def _status(self) -> Status:  # moves on a terminal only
        return self._err.status("")

    def text(self, key: str, **values: Any) -> str:
        return texts.say(key, self.language, **values)

    def note(self, key: str, **values: Any) -> None:
        """A line about the answer or the conversation."""
        self._tell(self.text(key, **values), "dim")

    def hint(self, key: str, **values: Any) -> None:
        """A line for a person who sits at the terminal; scripts and files never get it."""
        if self._err.is_terminal:
            self.note(key, **values)

    def error(self, error: ImpChatError) -> None:
        self.failure(error.sentence(self.language))

    def failure(self, sentence: str) -> None:
        self._tell(sentence, "red")

    def _tell(self, sentence: str, style: str) -> None:
        try:
            with self._err.capture() as told:  # rich itself ends the process where stderr's reader has gone
                self._err.print(printable(sentence), style=style)
            sys.stderr.write(told.get())
            sys.stderr.flush()
        except OSError:  # the answer is worth more than what is said about it
            give_up(sys.stderr)

    def table(self, table: Table, width: int | None = None) -> None:
        """Print a table; `width` in characters, None: the terminal's."""
        from rich.console import Console

        console = Console(markup=False, highlight=False, width=width)
        with console.capture() as drawn:  # see `_tell`
            console.print(table)
        print(drawn.get(), end="")

    def confirm(self, key: str, **values: Any) -> bool:
        """Ask the person at the terminal. The end of the input, Ctrl-D, is a no."""
        try:
            return input(self.text(key, **values)).strip().lower() in ("y", "yes", "是")
        except EOFError:
            print()
            return False

    def answer(self, answer: Answer) -> Message:
        """Print `answer` as it comes. Ctrl-C stops it and keeps what there is; a second Ctrl-C goes through."""
        seen, stopping = 0, False
        while True:
            try:
                for number, event in answer.events(after=seen):
                    seen = number
                    self._show(event)
                break
            except KeyboardInterrupt:
                if stopping:
                    raise
                stopping = True
                answer.stop()
            finally:
                self._status.stop()
        message = answer.wait()
        if message.text:
            print(flush=True)
        self._close(message)
        return message

    def _show(self, event: Event) -> None:
        match event:
            case Encoding():
                self._progress("terminal.encoding")
            case Reading(done, total):
                self._progress("terminal.reading", done=done, total=total)
            case Dropped(turns):
                self._status.stop()
                self.note("answer.dropped", turns=turns)
            case Text(text):
                self._status.stop()
                print(printable(text), end="", flush=True)

    def _progress(self, key: str, **values: Any) -> None:
        if self._err.is_terminal:
            self._status.update(self.text(key, **values))
            self._status.start()

    def _close(self, message: Message) -> None:
        if message.state == "failed" and message.error:
            self.failure(texts.say(f"error.{message.error.code}", self.language, **message.error.values))
        elif message.state == "stopped":
            self.note("answer.stopped")
        elif message.finish_reason == "length":
            self.note("answer.length")
        if message.stats and message.stats.generated_tokens:
            self.note("answer.receipt", **receipt(message.stats))


def receipt(stats: Stats) -> dict[str, str | int]:
    """What "answer.receipt" names: counts in tokens, times in seconds, speeds in tokens per second."""
    return {
        "prompt": stats.prompt_tokens,
        "cached": stats.cached_tokens,
        "generated": stats.generated_tokens,
        "first": f"{stats.first_token_s:.2f}",
        "speed": f"{stats.generated_tokens_per_s:.1f}",
    }


def exit_code(message: Message) -> int:
    return {"done": 0, "stopped": EXIT_STOPPED}.get(message.state, EXIT_ERROR)


def ask(app: App, screen: Screen, pictures: list[bytes], question: str, sampling: Sampling | None) -> int:
    """Print the answer to one question about the pictures, in a conversation of its own; the exit code."""
    if app.server:
        screen.hint("remote.label", server=app.server)
    if app.demo and not app.history.conversations(settings.OWNER, limit=1):  # at the first time only
        screen.hint("demo.label")
    _warn_unverified(app, screen)
    chat = app.chat()
    for data in pictures:
        chat.attach(data)
    return exit_code(screen.answer(chat.send(question, sampling=sampling)))


def _warn_unverified(app: App, screen: Screen) -> None:
    if app.bundle and app.bundle.unverified:
        screen.note("unverified.label", model=app.model)


class Talk:
    """A conversation at the terminal: a line is a question, or a command where it begins with a slash."""

    def __init__(self, app: App, screen: Screen, conversation: str | None, sampling: Sampling | None) -> None:
        self._app = app
        self._screen = screen
        self._chat = app.chat(conversation)
        self._sampling = sampling
        self._failed = False
        self._commands: dict[str, Callable[[str], None]] = {
            "/image": self._image,
            "/new": self._new,
            "/retry": self._retry,
            "/help": lambda _: screen.note("terminal.help"),
        }

    def run(self, pictures: list[str]) -> int:
        """Talk until /quit, Ctrl-C or Ctrl-D at the prompt, or the end of what is piped in. `pictures` are files for
        the first question. The exit code is an error's where something piped in failed."""
        interactive = sys.stdin.isatty()
        self._greet(interactive)
        for path in pictures:
            self._attach(path)
        for line in _lines(self._screen.text("terminal.prompt"), interactive):
            line = line.removeprefix("\ufeff").strip()  # editors of Windows begin a file with that
            if line in ("/quit", "/exit"):
                break
            try:
                self._take(line, interactive)
            except ImpChatError as exc:
                self._screen.error(exc)
                self._failed = True
        if self._chat.conversation:
            self._screen.note("terminal.go_on", conversation=self._chat.conversation[:8])
        return EXIT_ERROR if self._failed and not interactive else 0

    def _greet(self, interactive: bool) -> None:
        if self._app.server:
            self._screen.hint("remote.label", server=self._app.server)
        if self._app.demo:
            self._screen.hint("demo.label")
        _warn_unverified(self._app, self._screen)
        if interactive:
            self._screen.note("terminal.hello")
            for message in self._chat.branch():
                speaker = self._screen.text(f"portability.{message.role}", model=message.model)
                print(f"{speaker}: {printable(message.text)}", flush=True)

    def _take(self, line: str, interactive: bool) -> None:
        word, _, rest = line.partition(" ")
        if word in self._commands:
            self._commands[word](rest.strip())
        elif word.startswith("/") and "/" not in word[1:]:  # more slashes: a question that begins with a path
            raise ChatError("chat.unknown_command", command=word)
        elif line or interactive:  # a picture alone is a question too; blank lines of a file are none
            self._answer(self._chat.send(line, sampling=self._sampling))

    def _answer(self, answer: Answer) -> None:
        self._failed |= self._screen.answer(answer).state == "failed"

    def _image(self, words: str) -> None:
        self._attach(_dropped(words))

    def _attach(self, path: str) -> None:
        image = self._chat.attach(read_file(path)).image
        self._screen.note("terminal.attached", width=image.width, height=image.height)

    def _new(self, _: str) -> None:
        self._chat = self._app.chat()
        self._screen.note("terminal.new")

    def _retry(self, _: str) -> None:
        branch = self._chat.branch()
        if not branch:
            raise ChatError("chat.nothing_to_retry")
        self._answer(self._chat.regenerate(branch[-1].uuid, self._sampling))


def _dropped(words: str) -> str:
    """The path that was typed, or that a terminal wrote when a file was dropped on it: quoted or escaped."""
    with suppress(ValueError):
        if os.name != "nt" and len(parts := shlex.split(words)) == 1:
            return parts[0]
    return words.strip("'\"")


def _lines(prompt: str, interactive: bool) -> Iterator[str]:
    """Lines of stdin to its end or Ctrl-C at the prompt. Raises SettingsError "input.unreadable"."""
    if interactive:
        with suppress(ImportError):
            import readline  # noqa: F401  # gives input() its history and its arrow keys
    while True:
        try:
            line = input(prompt) if interactive else sys.stdin.readline()
        except (EOFError, KeyboardInterrupt):
            if not interactive:
                raise
            break
        except OSError as exc:
            raise SettingsError("input.unreadable", detail=exc.strerror or exc) from exc
        if not interactive and not line:
            return
        yield line
    print(file=sys.stderr)
