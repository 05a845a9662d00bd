"""The command `impchat`: words of a command line -> what they ask for.

In: argv. Out: an exit code: 0 done, 2 an error told in one line on stderr, 130 stopped by Ctrl-C.
This file does not know how anything is done; commands of other packages (web, mobile) are found by entry point.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from impchat import cli_history, doctor, paths, settings, terminal, texts
from impchat.app import App
from impchat.engines import check_sampling
from impchat.errors import ImpChatError, SettingsError
from impchat.history import History
from impchat.messages import Sampling
from impchat.terminal import EXIT_ERROR, EXIT_STOPPED, Screen

EXIT_BAD = 1  # doctor found what prevents running
EXIT_PIPE = 141  # what shells report of a command whose reader left

_ELSEWHERE = ("web", "mobile")  # commands that live outside the core; each needs the extra of its name
_FLAGS = {f.replace("_", "-"): f for f in settings.SAMPLING_RANGES}


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code. Never raises ImpChatError."""
    argv = sys.argv[1:] if argv is None else argv
    language = choose_language(argv, os.environ)
    screen = Screen(language)
    try:
        code = _run(argv, screen)
        sys.stdout.flush()  # a reader that left is noticed here, not while Python ends
        return code
    except ImpChatError as exc:
        screen.error(exc)
        return EXIT_ERROR
    except KeyboardInterrupt:
        return EXIT_STOPPED
    except BrokenPipeError:
        # Python flushes stdout once more when it ends, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE


def choose_language(argv: Sequence[str], environ: Mapping[str, str]) -> str:
    """ "en" or "zh": what `--language` says, else the locale of the environment."""
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        chosen = word.partition("=")[2] if word.startswith("--language=") else following
        if word.startswith("--language") and chosen in texts.LANGUAGES:
            return chosen
    locale = environ.get("LC_ALL") or environ.get("LC_MESSAGES") or environ.get("LANG") or ""
    return "zh" if locale.lower().startswith("zh") else "en"


def _run(argv: list[str], screen: Screen) -> int:
    if (at := _command_at(argv)) is not None and argv[at] in _ELSEWHERE:
        return _elsewhere(argv[at], argv[:at] + argv[at + 1 :])
    parser = build_parser(screen.language)
    try:
        args, unknown = parser.parse_known_args(argv)
    except SystemExit as exc:  # --help and --version have printed what they say
        return int(exc.code or 0)
    if unknown:
        raise SettingsError("option.unknown", option=unknown[0])
    if not args.command:
        parser.print_help()
        return 0
    data = Path(args.data).expanduser() if "data" in args else paths.data_dir()
    model = args.model if "model" in args else None
    match args.command:
        case "ask":
            return _ask(data, model, screen, args)
        case "chat":
            return _chat(data, model, screen, args)
        case "history":
            with closing(History(paths.history_file(paths.ensure_data_dir(data)))) as history:
                return cli_history.run(history, screen, args)
        case "convert":
            return _convert(screen, args)
        case _:
            return _doctor(data, model, screen)


def _ask(data: Path, model: str | None, screen: Screen, args: argparse.Namespace) -> int:
    *files, question = args.words
    if Path(question).is_file():
        raise SettingsError("ask.no_question", path=question)
    pictures = [terminal.read_file(f) for f in files]
    with App.open(data, model) as app:
        return terminal.ask(app, screen, pictures, question, _sampling(app, args))


def _chat(data: Path, model: str | None, screen: Screen, args: argparse.Namespace) -> int:
    with App.open(data, model) as app:
        conversation = cli_history.find(app.history, args.conversation).uuid if args.conversation else None
        return terminal.Talk(app, screen, conversation, _sampling(app, args)).run(args.image)


def _sampling(app: App, args: argparse.Namespace) -> Sampling | None:
    """The model's own with what was given on the command line; None where nothing was."""
    given = {name: getattr(args, name) for name in settings.SAMPLING_RANGES if getattr(args, name) is not None}
    if not given:
        return None
    sampling = replace(app.sampling, **given)
    check_sampling(sampling)
    return sampling


def _convert(screen: Screen, args: argparse.Namespace) -> int:
    try:
        from impchat.models.convert import convert

        screen.note("convert.running")
        bundle = convert(
            Path(args.source).expanduser(), Path(args.target).expanduser(), language=args.type, vision=args.vision
        )
    except ModuleNotFoundError as exc:
        raise _missing("impchat convert", exc, "convert") from exc
    screen.note("convert.done", path=bundle.path, size=f"{bundle.size_bytes / 1e6:.1f}")
    return 0


def _doctor(data: Path, model: str | None, screen: Screen) -> int:
    code = 0
    for finding in doctor.examine(data, model):
        mark = {"ok": "✓", "warn": "!", "bad": "✗"}[finding.level]
        print(f"{mark} {terminal.printable(finding.sentence(screen.language))}", flush=True)
        code = EXIT_BAD if finding.level == "bad" else code
    return code


def _elsewhere(command: str, argv: list[str]) -> int:
    """Run a command of another package: a function of the entry-point group "impchat.commands", argv -> exit code."""
    try:
        for entry in metadata.entry_points(group="impchat.commands", name=command):
            run: Callable[[list[str]], int] = entry.load()
            return run(argv)
    except ModuleNotFoundError as exc:
        raise _missing(f"impchat {command}", exc, command) from exc
    raise SettingsError("extra.missing", command=f"impchat {command}", package=f"impchat_{command}", extra=command)


def _missing(command: str, error: ModuleNotFoundError, extra: str) -> SettingsError:
    """The error that names the extra to install. Raises `error` where a module of the core is missing: our mistake."""
    package = (error.name or "").partition(".")[0]
    if package == "impchat":
        raise error
    return SettingsError("extra.missing", command=command, package=package, extra=extra)


# The words of the command line


class _Parser(argparse.ArgumentParser):
    """Tells a mistake by SettingsError; speaks the language of `say`."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError("option.wrong", problem=message, command=self.prog)


def build_parser(language: str) -> argparse.ArgumentParser:
    """The parser of all commands of the core. Mistakes on the command line raise SettingsError."""

    def say(key: str) -> str:
        return texts.say(f"help.{key}", language, model=settings.DEMO_MODEL)

    def option(parser: argparse.ArgumentParser, *names: str, help: str, **how: Any) -> None:
        parser.add_argument(*names, help=say(help), **how)

    # SUPPRESS: given before the command or behind it, neither hides the other.
    common = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    option(common, "--data", metavar="DIR", help="data")
    option(common, "--model", metavar="ID|DIR", help="model")
    option(common, "--language", metavar="en|zh", help="language", type=_language)
    sampling = _Parser(add_help=False)
    for flag, name in _FLAGS.items():
        option(sampling, f"--{flag}", metavar="N", help=f"sampling.{name}", type=_number(flag))

    parser = _Parser(prog="impchat", description=say("impchat"), parents=[common], allow_abbrev=False, add_help=False)
    option(parser, "-h", "--help", action="help", help="help")
    option(parser, "--version", action="version", version=f"ImpChat {_version()}", help="version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    def command(name: str, *parents: _Parser, of: Any = commands, key: str = "") -> argparse.ArgumentParser:
        text = say(f"command.{key or name}")
        made: argparse.ArgumentParser = of.add_parser(
            name, help=text, description=text, parents=parents, allow_abbrev=False, add_help=False
        )
        option(made, "-h", "--help", action="help", help="help")
        return made

    ask = command("ask", common, sampling)
    option(ask, "words", nargs="+", metavar="IMAGE... QUESTION", help="ask.words")
    chat = command("chat", common, sampling)
    option(chat, "--image", action="append", default=[], metavar="FILE", help="chat.image")
    option(chat, "--conversation", metavar="UUID", help="chat.conversation")
    _history_commands(command("history", common), command, option, common)
    convert = command("convert")  # its --language is a number type, so the common options would be misread
    option(convert, "source", metavar="CHECKPOINT_DIR", help="convert.source")
    option(convert, "target", metavar="OUT_DIR", help="convert.target")
    words, eyes = settings.LANGUAGE_TYPE, settings.VISION_TYPE
    option(convert, "--language", dest="type", default=words, metavar="f16|q8_0|q4", help="convert.language")
    option(convert, "--vision", default=eyes, metavar="fp32|int8", help="convert.vision")
    command("doctor", common)
    for name in _ELSEWHERE:
        command(name)
    return parser


def _history_commands(history: argparse.ArgumentParser, command: Any, option: Any, common: _Parser) -> None:
    actions = history.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=_Parser)

    def action(name: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = command(name, common, of=actions, key=f"history.{name}")
        return made

    listing = action("list")
    option(listing, "--folder", metavar="NAME", help="history.folder")
    option(listing, "--tag", metavar="NAME", help="history.tag")
    option(listing, "--deleted", action="store_true", help="history.deleted")
    option(listing, "--count", metavar="N", type=_count, default=settings.LIST_COUNT, help="history.count")
    option(action("search"), "words", nargs="+", metavar="WORD", help="history.words")
    option(action("import"), "file", metavar="FILE", help="history.file")
    for name in ("show", "export", "delete", "restore"):
        made = action(name)
        option(made, "conversation", metavar="UUID", help="history.conversation")
        if name == "export":
            option(made, "--markdown", action="store_true", help="history.markdown")
            option(made, "-o", "--output", metavar="FILE", help="history.output")
        if name == "delete":
            option(made, "--yes", action="store_true", help="history.yes")


def _command_at(argv: list[str]) -> int | None:
    """Where the command stands, behind common options and their values."""
    at = 0
    while at < len(argv) and argv[at].startswith("-"):
        at += 2 if argv[at] in ("--data", "--model", "--language") else 1
    return at if at < len(argv) else None


def _number(flag: str) -> Callable[[str], float]:
    kind = int if isinstance(settings.SAMPLING_RANGES[_FLAGS[flag]][1], int) else float

    def read(value: str) -> float:
        try:
            return kind(value)
        except ValueError as exc:
            raise SettingsError("option.not_a_number", option=f"--{flag}", value=value) from exc

    return read


def _count(value: str) -> int:
    if not value.isdecimal() or not int(value):
        raise SettingsError("option.not_a_number", option="--count", value=value)
    return int(value)


def _language(value: str) -> str:
    if value not in texts.LANGUAGES:
        raise SettingsError("option.choice", option="--language", value=value, allowed=", ".join(texts.LANGUAGES))
    return value


def _version() -> str:
    try:
        return metadata.version("impchat")
    except metadata.PackageNotFoundError:  # run from a checkout that was never installed
        return "0"


if __name__ == "__main__":
    sys.exit(main())
