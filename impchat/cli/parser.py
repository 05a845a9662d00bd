"""The command-line parser: commands, options, and their help in the user's language.

In: argv. Out: parsed arguments, or the SettingsError that explains what is wrong.
This file does not know what a command does.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Collection
from functools import partial
from importlib import metadata
from typing import Any, NoReturn
from urllib.parse import urlsplit

from impchat import settings, texts
from impchat.errors import SettingsError

ELSEWHERE = ("web", "mobile")  # commands of other packages; each needs the extra of the same name

_MISTAKES = (  # argparse's message -> our error, which has a sentence in each language
    (r"the following arguments are required: (.+)", "option.missing"),
    (r"argument \[?(?:COMMAND|ACTION|SUBCOMMAND)\]?: invalid choice: '(.*)' \(choose", "option.no_command"),
    (r"argument (.+): expected .*argument", "option.no_value"),
)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises SettingsError on errors and prints in one language."""

    def __init__(self, language: str, **how: Any) -> None:
        super().__init__(allow_abbrev=False, add_help=False, **how)
        self._language = language

    def option(self, *names: str, help: str, shown: str | None = None, **how: Any) -> None:
        """Add an option or argument with the help text of the key `help`, followed by its default. `shown`: the text
        for the default, if it is not the value itself."""
        text = self.say(help)
        if shown is None and type(how.get("default")) in (int, str):
            shown = str(how["default"])
        if shown is not None:
            text += texts.say("help.default", self._language, value=shown)
        self.add_argument(*names, help=text, **how)

    def say(self, key: str) -> str:
        return texts.say(f"help.{key}", self._language, model=settings.DEMO_MODEL)

    def read(self, argv: list[str]) -> argparse.Namespace | None:
        """Parse all of `argv`; None if --help or --version was given and has been printed."""
        try:
            values, unknown = self.parse_known_args(argv)
        except SystemExit:
            return None
        if "words" in values and not any(word.startswith("-") for word in unknown):
            # argparse takes these from one place only; people put options in between.
            values.words += unknown
        elif unknown:
            raise SettingsError("option.unknown", option=unknown[0])
        return values

    def error(self, message: str) -> NoReturn:
        command = self.prog.replace("impchat", texts.command(), 1)
        for pattern, code in _MISTAKES:
            if found := re.match(pattern, message):
                raise SettingsError(code, name=found[1], command=command)
        raise SettingsError("option.wrong", problem=message, command=command)

    def _print_message(self, message: str, file: Any = None) -> None:
        print(message, end="", file=file)  # argparse's own version hides write errors

    def format_help(self) -> str:
        text = super().format_help()
        text = text.replace("usage: ", self.say("usage"), 1)
        text = text.replace("\npositional arguments:\n", f"\n{self.say('arguments')}\n", 1)
        return text.replace("\noptions:\n", f"\n{self.say('options')}\n", 1)


def common_options(language: str) -> Parser:
    """The options of every command, including those of other packages: data, model, language."""
    # SUPPRESS: an option may come before or after the command, and neither parser's default overrides it.
    common = Parser(language, argument_default=argparse.SUPPRESS)
    common.option("--data", metavar="DIR", help="data")
    common.option("--model", metavar="ID|DIR", help="model")
    common.option("--language", metavar="en|zh", help="language", type=partial(_one_of, "--language", texts.LANGUAGES))
    return common


def server_options(language: str) -> Parser:
    """The options of commands that answer: which server to use instead of this machine."""
    server = Parser(language)
    server.option("--server", metavar="URL|NAME", help="server")
    server.option("--key-file", metavar="FILE", help="key_file")
    return server


def build_parser(language: str) -> Parser:
    """The parser of all commands of the core. Errors on the command line raise SettingsError."""
    common = common_options(language)
    sampling = Parser(language)
    for name in settings.SAMPLING_RANGES:
        flag = f"--{name.replace('_', '-')}"
        shown = sampling.say("random" if name == "seed" else "recommended")
        sampling.option(flag, metavar="N", help=f"sampling.{name}", shown=shown, type=partial(_number, flag, name))

    parser = Parser(language, prog="impchat", description=texts.say("help.impchat", language), parents=[common])
    parser.option("-h", "--help", action="help", help="help")
    parser.option("--version", action="version", version=f"ImpChat {_version()}", help="version")
    command = _commands(parser, language, "command", "command")

    server = server_options(language)
    ask = command("ask", common, server, sampling, usage="impchat ask [OPTION ...] [IMAGE|FOLDER ...] QUESTION")
    ask.option("--table", metavar="FILE.csv", help="ask.table")
    ask.option("-r", "--recursive", action="store_true", help="ask.recursive")
    ask.option("words", nargs="+", metavar="IMAGE ... QUESTION", help="ask.words")
    chat = command("chat", common, server, sampling)
    chat.option("--image", action="append", default=[], metavar="FILE", help="chat.image")
    chat.option("--conversation", metavar="UUID", help="chat.conversation")
    _history(command("history", common), common, language)
    _models(command("models", common), common, language)
    convert = command("convert")  # its --language is a number type and conflicts with the common option
    convert.option("source", metavar="CHECKPOINT_DIR", help="convert.source")
    convert.option("target", metavar="OUT_DIR", help="convert.target")
    words, eyes = "|".join(settings.LANGUAGE_TYPES), "|".join(settings.VISION_TYPES)
    convert.option("--language", dest="type", default=settings.LANGUAGE_TYPE, metavar=words, help="convert.language")
    convert.option("--vision", default=settings.VISION_TYPE, metavar=eyes, help="convert.vision")
    formats = settings.CONVERT_FORMATS
    convert.option("--format", default=formats[0], metavar="|".join(formats), help="convert.format")
    serve = command("serve", common)
    serve.option("--port", metavar="N", default=settings.SERVE_PORT, type=port, help="web.port")
    serve.option("--slots", metavar="N", default=settings.SLOTS, type=partial(_count, "--slots"), help="serve.slots")
    queue = partial(_count, "--queue")
    serve.option("--queue", metavar="N", default=settings.QUEUE_REQUESTS, type=queue, help="serve.queue")
    serve.option("--cluster", metavar="ADDRESS", nargs="?", const="", help="serve.cluster")
    replicas = "-".join(str(count) for count in dict.fromkeys(settings.CLUSTER_REPLICAS))
    serve.option("--replicas", metavar="N|N-M", default=replicas, type=_replicas, help="serve.replicas")
    serve.option("--pair", action="store_true", help="serve.pair")
    serve.option("--fetch-pictures", action="store_true", help="serve.fetch")
    serve.option("--allow-origin", metavar="URL", action="append", default=[], type=_origin, help="serve.allow_origin")
    listen_options(serve)
    token = _commands(
        _commands(serve, language, "action", "command.serve")("token"),
        language,
        "subcommand",
        "command.token",
        required=True,
    )
    token("create", common).option("name", metavar="NAME", help="token.name")
    token("list", common)
    token("revoke", common).option("name", metavar="NAME|ID", help="token.revoke")
    command("pair", common)
    command("doctor", common, server).option("--tune", action="store_true", help="doctor.tune")
    _bench(command("bench", common), common, language)
    _servers(command("servers", common), common, language)
    for name in ELSEWHERE:
        command(name)
    return parser


def listen_options(parser: Parser) -> None:
    """The options that let devices and programs on other machines reach ImpChat."""
    parser.option("--listen", metavar="ADDRESS", nargs="?", const=settings.LISTEN, help="listen.address")
    parser.option("--http", action="store_true", help="listen.http")
    parser.option("--name", metavar="HOST", action="append", default=[], help="listen.name")


def _history(parser: Parser, common: Parser, language: str) -> None:
    action = _commands(parser, language, "action", "command.history", required=True)
    listing = action("list", common)
    listing.option("--folder", metavar="NAME", help="history.folder")
    listing.option("--tag", metavar="NAME", help="history.tag")
    listing.option("--archived", action="store_true", help="history.archived")
    listing.option("--deleted", action="store_true", help="history.deleted")
    listing.option(
        "--count", metavar="N", type=partial(_count, "--count"), default=settings.LIST_COUNT, help="history.count"
    )
    action("search", common).option("words", nargs="+", metavar="WORD", help="history.words")
    action("import", common).option("file", metavar="FILE", help="history.file")
    action("empty-bin", common).option("--yes", action="store_true", help="history.yes")
    for name in ("show", "export", "delete", "restore"):
        made = action(name, common)
        made.option("conversation", metavar="UUID", help="history.conversation")
        if name == "export":
            made.option("--markdown", action="store_true", help="history.markdown")
            made.option("--html", action="store_true", help="history.html")
            made.option("-o", "--output", metavar="FILE", help="history.output")
        if name == "delete":
            made.option("--yes", action="store_true", help="history.yes")


def _models(parser: Parser, common: Parser, language: str) -> None:
    action = _commands(parser, language, "action", "command.models", required=True)
    action("list", common)
    pull = action("pull", common)
    pull.option("id", metavar="ID|OWNER/NAME", nargs="?", default=settings.DEFAULT_MODEL, help="models.pull")
    for flag, key, kinds, kind in (
        ("--type", "language", settings.LANGUAGE_TYPES, settings.LANGUAGE_TYPE),
        ("--vision", "vision", settings.VISION_TYPES, settings.VISION_TYPE),
    ):
        one_of = partial(_one_of, flag, kinds)
        pull.option(flag, metavar="|".join(kinds), type=one_of, help=f"convert.{key}", shown=kind)
    pull.option("--keep-source", action="store_true", help="models.keep_source")
    pull.option("--accept-licence", action="store_true", help="models.accept_licence")
    add = action("add", common)
    add.option("gguf", metavar="LANGUAGE.gguf", help="models.gguf")
    add.option("--mmproj", metavar="MMPROJ.gguf", required=True, help="models.mmproj")
    add.option("--id", metavar="ID", help="models.as")
    add.option("--template", metavar="NAME", help="models.template")
    for name, key in (("use", "use"), ("rm", "id"), ("verify", "use"), ("info", "id")):
        made = action(name, common)
        made.option("id", metavar="ID|DIR" if key == "use" else "ID", help=f"models.{key}")
        if name == "rm":
            made.option("--yes", action="store_true", help="history.yes")
            made.option("--in-use", action="store_true", help="models.in_use")
        if name == "use":
            made.option("--unverified", action="store_true", help="models.unverified")
        if name == "verify":
            made.option("--source", metavar="CHECKPOINT_DIR", help="models.source")


def _bench(parser: Parser, common: Parser, language: str) -> None:
    action = _commands(parser, language, "action", "command.bench", required=True)
    for name in ("table", "chat", "users", "peers"):
        made = action(name, common)
        rounds = settings.BENCH_ROUNDS[name]
        made.option("--rounds", metavar="N", type=partial(_count, "--rounds"), default=rounds, help="bench.rounds")
        made.option("--json", metavar="FILE", help="bench.json")
        made.option("--compare", metavar="OLD.json", help="bench.compare")
        made.option("--plot", metavar="FILE.png", help="bench.plot")
        if name == "peers":
            made.option("--peers", metavar="DIR", help="bench.peers")
            made.option("--mmproj", metavar="FILE", help="bench.mmproj")


def _servers(parser: Parser, common: Parser, language: str) -> None:
    action = _commands(parser, language, "action", "command.servers", required=True)
    action("list", common)
    add = action("add", common)
    add.option("url", metavar="URL", help="servers.url")
    add.option("--name", metavar="NAME", help="servers.name")
    add.option("--key-file", metavar="FILE", help="key_file")
    add.option("--certificate", metavar="FILE", help="servers.certificate")
    action("rm", common).option("server", metavar="NAME", help="servers.server")


def _commands(parser: Parser, language: str, dest: str, key: str, *, required: bool = False) -> Callable[..., Parser]:
    """A function that adds a subcommand to `parser`. It takes the name, the parent parsers, argparse's arguments."""
    metavar = dest.upper() if required else f"[{dest.upper()}]"
    made = parser.add_subparsers(dest=dest, metavar=metavar, required=required)

    def add(name: str, *parents: Parser, **how: Any) -> Parser:
        text = parser.say(f"{key}.{name}")
        command: Parser = made.add_parser(name, language=language, help=text, description=text, parents=parents, **how)
        command.option("-h", "--help", action="help", help="help")
        return command

    return add


def _number(flag: str, name: str, value: str) -> float:
    kind = int if isinstance(settings.SAMPLING_RANGES[name][1], int) else float
    try:
        return kind(value)
    except ValueError as exc:
        raise SettingsError("option.not_a_number", option=flag, value=value) from exc


def port(value: str) -> int:
    """The value of --port. Raises SettingsError "web.port"."""
    if not value.isdecimal() or int(value) > 65535:
        raise SettingsError("web.port", port=value)
    return int(value)


def _origin(value: str) -> str:
    """The value of --allow-origin, as browsers send it. Raises SettingsError "serve.origin"."""
    try:
        url = urlsplit(value.lower())
        default = {"http": 80, "https": 443}.get(url.scheme) == url.port
    except ValueError as exc:
        raise SettingsError("serve.origin", origin=value) from exc
    if value != "*" and (not url.scheme or not url.hostname or url.path not in ("", "/") or url.query or url.fragment):
        raise SettingsError("serve.origin", origin=value)
    host = url.netloc.rpartition(":")[0] if default else url.netloc
    return f"{url.scheme}://{host}" if host else "*"


def _count(flag: str, value: str) -> int:
    if not value.isdecimal() or not int(value):
        raise SettingsError("option.not_a_number", option=flag, value=value)
    return int(value)


def _replicas(value: str) -> tuple[int, int]:
    """Minimum and maximum: "2" or "2-8"."""
    ends = [int(end) if end.isdecimal() else 0 for end in value.split("-")]
    if len(ends) > 2 or not 0 < ends[0] <= ends[-1]:
        raise SettingsError("option.choice", option="--replicas", value=value, allowed="N, N-M")
    return ends[0], ends[-1]


def _one_of(flag: str, allowed: Collection[str], value: str) -> str:
    if value not in allowed:
        raise SettingsError("option.choice", option=flag, value=value, allowed=", ".join(allowed))
    return value


def _version() -> str:
    try:
        return metadata.version("impchat")
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return "0"
