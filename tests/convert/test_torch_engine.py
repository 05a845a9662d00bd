"""The engine over transformers passes the conformance suite, and answers like a bundle of its checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from impchat import settings
from impchat.engines import Engine
from impchat.engines.local.engine import LocalEngine
from impchat.messages import Encoding, Prompt, Sampling, Turn
from impchat.models.convert import checkpoint, convert
from impchat.models.convert.torch_engine import TorchContext, TorchEngine, TorchSampler
from tests.convert.conftest import Tiny, make_config, make_tensors
from tests.core.conformance import GREEDY, EngineConformance, ask, finished, run, text_of
from tests.core.conftest import Draw, draw

__all__ = ["draw"]  # a fixture


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """A random checkpoint whose answers do not end by themselves, so that a stop can be tested."""
    tiny = Tiny(layers=2)
    config = make_config(tiny, tokenizer)
    tensors = make_tensors(tiny, config["vocab_size"])
    tensors["lm_head.bias"][config["eos_token_id"]] = -100.0
    path = tmp_path_factory.mktemp("torch") / "checkpoint"
    checkpoint.write(path, tensors, config, tokenizer)
    return path


class TestTorchEngine(EngineConformance):
    @pytest.fixture
    def engine(self, source: Path) -> Iterator[Engine]:
        engine = TorchEngine(source, device="cpu")
        yield engine
        engine.close()

    @pytest.fixture
    def endless(self, engine: Engine) -> Engine:
        return engine

    def test_the_next_question_processes_only_its_own_tokens(self, engine: Engine, draw: Draw) -> None:
        first = Turn("user", "What is it?", (draw("red"),))
        prompt = Prompt(settings.SYSTEM, (first,), "a")
        run(engine.prefill(replace(prompt, turns=(replace(first, text=""),), open_turn=True)))
        events = run(engine.start(prompt, GREEDY))
        assert finished(events).stats.cached_tokens > engine.info.image_tokens
        assert not [e for e in events if isinstance(e, Encoding)]
        said = Turn("assistant", text_of(events), tokens=finished(events).tokens)
        then = finished(run(engine.start(replace(prompt, turns=(first, said, Turn("user", "And why?"))), GREEDY))).stats
        whole = finished(events).stats.prompt_tokens + finished(events).stats.generated_tokens
        assert then.cached_tokens >= whole - 1
        assert then.new_tokens < 40

    def test_a_picture_of_another_conversation_is_not_encoded_again(self, engine: Engine, draw: Draw) -> None:
        run(engine.start(ask("What is it?", draw("red"), key="a"), GREEDY))
        events = run(engine.start(ask("How many?", draw("red"), key="b"), GREEDY))
        assert not [e for e in events if isinstance(e, Encoding)]

    def test_a_shared_cache_is_unchanged_when_its_first_conversation_continues(
        self, engine: Engine, draw: Draw
    ) -> None:
        question = ask("What is it?", draw("red"), key="a")
        alone = text_of(run(engine.start(question, GREEDY)))
        both = [engine.start(replace(question, key=key), GREEDY) for key in "bc"]
        assert [text_of(run(handle)) for handle in both] == [alone, alone]


def test_it_answers_like_the_bundle_of_its_checkpoint(source: Path, tmp_path: Path, draw: Draw) -> None:
    bundle = convert(source, tmp_path / "model", language="f16", vision="fp32")
    answers = []
    for engine in (LocalEngine(bundle, threads=1), TorchEngine(source, device="cpu")):
        answers.append(
            [text_of(run(engine.start(ask(q, draw(c)), GREEDY))) for q, c in (("What?", "red"), ("圆", "blue"))]
        )
        engine.close()
    assert answers[0] == answers[1]


def pick(logits: list[float], count: int = 400, **sampling: float) -> dict[int, float]:
    """How often each token is chosen by its logits."""
    sampler = TorchSampler(
        Sampling(**({"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0} | sampling)), seed=5
    )
    chosen = [sampler.choose(np.array(logits, np.float32)) for _ in range(count)]
    return {token: chosen.count(token) / count for token in set(chosen)}


CHANCES = [0.1, 0.4, 0.2, 0.3]
LOGITS = [math.log(chance) for chance in CHANCES]


def test_tokens_are_chosen_by_their_probability() -> None:
    found = pick(LOGITS)
    assert all(abs(found[token] - chance) < 0.08 for token, chance in enumerate(CHANCES))


@pytest.mark.parametrize(
    ("sampling", "left"),
    [
        ({"temperature": 0.0}, {1}),
        ({"top_k": 2}, {1, 3}),
        ({"top_p": 0.6}, {1, 3}),
        ({"top_p": 0.0}, {1}),
        ({"min_p": 0.4}, {1, 2, 3}),
        ({"min_p": 1.0}, {1}),
        ({"temperature": 0.05}, {1, 3}),
    ],
)
def test_unlikely_tokens_are_excluded(sampling: dict[str, float], left: set[int]) -> None:
    assert set(pick(LOGITS, **sampling)) == left


def test_a_repeated_token_becomes_less_likely() -> None:
    class Given(TorchContext):
        def __init__(self) -> None: ...

        def logits(self, row: int) -> np.ndarray:
            return np.array([-1.0, 2.0, 1.5], np.float32)

    sampler = TorchSampler(Sampling(temperature=0, repeat_penalty=1.5), seed=1)
    assert [sampler.pick(Given(), 0) for _ in range(4)] == [1, 2, 1, 1]
