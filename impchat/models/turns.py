"""Convert a chat template of a GGUF file, in Jinja, to the fixed strings of a conversation (`prompts.Template`).

In: the template's text and the model's markers. Out: the strings before, between and after the turns. The template runs
only once, when a model is added: prompts are built from the strings, earlier turns never change, and nothing that a
user types is read as a template or as a marker. A template that does more than put strings around turns is refused.
This file does not know tokens or files.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from impchat.errors import EngineError, ModelError
from impchat.prompts import Template

# Words that no template contains or changes
_SYSTEM = "Qsystemtext"
_QUESTIONS = ("Qquestionone", "Qquestiontwo", "Qquestionthree")
_ANSWERS = ("Qanswerone", "Qanswertwo")


@dataclass(frozen=True, slots=True)
class Turns:
    """The fixed strings of a chat template."""

    template: Template
    end: str | None  # the marker that ends an answer
    stop: tuple[str, ...]  # if no marker does: the text that begins the next question


def derive(source: str, *, bos: str, eos: str, markers: Collection[str], ends: Collection[str]) -> Turns:
    """The strings of the Jinja template `source`. `bos`, `eos`: the markers that it may use by these names; `markers`:
    the texts of the model's special tokens; `ends`: those of them that end an answer.

    Raises ModelError "template.broken" (Jinja cannot run it), "template.not_fixed" (its turns depend on their position
    or change when the conversation goes on), EngineError "engine.not_installed"."""
    try:
        return _derive(_Jinja(source, bos, eos), markers, ends)
    except ModelError as first:
        try:  # some accept only content that is a list of parts
            return _derive(_Jinja(source, bos, eos, parts=True), markers, ends)
        except ModelError:
            raise first from None


def _derive(jinja: _Jinja, markers: Collection[str], ends: Collection[str]) -> Turns:
    one, two = (jinja.render(_talk(n)) for n in (1, 2))
    alone, ask = _around(one, _QUESTIONS[0])
    answer, between = _between(two, _QUESTIONS[0], _ANSWERS[0]), _between(two, _ANSWERS[0], _QUESTIONS[1])
    if not _is_written(jinja, alone, ask, answer, between, system=False):
        raise ModelError("template.not_fixed")
    system, first = _system(jinja, alone, ask, answer, between)
    end, later = _end(between, ends)
    strings = (system, first, later, ask, alone)
    template = Template(
        system=system,
        first=first,
        later=later,
        answer=ask,
        # Some templates write an earlier answer differently from the prompt for one. It stays as it was prompted.
        lead=answer.removeprefix(ask) if answer.startswith(ask) else "",
        markers=tuple(sorted(m for m in markers if m and any(m in text for text in strings))),
        alone=alone,
        ends=end is not None,
        picture_end=_picture_end(jinja, alone, ask),
    )
    return Turns(template, end, () if end or not between.strip() else (between.strip(),))


def _system(jinja: _Jinja, alone: str, ask: str, answer: str, between: str) -> tuple[str, str]:
    """The strings before and after a system text. If the template has no place for one, it becomes part of the first
    question, separated by an empty line."""
    try:
        whole = jinja.render(_talk(1, system=True))
        before, after = _around(whole, _SYSTEM)[0], _between(whole, _SYSTEM, _QUESTIONS[0])
        if _is_written(jinja, before + _SYSTEM + after, ask, answer, between, system=True):
            return before, after
    except ModelError:  # usually because of "System role not supported"
        pass
    return alone, "\n\n"


def _end(between: str, ends: Collection[str]) -> tuple[str | None, str]:
    """The marker that ends an answer and the text after it, from the text between an answer and the next question."""
    found = min(((between.find(e), -len(e), e) for e in ends if e and e in between), default=None)
    if found is None or between[: found[0]].strip():
        return None, between
    return found[2], between[found[0] + len(found[2]) :]


def _picture_end(jinja: _Jinja, alone: str, ask: str) -> str:
    """The text after a picture in the template; a newline, as in LLaVA, if it has no place for pictures."""
    shown = []
    for count in (1, 2):
        content = [{"type": "image"}] * count + [{"type": "text", "text": _QUESTIONS[0]}]
        try:
            whole = jinja.render([{"role": "user", "content": content}])
        except ModelError:
            return "\n"
        tail = _QUESTIONS[0] + ask
        if not (whole.startswith(alone) and whole.endswith(tail)):
            return "\n"
        shown.append(whole[len(alone) : len(whole) - len(tail)])
    mark, two = shown
    if not mark.strip() or mark != mark.lstrip() or two != 2 * mark:
        return "\n"
    return mark[len(mark.rstrip()) :]


def _is_written(jinja: _Jinja, start: str, ask: str, answer: str, between: str, *, system: bool) -> bool:
    """Whether the joined strings equal what the template writes, turn by turn."""
    for count in (1, 2, 3):
        text = start
        for n in range(count - 1):
            text += _QUESTIONS[n] + answer + _ANSWERS[n] + between
        if jinja.render(_talk(count, system=system)) != text + _QUESTIONS[count - 1] + ask:
            return False
    return True


def _talk(questions: int, *, system: bool = False) -> list[dict[str, Any]]:
    turns = [{"role": "system", "content": _SYSTEM}] if system else []
    for n in range(questions):
        turns.append({"role": "user", "content": _QUESTIONS[n]})
        if n < questions - 1:
            turns.append({"role": "assistant", "content": _ANSWERS[n]})
    return turns


def _around(text: str, word: str) -> tuple[str, str]:
    if text.count(word) != 1:
        raise ModelError("template.not_fixed")
    before, _, after = text.partition(word)
    return before, after


def _between(text: str, left: str, right: str) -> str:
    return _around(_around(text, left)[1], right)[0]


class _Jinja:
    """The template, run in a sandbox as transformers runs it."""

    def __init__(self, source: str, bos: str, eos: str, *, parts: bool = False) -> None:
        """`parts`: pass every content as a list of one text part."""
        try:
            from jinja2 import TemplateError, nodes, parser
            from jinja2.ext import Extension
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ImportError as exc:
            raise EngineError("engine.not_installed", package="jinja2", detail=str(exc)) from exc
        # What a template raises for values that it does not expect
        self._failures = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)

        class Generation(Extension):
            """The tag with which transformers marks text that a model is trained on; it writes nothing itself."""

            tags = {"generation"}  # noqa: RUF012

            def parse(self, parser: parser.Parser) -> list[nodes.Node]:
                next(parser.stream)
                return parser.parse_statements(("name:endgeneration",), drop_needle=True)

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
        )

        def refuse(message: str) -> None:
            raise TemplateError(message)

        environment.globals["raise_exception"] = refuse
        self._parts = parts
        self._values = {"bos_token": bos, "eos_token": eos}
        try:
            self._template = environment.from_string(source)
        except self._failures as exc:
            raise ModelError("template.broken", detail=str(exc)) from exc

    def render(self, messages: Sequence[dict[str, Any]]) -> str:
        """The prompt for the next answer."""
        if self._parts:
            messages = [
                m | {"content": [{"type": "text", "text": m["content"]}]} if isinstance(m["content"], str) else m
                for m in messages
            ]
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, **self._values)
        except (*self._failures, RecursionError, MemoryError) as exc:
            raise ModelError("template.broken", detail=str(exc)) from exc
