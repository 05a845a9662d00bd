"""`impchat ask` and `impchat chat`: the answer goes to stdout, everything else to stderr.

In: an App, questions and picture files. Out: printed text and exit codes.
This file does not know options, or how an answer is made or saved.
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
from impchat.errors import ChatError, ImageError, ImpChatError, SettingsError
from impchat.messages import Message, Progress, Sampling, Stats

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status
    from rich.table import Table

EXIT_ERROR = 2
EXIT_STOPPED = 130  # reported by shells for a command that Ctrl-C ended

# Control characters except line feed and tab: text of a model or of an imported conversation must not move the cursor,
# rename the window or worse.
_ORDERS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def printable(text: str) -> str:
    """`text` with control characters, which a terminal would interpret, replaced by U+FFFD."""
    return text.translate(_ORDERS)


def read_file(path: str, limit: int = -1) -> bytes:
    """The bytes of a file, at most the first `limit` if it is given. Raises SettingsError "file.unreadable"."""
    try:
        with Path(os.path.expanduser(path)).open("rb") as file:
            return file.read(limit)
    except (OSError, ValueError) as exc:  # ValueError: a null byte in the path
        raise SettingsError("file.unreadable", path=path, detail=getattr(exc, "strerror", None) or exc) from exc


def read_picture(path: str) -> bytes:
    """The bytes of a picture file, a pipe or a device, read no further than the largest picture.

    Raises SettingsError "file.unreadable", ImageError "image.too_large_bytes"."""
    data = read_file(path, settings.IMAGE_BYTES + 1)
    if len(data) > settings.IMAGE_BYTES:
        size = max(len(data), os.path.getsize(os.path.expanduser(path)))
        raise ImageError("image.too_large_bytes", megabytes=-(-size // 2**20), limit=settings.IMAGE_BYTES // 2**20)
    return data


def open_streams() -> None:
    """Make the standard streams usable, however this process was started.

    Characters that the terminal or pipe cannot encode are replaced. A closed stdin or stdout raises OSError when used;
    output to a closed stderr is discarded. Their file descriptors stay taken: C libraries write to 1 and 2, which must
    never be the history or another file opened later."""
    closed = {"stdin": ("r", os.O_WRONLY), "stdout": ("w", os.O_RDONLY), "stderr": ("w", os.O_WRONLY)}
    for name, (mode, useless) in closed.items():
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, useless), mode, encoding="utf-8"))
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def give_up(stream: TextIO) -> None:
    """Discard all further output to `stream`. Otherwise Python would try to flush it at exit and print an error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def announce(line: str) -> None:
    """Print information about a running server. Ignores a closed stdout, because the server runs anyway."""
    try:
        print(line, flush=True)
    except OSError:
        give_up(sys.stdout)


class Terminal:
    """Prints answers as they arrive, and notes and errors about them, in one language."""

    def __init__(self, language: str) -> None:
        self.language = language

    @cached_property
    def _err(self) -> Console:  # created when needed: the doctor runs even if rich is missing
        from rich.console import Console

        return Console(stderr=True, markup=False, highlight=False, soft_wrap=True)

    @cached_property
    def _status(self) -> Status:  # animated only on a terminal
        return self._err.status("")

    def text(self, key: str, **values: Any) -> str:
        return texts.say(key, self.language, **values)

    def note(self, key: str, **values: Any) -> None:
        """Print a line about the answer or the conversation."""
        self._tell(self.text(key, **values), "dim")

    def hint(self, key: str, **values: Any) -> None:
        """Print a line only if stderr is a terminal; scripts and files never get it."""
        if self._err.is_terminal:
            self.note(key, **values)

    def error(self, error: ImpChatError) -> None:
        self.failure(error.sentence(self.language))

    def failure(self, sentence: str) -> None:
        self._tell(sentence, "red")

    def _tell(self, sentence: str, style: str) -> None:
        try:
            with self._err.capture() as told:  # rich itself exits the process if the reader of stderr has gone
                self._err.print(printable(sentence), style=style)
            sys.stderr.write(told.get())
            sys.stderr.flush()
        except OSError:  # the answer matters more than notes about it
            give_up(sys.stderr)

    def table(self, table: Table, width: int | None = None) -> None:
        """Print a table; `width` in characters, None: the terminal's."""
        from rich.console import Console

        console = Console(markup=False, highlight=False, width=width)
        with console.capture() as drawn:  # see `_tell`
            console.print(table)
        print(drawn.get(), end="")

    def confirm(self, key: str, **values: Any) -> bool:
        """Ask a yes/no question at the terminal. End of input (Ctrl-D) means no."""
        try:
            return input(self.text(key, **values)).strip().lower() in ("y", "yes", "是")
        except EOFError:
            print()
            return False

    def answer(self, answer: Answer) -> Message:
        """Print `answer` as it arrives. Ctrl-C stops it and keeps its text; a second one raises KeyboardInterrupt."""
        shown, stopping = Progress(), False
        while True:
            try:
                for _ in answer.events():
                    progress = answer.progress
                    self._show(shown, progress)
                    shown = progress
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

    def _show(self, shown: Progress, now: Progress) -> None:
        """Print what `now` adds to `shown`."""
        if now.dropped and now.dropped != shown.dropped:
            self._status.stop()
            self.note("answer.dropped", turns=now.dropped.turns)
        if len(now.text) > len(shown.text):
            self._status.stop()
            print(printable(now.text[len(shown.text) :]), end="", flush=True)
        elif now.queued:
            self._show_status("chat.queued", place=now.queued.place)
        elif now.is_encoding:
            self._show_status("terminal.encoding")
        elif now.reading and now.reading != shown.reading:
            self._show_status("terminal.reading", done=now.reading.done, total=now.reading.total)

    def _show_status(self, key: str, **values: Any) -> None:
        if self._err.is_terminal:
            self._status.update(self.text(key, **values))
            self._status.start()

    def progress(self, key: str | None, **values: Any) -> None:
        """Show a line that replaces the last one, only on a terminal; None removes it. Remove it before printing."""
        if key is None:
            self._status.stop()
        else:
            self._show_status(key, **values)

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
    """The values of the text "answer.receipt": counts in tokens, times in seconds, speeds in tokens per second."""
    return {
        "prompt": stats.prompt_tokens,
        "cached": stats.cached_tokens,
        "generated": stats.generated_tokens,
        "first": f"{stats.first_token_s:.2f}",
        "speed": f"{stats.generated_tokens_per_s:.1f}",
    }


def exit_code(message: Message) -> int:
    return {"done": 0, "stopped": EXIT_STOPPED}.get(message.state, EXIT_ERROR)


def introduce(app: App, screen: Terminal) -> None:
    """Print which server answers, that the demo does (the first time, on a terminal), that a model is unverified."""
    if app.server:
        screen.note("remote.label", server=app.server)
    if app.demo and not app.history.conversations(settings.OWNER, archived=None, limit=1):
        screen.hint("demo.label")
    _warn_unverified(app, screen)


def ask(app: App, screen: Terminal, pictures: list[bytes], question: str, sampling: Sampling | None) -> int:
    """Answer one question about the pictures in a new conversation, print the answer, and return the exit code."""
    introduce(app, screen)
    chat = app.chat()
    for data in pictures:
        chat.attach(data)
    return exit_code(screen.answer(chat.send(question, sampling=sampling)))


def _warn_unverified(app: App, screen: Terminal) -> None:
    if app.unverified:
        screen.note("unverified.server" if app.server else "unverified.label", model=app.model)


class ChatLoop:
    """An interactive conversation: each line is a question, or a command if it begins with a slash."""

    def __init__(self, app: App, screen: Terminal, conversation: str | None, sampling: Sampling | None) -> None:
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
        """Run until /quit, Ctrl-C or Ctrl-D at the prompt, or the end of piped input. `pictures`: files for the first
        question. Returns the exit code: that of an error if something piped in failed."""
        interactive = sys.stdin.isatty()
        self._greet(interactive)
        for path in pictures:
            self._attach(path)
        for line in _lines(self._screen.text("terminal.prompt"), interactive):
            line = line.removeprefix("\ufeff").strip()  # Windows editors write a byte order mark
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
            self._screen.note("remote.label", server=self._app.server)
        if self._app.demo:
            self._screen.hint("demo.label")
        _warn_unverified(self._app, self._screen)
        if interactive:
            self._screen.note("terminal.hello")
            for message in self._chat.branch():
                speaker = self._screen.text(f"archive.{message.role}", model=message.model)
                print(f"{speaker}: {printable(message.text)}", flush=True)

    def _take(self, line: str, interactive: bool) -> None:
        word, _, rest = line.partition(" ")
        if word in self._commands:
            self._commands[word](rest.strip())
        elif word.startswith("/") and "/" not in word[1:]:  # a further slash means a question that begins with a path
            raise ChatError("chat.unknown_command", command=word)
        elif line or interactive:  # a picture alone is a question too; blank lines in a file are not
            self._answer(self._chat.send(line, sampling=self._sampling))

    def _answer(self, answer: Answer) -> None:
        self._failed |= self._screen.answer(answer).state == "failed"

    def _image(self, words: str) -> None:
        self._attach(_dropped(words))

    def _attach(self, path: str) -> None:
        image = self._chat.attach(read_picture(path)).image
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
    """The path that was typed, or that a terminal inserted for a dropped file, without quotes or escapes."""
    with suppress(ValueError):
        if os.name != "nt" and len(parts := shlex.split(words)) == 1:
            return parts[0]
    return words.strip("'\"")


def _lines(prompt: str, interactive: bool) -> Iterator[str]:
    """Lines of stdin until its end or Ctrl-C at the prompt. Raises SettingsError "input.unreadable"."""
    if interactive:
        with suppress(ImportError):
            import readline  # noqa: F401  # gives input() a history and arrow keys
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
