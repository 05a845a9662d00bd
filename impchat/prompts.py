"""Chat templates: a `Prompt` -> pieces of token ids and pictures, truncated to fit the context.

In: a prompt, a template (the name of a built-in one, or another model's own), and a tokenizer. Out: pieces in reading
order. Prompts only grow: the pieces of a conversation's next turn begin with exactly the pieces of this one, then the
answer's own ids, then eos, so an engine never reads anything twice.
This file does not know any model, nor where a prompt comes from.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate, pairwise
from typing import Protocol

from impchat import settings
from impchat.errors import EngineError
from impchat.messages import Dropped, Picture, Prompt, Turn


@dataclass(frozen=True, slots=True)
class Tokens:
    """A piece of a prompt as token ids."""

    ids: tuple[int, ...]


Piece = Tokens | Picture


class Tokenize(Protocol):
    """Text -> token ids, without bos or eos. Markers such as <|im_start|> become one token only with `special`. User
    text is always tokenised without it, so that typed markers cannot end a turn. The phi2 template has no markers and
    never passes `special`."""

    def __call__(self, text: str, special: bool = ..., /) -> Sequence[int]: ...


@dataclass(frozen=True, slots=True)
class Template:
    """The fixed strings of a chat template, in the order of a prompt."""

    system: str  # before the system text
    first: str  # between the system text and the first question
    later: str  # between the eos of an answer and the next question
    answer: str  # after a question
    lead: str  # before the text of an answer whose token ids are not known
    markers: tuple[str, ...] = ()  # special tokens in these strings; the text between them is ordinary text
    # Used only by other models' own templates (`models.turns`)
    alone: str | None = None  # before the first question if there is no system text; None: `later`, left-stripped
    ends: bool = True  # eos follows each answer
    picture_end: str = "\n"  # after each picture; pictures come first in their turn
    before: tuple[int, ...] = ()  # token ids before each picture's embeddings
    after: tuple[int, ...] = ()  # token ids after them


_QWEN_MARKERS = ("<|im_start|>", "<|im_end|>")
_PHI3_MARKERS = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
TEMPLATES = {
    "phi2": Template("", " USER: ", "USER: ", " ASSISTANT:", " "),
    "qwen": Template(
        "<|im_start|>system\n",
        "<|im_end|>\n<|im_start|>user\n",
        "\n<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
        "",
        _QWEN_MARKERS,
    ),
    "phi3": Template(
        "<|system|>\n", "<|end|>\n<|user|>\n", "\n<|user|>\n", "<|end|>\n<|assistant|>\n", "", _PHI3_MARKERS
    ),
    # phi3 for a tokenizer whose markers swallow the line breaks after them
    "phi3-tight": Template("<|system|>", "<|end|><|user|>", "<|user|>", "<|end|><|assistant|>", "", _PHI3_MARKERS),
}


def in_nfc(tokenize: Tokenize) -> Tokenize:
    """`tokenize` with text normalised to Unicode NFC first, for models whose own tokenizer does that."""
    return lambda text, special=False, /: tokenize(unicodedata.normalize("NFC", text), special)


def check(prompt: Prompt) -> None:
    """Raises EngineError "prompt.no_question" if the first turn, or an open last turn, is not the user's."""
    if not prompt.turns or prompt.turns[0].role != "user" or (prompt.open_turn and prompt.turns[-1].role != "user"):
        raise EngineError("prompt.no_question")


def render(
    prompt: Prompt, template: str | Template, tokenize: Tokenize, eos: int, bos: int | None = None
) -> list[Piece]:
    """The pieces of `prompt` in reading order. An answer with `tokens` uses those ids; one without is tokenised. A
    question that was never answered gets an empty answer. If the last turn is an answer, it is left open, without eos.
    `bos`: the id that begins a prompt, if the model wants one.

    Raises EngineError "prompt.no_question" as `check`."""
    rounds = _rounds(prompt)
    writer = _Writer(_known(template), tokenize, eos)
    pieces: list[Piece] = [] if bos is None else [Tokens((bos,))]
    pieces += writer.first(prompt.system, rounds[0])
    for before, this in pairwise(rounds):
        pieces += writer.answer(before)
        pieces += writer.question(this)
    return pieces + writer.begun(rounds[-1])


def fit(
    prompt: Prompt,
    template: str | Template,
    tokenize: Tokenize,
    eos: int,
    bos: int | None = None,
    *,
    picture_tokens: int,
    context_tokens: int,
) -> tuple[Prompt, Dropped | None]:
    """`prompt` without its oldest turns if it exceeds the context, and what was dropped (None: nothing).

    Replays the conversation from its first question: each time a question and room for its answer did not fit, the
    oldest turns were dropped until `settings.CONTEXT_DROP` of the context was free. So no state is needed, and between
    two drops the prompt only grows. The system text and the latest picture always stay; if the picture's turn is
    dropped, it moves to the first question kept. Text too long for any context is not tokenised.
    Raises EngineError "prompt.no_question" as `render`, and "prompt.too_long" if the last question alone leaves fewer
    than `settings.ANSWER_LEAST_TOKENS` for its answer."""
    rounds = _rounds(prompt)
    most_chars = context_tokens * settings.TOKEN_CHARS

    def counted(text: str, special: bool = False, /) -> Sequence[int]:
        """As `tokenize`, but text that cannot fit yields as many zeros as it has tokens at least."""
        return tokenize(text, special) if len(text) <= most_chars else (0,) * (len(text) // settings.TOKEN_CHARS)

    writer = _Writer(_known(template), counted, eos)

    def size(pieces: Iterable[Piece]) -> int:
        return sum(len(p.ids) if isinstance(p, Tokens) else picture_tokens for p in pieces)

    begun = size(writer.begun(rounds[-1]))
    asked = [size(writer.question(r)) for r in rounds]
    whole = [a + size(writer.answer(r)) for a, r in zip(asked, rounds, strict=True)]
    before = [0, *accumulate(whole)]  # tokens of all rounds before each one

    @cache
    def first(start: int, kept: tuple[Picture, ...]) -> int:
        return size(writer.first(prompt.system, rounds[start].showing(kept))) + (bos is not None)

    def window(start: int, last: int, kept: tuple[Picture, ...]) -> int:
        """Tokens of the prompt from question `start`, with `kept` added to it, to question `last`."""
        asking = first(start, kept) - asked[start] + before[last] - before[start] + asked[last]
        return asking + (begun if last == len(rounds) - 1 else 0)

    room = context_tokens - min(settings.MAX_TOKENS, context_tokens // 4)  # for the prompt; the rest is for the answer
    target = room - int(settings.CONTEXT_DROP * context_tokens)
    start = 0
    kept: tuple[Picture, ...] = ()
    for last in range(len(rounds)):
        if window(start, last, kept) <= room:
            continue
        while start < last and window(start, last, kept) > target:
            start += 1
            kept = _latest_picture(rounds, start, last)
    used = window(start, len(rounds) - 1, kept)
    limit = context_tokens - settings.ANSWER_LEAST_TOKENS
    if used > limit:
        raise EngineError("prompt.too_long", tokens=used, limit=limit)
    if start == 0:
        return prompt, None
    at = rounds[start].at
    turns = (rounds[start].showing(kept).question, *prompt.turns[at + 1 :])
    return replace(prompt, turns=turns), Dropped(turns=at, tokens=window(0, len(rounds) - 1, ()) - used)


def conversation_of(prompt: Prompt) -> str:
    """A stable name for the prompt's conversation: its key, or else a hash of what all prompts of the conversation
    share: the system text, and the first picture of the first turn or, without one, its text. Not both, because a
    prefilled picture has no text yet. Two conversations that begin alike share a name."""
    if prompt.key:
        return prompt.key
    first = prompt.turns[0] if prompt.turns else Turn("user", "")
    begins = first.pictures[0].sha256 if first.pictures else first.text
    return hashlib.sha256(f"{prompt.system}\0{begins}".encode()).hexdigest()


def complete_words(text: str) -> str:
    """The beginning of `text`, which is still being typed, whose tokens will hardly change: without the last word. In
    Chinese and Japanese, every character but the last counts as a word."""
    if text[-1:].isspace():
        return text.strip()
    end = next((n for n in range(len(text) - 1, 0, -1) if text[n].isspace() or _is_word(text[n - 1])), 0)
    return text[:end].strip()


def _is_word(character: str) -> bool:
    """Whether it is a Chinese character or Japanese kana."""
    return "\u3040" <= character <= "\u9fff" or "\U00020000" <= character <= "\U0003ffff"


def _known(template: str | Template) -> Template:
    return TEMPLATES[template] if isinstance(template, str) else template


@dataclass(frozen=True, slots=True)
class _Round:
    """A question and its answer. The answer of the last round may be missing or incomplete."""

    at: int  # index of the question in the prompt's turns
    question: Turn
    answer: Turn | None = None
    open: bool = False  # the question's text is still being typed

    def showing(self, pictures: tuple[Picture, ...]) -> _Round:
        """This round with `pictures` before the question's own."""
        return replace(self, question=replace(self.question, pictures=pictures + self.question.pictures))


def _rounds(prompt: Prompt) -> list[_Round]:
    check(prompt)
    rounds: list[_Round] = []
    for at, turn in enumerate(prompt.turns):
        if turn.role == "user":
            rounds.append(_Round(at, turn, open=prompt.open_turn and at == len(prompt.turns) - 1))
        else:
            rounds[-1] = replace(rounds[-1], answer=turn)
    return rounds


def _latest_picture(rounds: Sequence[_Round], start: int, last: int) -> tuple[Picture, ...]:
    """The latest picture before question `start`; empty if a question from `start` to `last` has a picture."""
    if any(r.question.pictures for r in rounds[start : last + 1]):
        return ()
    return next((r.question.pictures[-1:] for r in reversed(rounds[:start]) if r.question.pictures), ())


class _Writer:
    """Renders the parts of a prompt independently: the pieces of a part do not depend on earlier parts."""

    def __init__(self, template: Template, tokenize: Tokenize, eos: int) -> None:
        self._template = template
        self._tokenize = tokenize
        self._eos = eos
        longest_first = sorted(template.markers, key=len, reverse=True)
        self._marker = re.compile(f"({'|'.join(map(re.escape, longest_first))})")

    def first(self, system: str, this: _Round) -> list[Piece]:
        """From the system text to the beginning of the first answer."""
        t = self._template
        if not system:
            return self._asked(self._fixed(t.later.lstrip() if t.alone is None else t.alone), this)
        return self._asked([*self._fixed(t.system), (system, False), *self._fixed(t.first)], this)

    def question(self, this: _Round) -> list[Piece]:
        """From after the eos of an answer to the beginning of the next one."""
        return self._asked(self._fixed(self._template.later), this)

    def answer(self, this: _Round) -> list[Piece]:
        """An answer and its eos."""
        return [*self._said(this.answer), *([Tokens((self._eos,))] if self._template.ends else [])]

    def begun(self, this: _Round) -> list[Piece]:
        """The part so far of an answer to be continued, without spaces at its end: these belong to the next word."""
        return self._said(this.answer and replace(this.answer, text=this.answer.text.rstrip(" ")))

    def _said(self, answer: Turn | None) -> list[Piece]:
        if answer is None:
            ids: tuple[int, ...] = ()
        elif answer.tokens is not None:
            ids = answer.tokens
        else:
            ids = tuple(self._tokenize(self._template.lead + answer.text)) if answer.text else ()
        return [Tokens(ids)] if ids else []

    def _asked(self, head: list[tuple[str, bool]], this: _Round) -> list[Piece]:
        """The question of `this`, after `head`. An open question ends after the text that it has; without text, right
        after its last picture; if it has neither, before the space that belongs to its first word."""
        t = self._template
        parts: list[tuple[str, bool] | Picture | Tokens] = [*head]
        for picture in this.question.pictures:
            parts += [*_ids(t.before), picture, *_ids(t.after), (t.picture_end, False)]
        if not this.open:
            parts += [(this.question.text.strip(), False), *self._fixed(t.answer)]
        elif this.question.text:
            parts.append((this.question.text.strip(), False))
        elif this.question.pictures:
            parts.pop()
        elif head and not head[-1][1]:
            parts[-1] = (head[-1][0].rstrip(), False)
        return self._pieces(parts)

    def _fixed(self, text: str) -> list[tuple[str, bool]]:
        """A string of the template, split at its markers: (part, whether it is a marker)."""
        if not self._template.markers:
            return [(text, False)]
        cut = (part for part in self._marker.split(text) if part)
        return [(part, self._marker.fullmatch(part) is not None) for part in cut]

    def _pieces(self, parts: Iterable[tuple[str, bool] | Picture | Tokens]) -> list[Piece]:
        """Tokenise `parts`. Adjacent text of one kind is tokenised together, as in the model's training."""
        pieces: list[Piece] = []
        text, special = "", False

        def cut() -> None:
            if text:
                pieces.append(Tokens(tuple(self._tokenize(text, True) if special else self._tokenize(text))))

        for part in parts:
            if isinstance(part, Picture | Tokens):
                cut()
                pieces.append(part)
                text = ""
            elif part[0]:
                if part[1] is not special:
                    cut()
                    text, special = "", part[1]
                text += part[0]
        cut()
        return pieces


def _ids(ids: tuple[int, ...]) -> list[Tokens]:
    return [Tokens(ids)] if ids else []
