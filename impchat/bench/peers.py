"""`impchat bench peers`: the same work with the same number of tokens in ImpChat and in llama.cpp's own programs.

In: a bundle, the folder of the programs, an mmproj file. Out: figures with one value for each round and program; the
programs take turns, so that what else the machine does hits all of them.
This file does not know how a program is started.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from impchat import prompts, speedtest
from impchat.app import App
from impchat.bench import asking, programs, users
from impchat.bench.asking import Questions, Tell, Timed
from impchat.bench.programs import ALL_FLAGS, BENCH, MARK, SERVER, Flags, ImageHandler, LlamaServer, Programs
from impchat.bench.report import OURS, Collector, Figure
from impchat.bundle import Bundle
from impchat.chat import Chat
from impchat.errors import SettingsError
from impchat.messages import Picture, Prompt, Sampling, Turn

HANDLER = "llama-cpp-python"
PEOPLE = 4
DEPTHS = (400, 1000)  # tokens of a conversation before a follow-up question
QUESTION_TOKENS = 12
ANSWER_TOKENS = 16
CHARACTERS_PER_S = 20.0  # a fast typist; the words of a question are read faster than that
DEPTH, READ, GENERATE = 350, 50, 32  # of llama-bench


def prepare(bundle: Bundle, folder: Path | None = None, mmproj: Path | None = None) -> Programs:
    """llama.cpp's programs for `bundle`. `folder`: where they are, see `programs.find`. `mmproj`: the vision encoder of
    `bundle` for them; None: the bundle's own.

    Raises SettingsError "bench.no_programs", "bench.no_mmproj", "file.unreadable"."""
    from impchat.engines.local.tuning import threads_for

    place, eyes = programs.find(folder), mmproj or bundle.mmproj
    if eyes is None:
        raise SettingsError("bench.no_mmproj", model=bundle.id)
    if not eyes.is_file():
        raise SettingsError("file.unreadable", path=str(eyes), detail=os.strerror(errno.ENOENT))
    return Programs(place, bundle.language, eyes, threads_for(bundle))


def run(bundle: Bundle, rounds: int, tell: Tell, peers: Programs) -> list[Figure]:
    """Measure in `rounds` rounds. Raises SettingsError "bench.program_failed" and the ImpChatError that ended an
    answer."""
    found, flags = Collector(), ALL_FLAGS
    questions = Questions(bundle)
    best: dict[str, Flags] = {}
    for number in range(1, rounds + 1):

        def step(program: str, number: int = number) -> None:
            tell("bench.step.program", program=program, round=number, rounds=rounds)

        with asking.folder() as data:
            work = _Round(bundle, peers, questions, found, step, data)
            work.run()
        step(BENCH)
        speeds = {each: programs.bench_speeds(peers, each, DEPTH, READ, GENERATE) for each in flags}
        if not best:
            best = {
                name: max(speeds, key=lambda each: speeds[each][name]) for name in ("generate_0", "generate", "read")
            }
        flags = tuple(dict.fromkeys(best.values()))
        _add_bench(found, speeds, best)
    return found.figures


def _add_bench(found: Collector, speeds: dict[Flags, dict[str, float]], best: dict[str, Flags]) -> None:
    """Add a round of llama-bench: each figure with its best flags, and with each of `speeds`."""

    def add(name: str, value: str, case: int, chosen: Flags, program: str = BENCH) -> None:
        found.add(name, speeds[chosen][value], "tokens/s", case=str(case), program=program)

    add("generation", "generate_0", 0, best["generate_0"])
    add("generation", "generate", DEPTH, best["generate"])
    add("reading", "read", DEPTH, best["read"])
    add("reading_as_generating", "read", DEPTH, best["generate"])
    for flags in speeds:
        add("generation", "generate_0", 0, flags, f"{BENCH} {flags}")
        add("generation", "generate", DEPTH, flags, f"{BENCH} {flags}")
        add("reading", "read", DEPTH, flags, f"{BENCH} {flags}")


class _Round:
    """One round of all programs but llama-bench. ImpChat goes first: the others generate as many tokens as it did."""

    def __init__(
        self,
        bundle: Bundle,
        peers: Programs,
        questions: Questions,
        found: Collector,
        step: Callable[[str], None],
        data: Path,
    ) -> None:
        self._bundle = bundle
        self._peers = peers
        self._questions = questions
        self._found = found
        self._step = step
        self._data = data
        self._pictures = [speedtest.fresh_picture().data for _ in range(4)]
        self._cold = ""  # the question without time to read ahead
        self._asked: list[tuple[str, int]] = []  # the questions of the conversation, and the tokens of each answer
        self._depths: dict[int, int] = {}  # the number of a follow-up question -> its depth

    def run(self) -> None:
        self._step(OURS)
        with asking.opened(self._bundle, self._data / "alone") as app:
            self._system = app.system
            self._ours(app)
        with asking.opened(self._bundle, self._data / "together", slots=PEOPLE) as app:
            users.add(self._found, users.together(app, self._questions, PEOPLE), OURS)
        self._step(SERVER)
        with programs.started_server(self._peers, 1, self._bundle.context_tokens) as server:
            self._server(server)
        with programs.started_server(self._peers, PEOPLE, self._bundle.context_tokens) as server:
            users.add(self._found, self._served_together(server), SERVER)
        self._step(HANDLER)
        with closing(ImageHandler(self._peers, self._bundle.context_tokens)) as handler:
            self._handler(handler)

    def _add(self, name: str, answer: Timed, program: str, depth: int | None = None) -> None:
        case = "" if depth is None else str(depth)
        self._found.add(name, answer.first_s, case=case, program=program)
        tokens = answer.stats.cached_tokens + answer.stats.new_tokens
        self._found.add(f"{name}_prompt", tokens, "tokens", case=case, program=program)

    # ImpChat

    def _ours(self, app: App) -> None:
        warm = app.chat()
        asking.ready(warm.attach(self._pictures[3]))

        hurried, self._cold = app.chat(), self._questions.of(QUESTION_TOKENS)
        begun = time.perf_counter()
        hurried.attach(self._pictures[0])
        attach_s = time.perf_counter() - begun  # the other programs unpack the picture while they answer
        cold = asking.send(app, hurried, self._cold, ANSWER_TOKENS)
        self._add("first_token_cold", replace(cold, first_s=attach_s + cold.first_s), OURS)

        patient = app.chat()
        begun = time.perf_counter()
        asking.ready(patient.attach(self._pictures[1]))
        self._found.add("attach_ready", time.perf_counter() - begun, program=OURS)
        question = self._questions.of(QUESTION_TOKENS)
        asking.type_slowly(patient, question, CHARACTERS_PER_S)
        self._add("first_token_typed", asking.send(app, patient, question, ANSWER_TOKENS), OURS)

        self._deepen(app, cold.stats.prompt_tokens - QUESTION_TOKENS)
        self._bare(app)

    def _deepen(self, app: App, begins: int) -> None:
        """A conversation with a follow-up question at each depth of `DEPTHS` that it can have. `begins`: tokens before
        and after the first question."""
        chat = app.chat()
        asking.ready(chat.attach(self._pictures[2]))
        depth, around = begins, 0  # tokens so far, and of the template for each later question
        for target in DEPTHS:
            if (missing := target - depth - around - ANSWER_TOKENS) < 1:
                continue
            filling = self._ask(app, chat, missing)
            self._depths[len(self._asked)] = target
            follow_up = self._ask(app, chat, QUESTION_TOKENS)
            self._add("follow_up", follow_up, OURS, target)
            after = filling.stats.prompt_tokens + filling.tokens
            around = follow_up.stats.prompt_tokens - after - QUESTION_TOKENS
            depth = follow_up.stats.prompt_tokens + follow_up.tokens

    def _ask(self, app: App, chat: Chat, tokens: int) -> Timed:
        question = self._questions.of(tokens)
        answer = asking.send(app, chat, question, ANSWER_TOKENS)
        self._asked.append((question, answer.tokens))
        return answer

    def _bare(self, app: App) -> None:
        """What llama-bench measures, through the engine."""
        for depth in (0, DEPTH):
            text = self._questions.of(depth or 1)
            answer = _answer(app, f"bare-{depth}", text, GENERATE)
            steps = max(answer.tokens - 1, 0)  # the first one comes from reading the prompt
            self._found.add(
                "generation", _speed(steps, answer.stats.decode_s), "tokens/s", case=str(depth), program=OURS
            )
        more = _answer(app, f"bare-{DEPTH}", f"{text} {self._questions.of(READ)}", 1)
        for name in ("reading", "reading_as_generating"):
            speed = _speed(more.stats.new_tokens, more.stats.prefill_s)
            self._found.add(name, speed, "tokens/s", case=str(DEPTH), program=OURS)

    # llama-server

    def _server(self, server: LlamaServer) -> None:
        server.ask(self._picture_only(), [self._pictures[3]], 0)
        cold, _ = server.ask(self._written([self._cold], []), [self._pictures[0]], ANSWER_TOKENS)
        for name in ("first_token_cold", "first_token_typed"):  # it reads nothing ahead
            self._add(name, cold, SERVER)
        picture, _ = server.ask(self._picture_only(), [self._pictures[1]], 0)
        self._found.add("attach_ready", picture.total_s, program=SERVER)
        questions, answers = [question for question, _ in self._asked], list[str]()
        for n, (_, tokens) in enumerate(self._asked):
            text = self._written(questions[: n + 1], answers)
            answer, words = server.ask(text, [self._pictures[2]], tokens)
            answers.append(words)
            if n in self._depths:
                self._add("follow_up", answer, SERVER, self._depths[n])

    def _served_together(self, server: LlamaServer) -> list[Timed]:
        pictures = [speedtest.fresh_picture().data for _ in range(PEOPLE)]
        for slot, picture in enumerate(pictures):
            server.ask(self._picture_only(), [picture], 0, slot)

        texts = [self._written([self._questions.of(QUESTION_TOKENS)], []) for _ in pictures]
        asked = zip(texts, pictures, range(PEOPLE), strict=True)
        work = [partial(server.ask, text, [picture], users.TOKENS, slot) for text, picture, slot in asked]
        return [answer for answer, _ in asking.at_once(work)]

    # The image handler

    def _handler(self, handler: ImageHandler) -> None:
        cold, _ = handler.ask(self._written([self._cold], []), self._pictures[0], ANSWER_TOKENS)
        for name in ("first_token_cold", "first_token_typed"):
            self._add(name, cold, HANDLER)
        if not self._depths:
            return
        # One depth is enough: it reads everything again at each, so any answers of the same length will do.
        number, depth = next(iter(self._depths.items()))
        questions = [question for question, _ in self._asked[: number + 1]]
        answers = [self._questions.of(tokens) if tokens else "" for _, tokens in self._asked[:number]]
        text = self._written(questions, answers)
        follow_up, _ = handler.ask(text, self._pictures[2], self._asked[number][1])
        self._add("follow_up", follow_up, HANDLER, depth)

    # Prompts

    def _written(self, questions: list[str], answers: list[str]) -> str:
        """The prompt of a conversation about a picture, as text."""
        turns: list[Turn] = []
        shown = (Picture("", b""),)  # only its place matters
        for n, question in enumerate(questions):
            turns.append(Turn("user", question, shown if n == 0 else ()))
            if n < len(answers):
                turns.append(Turn("assistant", answers[n].removeprefix(" ")))
        return as_text(self._bundle, Prompt(self._system, tuple(turns)), self._questions.eos)

    def _picture_only(self) -> str:
        """The prompt up to its picture and the character after it: llama-server ends if a picture is the last thing in
        a prompt."""
        before, _, after = self._written(["?"], []).partition(MARK)
        return before + MARK + after[:1]


def as_text(bundle: Bundle, prompt: Prompt, eos: str) -> str:
    """`prompt` as the text that llama.cpp's programs turn into the same tokens. Pictures are `MARK`; `eos`: the text of
    the token that ends an answer. Answers must have no token ids."""
    template = prompts.TEMPLATES[bundle.template] if bundle.turns is None else bundle.turns
    template = replace(template, before=(), after=())  # llama.cpp adds these tokens by itself
    end = -1  # no character has this number
    pieces = prompts.render(prompt, template, lambda text, special=False, /: [*map(ord, text)], end)
    return "".join(
        "".join(eos if number == end else chr(number) for number in piece.ids)
        if isinstance(piece, prompts.Tokens)
        else MARK
        for piece in pieces
    )


def _answer(app: App, key: str, text: str, tokens: int) -> Timed:
    """The engine's answer to a prompt without a system text."""
    prompt = Prompt("", (Turn("user", text),), key=key)
    begun = time.perf_counter()
    return asking.timed(begun, app.engine.start(prompt, Sampling(temperature=0.0, max_tokens=tokens)).events())


def _speed(tokens: int, seconds: float) -> float:
    return tokens / seconds if seconds else 0.0
