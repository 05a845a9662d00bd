"""The command `impchat`: runs the command that the arguments name.

In: argv. Out: an exit code: 0 success, 2 an error, reported in one line on stderr, 130 stopped by Ctrl-C.
This file does not know how commands work; those of other packages (web) are found by entry point.
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

from impchat import paths, settings, texts
from impchat.app import App
from impchat.cli import bench, doctor, history, models, serve, servers, table, terminal, tune
from impchat.cli.parser import ELSEWHERE, build_parser
from impchat.cli.terminal import EXIT_ERROR, EXIT_STOPPED, Terminal
from impchat.engines import check_sampling
from impchat.errors import ImpChatError, ModelError, SettingsError
from impchat.history.store import History
from impchat.messages import Sampling
from impchat.models import measured
from impchat.table import TableFile

EXIT_BAD = 1  # doctor found a problem that prevents running
EXIT_PIPE = 141  # reported by shells if the reader of a pipe has exited


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code. Never raises ImpChatError."""
    argv = sys.argv[1:] if argv is None else argv
    terminal.open_streams()
    language = choose_language(argv, os.environ)
    screen = Terminal(language)
    try:
        code = _run(argv, screen)
        sys.stdout.flush()  # detect a closed pipe here, not when Python exits
        return code
    except ImpChatError as exc:
        screen.error(exc)
        return EXIT_ERROR
    except KeyboardInterrupt:
        return EXIT_STOPPED
    except BrokenPipeError:
        terminal.give_up(sys.stdout)
        return EXIT_PIPE
    except OSError as exc:
        try:
            print(flush=True)
        except OSError:
            terminal.give_up(sys.stdout)
            screen.error(SettingsError("output.unwritable", detail=exc.strerror or exc))
            return EXIT_ERROR
        raise  # stdout is not what failed


def choose_language(argv: Sequence[str], environ: Mapping[str, str]) -> str:
    """The language, "en" or "zh": the value of `--language`, else from the locale in the environment."""
    for at, word in enumerate(argv):
        if word == "--language" or word.startswith("--language="):
            chosen = word.partition("=")[2] or "".join(argv[at + 1 : at + 2])
            if chosen in texts.LANGUAGES:  # after `convert`, --language is a number type
                return chosen
    locale = environ.get("LC_ALL") or environ.get("LC_MESSAGES") or environ.get("LANG") or ""
    return "zh" if locale.lower().startswith("zh") else "en"


def _run(argv: list[str], screen: Terminal) -> int:
    if (at := _command_at(argv)) is not None and argv[at] in ELSEWHERE:
        return _elsewhere(argv[at], argv[:at] + argv[at + 1 :])
    parser = build_parser(screen.language)
    args = parser.read(argv)
    if args is None:
        return 0
    if not args.command:
        parser.print_help()
        return 0
    if args.command == "convert":
        return _convert(screen, args)
    data = chosen_data(args)
    model = args.model if "model" in args else None
    match args.command:
        case "ask":
            return _ask(data, screen, args)
        case "chat":
            return _chat(data, screen, args)
        case "history":
            with closing(History(paths.history_file(paths.ensure_data_dir(data)))) as opened:
                return history.run(opened, screen, args)
        case "servers":
            return servers.run(data, screen, args)
        case "models":
            try:
                return models.run(data, model, screen, args)
            except ModuleNotFoundError as exc:
                raise _missing(f"impchat models {args.action}", exc, "convert") from exc
        case "serve" | "pair":
            try:
                return serve.run(data, model, screen, args)
            except ModuleNotFoundError as exc:
                extra = "cluster" if (exc.name or "").startswith("ray") else "serve"
                raise _missing(f"impchat {args.command}", exc, extra) from exc
        case "bench":
            return bench.run(data, model, screen, args)
        case _:
            return _doctor(data, model, screen, args)


def chosen_data(args: argparse.Namespace) -> Path:
    """The data folder: that of `--data`, else `paths.data_dir()`. Raises as that and as `paths.typed`, and
    SettingsError "option.no_value"."""
    if "data" not in args:
        return paths.data_dir()
    if not args.data:
        raise SettingsError("option.no_value", name="--data", command=texts.command())
    return paths.typed(args.data)


def _ask(data: Path, screen: Terminal, args: argparse.Namespace) -> int:
    *files, question = args.words
    if os.path.exists(question) and not os.path.isdir(question):  # pathlib raises if it is too long for a file name
        raise SettingsError("ask.no_question", path=question)
    if not question.strip():
        raise SettingsError("ask.empty")
    if args.table is not None:
        return _ask_table(data, screen, args, files, question)
    for path in files:
        if os.path.isdir(os.path.expanduser(path)):
            raise SettingsError("ask.folder", path=path)
    pictures = [terminal.read_picture(f) for f in files]
    with servers.open_app(data, args) as app:
        return terminal.ask(app, screen, pictures, question, _sampling(app, args))


def _ask_table(data: Path, screen: Terminal, args: argparse.Namespace, files: list[str], question: str) -> int:
    if not args.table:
        raise SettingsError("option.no_value", name="--table", command=f"{texts.command()} ask")
    found = table.find(files, args.recursive)
    if not found.pictures:
        raise SettingsError("table.no_pictures", skipped=found.skipped)
    with servers.open_app(data, args) as app:
        sampling = _sampling(app, args)
        terminal.introduce(app, screen)
        return table.ask(app, screen, TableFile(table.target(args.table), question), found, question, sampling)


def _chat(data: Path, screen: Terminal, args: argparse.Namespace) -> int:
    with servers.open_app(data, args) as app:
        conversation = history.find(app.history, args.conversation).uuid if args.conversation else None
        return terminal.ChatLoop(app, screen, conversation, _sampling(app, args)).run(args.image)


def _sampling(app: App, args: argparse.Namespace) -> Sampling | None:
    """The model's recommended values with those of the command line applied; None if there are none."""
    given = {name: getattr(args, name) for name in settings.SAMPLING_RANGES if getattr(args, name) is not None}
    if not given:
        return None
    sampling = replace(app.sampling, **given)
    check_sampling(sampling)
    return sampling


def _convert(screen: Terminal, args: argparse.Namespace) -> int:
    source, target = (Path(os.path.expanduser(p)) for p in (args.source, args.target))
    if not source.is_dir():
        raise ModelError("checkpoint.no_folder", path=args.source)
    if args.format not in settings.CONVERT_FORMATS:
        allowed = ", ".join(settings.CONVERT_FORMATS)
        raise SettingsError("convert.type", option="--format", value=args.format, allowed=allowed)

    def begun() -> None:
        screen.note("convert.running")

    try:
        from impchat.models.convert import convert, hf, mmproj

        if args.format == "mmproj":
            mmproj.export(source, target, begun=begun)
            screen.note("convert.mmproj_done", path=target, size=f"{target.stat().st_size / 1e6:.1f}")
            return 0
        if args.format == "hf":
            hf.export(source, target, begun=begun)
            screen.note("convert.hf_done", path=target)
            return 0
        bundle = convert(source, target, language=args.type, vision=args.vision, begun=begun)
    except ModuleNotFoundError as exc:
        raise _missing("impchat convert", exc, "convert") from exc
    done = "convert.done_unverified" if bundle.unverified else "convert.done"
    screen.note(done, path=bundle.path, size=f"{bundle.size_bytes / 1e6:.1f}")
    for key, values in measured.warnings(bundle):
        screen.note(key, **values)
    if bundle.unverified:
        screen.note("models.choose_unverified", model=bundle.path)
    return 0


def _doctor(data: Path, model: str | None, screen: Terminal, args: argparse.Namespace) -> int:
    code, server = 0, servers.chosen(data, args, os.environ)
    if args.tune and server:
        raise SettingsError("tune.server", server=server.name)
    if args.tune:
        return tune.run(data, model, screen)
    for finding in doctor.examine(data, model, server):
        mark = {"ok": "✓", "note": "-", "warn": "!", "bad": "✗"}[finding.level]
        print(f"{mark} {terminal.printable(finding.sentence(screen.language))}", flush=True)
        code = EXIT_BAD if finding.level == "bad" else code
    return code


def _elsewhere(command: str, argv: list[str]) -> int:
    """Run a command of another package: a function in the entry-point group "impchat.commands", argv -> exit code."""
    try:
        for entry in metadata.entry_points(group="impchat.commands", name=command):
            run: Callable[[list[str]], int] = entry.load()
            return run(argv)
    except ModuleNotFoundError as exc:
        raise _missing(f"impchat {command}", exc, command) from exc
    values = {"package": f"impchat_{command}", "install": texts.install(command)}
    raise SettingsError("extra.missing", command=f"impchat {command}", **values)


def _missing(command: str, error: ModuleNotFoundError, extra: str) -> SettingsError:
    """The error that names the extra to install. Raises `error` if a module of the core is missing: that is a bug."""
    package = (error.name or "").partition(".")[0]
    if package == "impchat":
        raise error
    return SettingsError("extra.missing", command=command, package=package, install=texts.install(extra))


def _command_at(argv: list[str]) -> int | None:
    """The index of the command in `argv`, after common options and their values."""
    at = 0
    while at < len(argv) and argv[at].startswith("-"):
        at += 2 if argv[at] in ("--data", "--model", "--language") else 1
    return at if at < len(argv) else None


if __name__ == "__main__":
    sys.exit(main())
