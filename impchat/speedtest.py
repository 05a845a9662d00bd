"""A short speed test that measures the figures of the paper's latency table (Table 4) with the engine in use.

In: an engine. Out: `SpeedFigures`, from one picture that is not in any cache, a prompt of about 41 tokens and 64
generated tokens, in several answers if the model ends them earlier.
This file does not know which engine it is.
"""

from __future__ import annotations

import hashlib
import io
import secrets
from dataclasses import dataclass

from impchat import settings
from impchat.engines import Engine
from impchat.errors import ImpChatError
from impchat.messages import Failed, Finished, Picture, Prompt, Sampling, Stats, Turn

# About 41 tokens with the template, in the vocabulary of Phi-2, the default model.
_QUESTION = "Describe everything that you can see in this picture in as much detail as you can, from left to right."


@dataclass(frozen=True, slots=True)
class SpeedFigures:
    """The columns of the paper's Table 4."""

    vision_s: float  # T_VE
    prompt_tokens_per_s: float  # S_prompt
    generated_tokens_per_s: float  # S_gen
    prompt_tokens: int
    generated_tokens: int  # 64, as in the table; fewer if the model generates nothing
    first_token_s: float  # not in the table: from the question, with its picture unread, to the first token

    @property
    def total_s(self) -> float:
        """T_total of the table: one picture, the prompt and 64 tokens."""
        prompt = self.prompt_tokens / self.prompt_tokens_per_s if self.prompt_tokens_per_s else 0.0
        speed = self.generated_tokens_per_s
        return self.vision_s + prompt + (settings.SPEED_ANSWER_TOKENS / speed if speed else 0.0)


def run(engine: Engine, system: str = settings.SYSTEM) -> SpeedFigures:
    """Measure once. Raises the ImpChatError that ended an answer."""
    turns = (Turn("user", _QUESTION, (fresh_picture(),)),)
    prompt = Prompt(system, turns, key=f"speed-{secrets.token_hex(8)}")
    answers = [_answer(engine, prompt, settings.SPEED_ANSWER_TOKENS)]
    tokens = answers[0].generated_tokens
    while answers[-1].generated_tokens and tokens < settings.SPEED_ANSWER_TOKENS:
        answers.append(_answer(engine, prompt, settings.SPEED_ANSWER_TOKENS - tokens))
        tokens += answers[-1].generated_tokens
    first, seconds = answers[0], sum(answer.decode_s for answer in answers)
    # The first token of an answer comes from reading its prompt, before `decode_s` begins.
    steps = sum(max(answer.generated_tokens - 1, 0) for answer in answers)
    speed = steps / seconds if seconds else 0.0
    return SpeedFigures(first.vision_s, first.prompt_tokens_per_s, speed, first.new_tokens, tokens, first.first_token_s)


def _answer(engine: Engine, prompt: Prompt, max_tokens: int) -> Stats:
    """The statistics of one answer of at most `max_tokens` tokens."""
    stats = Stats()
    for event in engine.start(prompt, Sampling(temperature=0.0, max_tokens=max_tokens)).events():
        match event:
            case Finished():
                stats = event.stats
            case Failed(code, values):
                raise ImpChatError(code, **values)
    return stats


def fresh_picture() -> Picture:
    """Random stripes, 640 x 480, which are not in any cache."""
    from PIL import Image

    stripes = Image.frombytes("RGB", (8, 6), secrets.token_bytes(8 * 6 * 3)).resize(
        (640, 480), Image.Resampling.NEAREST
    )
    out = io.BytesIO()
    stripes.save(out, "PNG")
    return Picture(hashlib.sha256(out.getvalue()).hexdigest(), out.getvalue())
