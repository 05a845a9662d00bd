"""Chat templates: a `Prompt` -> pieces of token ids and pictures, and what is left out when it is too long.

In: a prompt, a template (one of ours by name, or another model's own), and a way to turn text into token ids. Out:
pieces in reading order. A prompt only grows: the pieces of a conversation's next turn begin with exactly those of this
one, then the answer's own ids, then eos, so that an engine never reads anything twice.
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
    """Text -> token ids, without bos or eos. Only with `special` do markers such as <|im_start|> become one token:
    what a person typed is always plain text, so nobody can type their way out of their turn.
    The phi2 template has no markers and never passes `special`."""

    def __call__(self, text: str, special: bool = ..., /) -> Sequence[int]: ...


@dataclass(frozen=True, slots=True)
class Template:
    """The fixed strings of a chat template, in the order in which a prompt has them."""

    system: str  # before the system text
    first: str  # between the system text and the first question
    later: str  # between the eos of an answer and the next question
    answer: str  # behind a question
    lead: str  # before the text of an answer whose token ids are not known
    markers: tuple[str, ...] = ()  # special tokens in these strings; what stands between them joins what is typed
    # What only other models' own templates say (`models.turns`)
    alone: str | None = None  # before the first question where there is no system text; None: `later`, stripped
    ends: bool = True  # eos stands behind each answer
    picture_end: str = "\n"  # behind each picture; pictures go first in the turn that carries them
    before: tuple[int, ...] = ()  # token ids in front of each picture's embeddings
    after: tuple[int, ...] = ()


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
    # Phi-3's for a tokenizer whose markers swallow the line breaks behind them
    "phi3-tight": Template("<|system|>", "<|end|><|user|>", "<|user|>", "<|end|><|assistant|>", "", _PHI3_MARKERS),
}


def in_nfc(tokenize: Tokenize) -> Tokenize:
    """`tokenize` of a model whose own tokenizer brings text to Unicode's form NFC first."""
    return lambda text, special=False, /: tokenize(unicodedata.normalize("NFC", text), special)


def check(prompt: Prompt) -> None:
    """Raises EngineError "prompt.no_question" where the first turn, or one that is open, is not the user's."""
    if not prompt.turns or prompt.turns[0].role != "user" or (prompt.open_turn and prompt.turns[-1].role != "user"):
        raise EngineError("prompt.no_question")


def render(
    prompt: Prompt, template: str | Template, tokenize: Tokenize, eos: int, bos: int | None = None
) -> list[Piece]:
    """`prompt` in reading order. An answer with `tokens` is those ids, one without is tokenised anew; a question that
    was never answered counts as answered by nothing. Where the last turn is an answer, it has no end yet. `bos`: the id
    that begins a prompt, where the model wants one.

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
    """`prompt` without its oldest turns where it would outgrow the context, and what was left out.

    The conversation is replayed from its first question: whenever a question and room for its answer did not fit, the
    oldest turns were dropped until `settings.CONTEXT_DROP` of the context was free. So nothing need be remembered,
    and between two drops the prompt only grows. The system text always stays, and so does the latest picture: where
    its turn is dropped, it goes into the first question that is kept. Text too long for any context is not tokenised.
    Raises EngineError "prompt.no_question" as `render`, and "prompt.too_long" where the last question alone leaves
    fewer than `settings.ANSWER_LEAST_TOKENS` for its answer."""
    rounds = _rounds(prompt)
    most_chars = context_tokens * settings.TOKEN_CHARS

    def counted(text: str, special: bool = False, /) -> Sequence[int]:
        """As `tokenize`; of text that cannot fit only the least count of tokens is right."""
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
        """Tokens of the prompt that begins with question `start`, `kept` in it, and asks question `last`."""
        asking = first(start, kept) - asked[start] + before[last] - before[start] + asked[last]
        return asking + (begun if last == len(rounds) - 1 else 0)

    room = context_tokens - min(settings.MAX_TOKENS, context_tokens // 4)  # for a prompt, beside its answer
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
    """The name of the prompt's conversation: its key, else what all prompts of the conversation have in common: the
    system text, and the picture of the first turn or, where it has none, its text. Not both: a picture that is read
    ahead has no text yet. Two conversations that begin alike share a name."""
    if prompt.key:
        return prompt.key
    first = prompt.turns[0] if prompt.turns else Turn("user", "")
    begins = first.pictures[0].sha256 if first.pictures else first.text
    return hashlib.sha256(f"{prompt.system}\0{begins}".encode()).hexdigest()


def _known(template: str | Template) -> Template:
    return TEMPLATES[template] if isinstance(template, str) else template


@dataclass(frozen=True, slots=True)
class _Round:
    """A question and what was answered, of the last one as far as the answer has begun."""

    at: int  # index of the question in the prompt's turns
    question: Turn
    answer: Turn | None = None
    open: bool = False  # the question's text is still being typed

    def showing(self, pictures: tuple[Picture, ...]) -> _Round:
        """This round with `pictures` before those of its question."""
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
    """The latest picture before question `start`, where none of the questions from there to `last` has one."""
    if any(r.question.pictures for r in rounds[start : last + 1]):
        return ()
    return next((r.question.pictures[-1:] for r in reversed(rounds[:start]) if r.question.pictures), ())


class _Writer:
    """Writes the parts of a prompt, each on its own: a part's pieces depend on nothing before it."""

    def __init__(self, template: Template, tokenize: Tokenize, eos: int) -> None:
        self._template = template
        self._tokenize = tokenize
        self._eos = eos
        longest_first = sorted(template.markers, key=len, reverse=True)
        self._marker = re.compile(f"({'|'.join(map(re.escape, longest_first))})")

    def first(self, system: str, this: _Round) -> list[Piece]:
        """From the system text to where the first answer begins."""
        t = self._template
        if not system:
            return self._asked(self._fixed(t.later.lstrip() if t.alone is None else t.alone), this)
        return self._asked([*self._fixed(t.system), (system, False), *self._fixed(t.first)], this)

    def question(self, this: _Round) -> list[Piece]:
        """From behind the eos of an answer to where the next one begins."""
        return self._asked(self._fixed(self._template.later), this)

    def answer(self, this: _Round) -> list[Piece]:
        """An answer and its eos."""
        return [*self._said(this.answer), *([Tokens((self._eos,))] if self._template.ends else [])]

    def begun(self, this: _Round) -> list[Piece]:
        """The beginning of an answer that goes on. A space at its end is left out: it belongs to the next word."""
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
        """The question of `this`, with `head` before it. One that is open ends right behind its last picture, or, if
        it has none, without the space that belongs to its first word."""
        t = self._template
        parts: list[tuple[str, bool] | Picture | Tokens] = [*head]
        for picture in this.question.pictures:
            parts += [*_ids(t.before), picture, *_ids(t.after), (t.picture_end, False)]
        if not this.open:
            parts += [(this.question.text.strip(), False), *self._fixed(t.answer)]
        elif this.question.pictures:
            parts.pop()
        elif head and not head[-1][1]:
            parts[-1] = (head[-1][0].rstrip(), False)
        return self._pieces(parts)

    def _fixed(self, text: str) -> list[tuple[str, bool]]:
        """A string of the template in its parts; each says whether it is a marker."""
        if not self._template.markers:
            return [(text, False)]
        cut = (part for part in self._marker.split(text) if part)
        return [(part, self._marker.fullmatch(part) is not None) for part in cut]

    def _pieces(self, parts: Iterable[tuple[str, bool] | Picture | Tokens]) -> list[Piece]:
        """Neighbouring text of one kind is tokenised in one go, as it was when the model was trained."""
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
