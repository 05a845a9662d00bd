"""`impchat doctor --tune`: the result is measured, stored, and used by every engine; the settings do not change what a
model answers."""

from __future__ import annotations

import ctypes
import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from impchat import machine, paths, settings
from impchat.app import App, Resources, tuning_of
from impchat.bundle import Bundle
from impchat.cli import doctor
from impchat.cli.main import main
from impchat.engines import EngineInfo
from impchat.engines.local import tuning
from impchat.engines.local.base import ScheduledEngine
from impchat.engines.local.engine import LocalEngine
from impchat.engines.local.llama import Context, Model, Sampler, binding, default_threads
from impchat.engines.local.scheduler import Scheduler
from impchat.engines.local.tuner import Eyes, Step, Words, choose, measure, thread_counts
from impchat.engines.local.tuning import Tuning
from impchat.engines.local.vision import OnnxVision
from impchat.messages import Sampling
from impchat.models import library
from tests.core.conformance import GREEDY, ask, finished, run
from tests.core.conftest import Draw
from tests.core.hands import copy_model

Capture = pytest.CaptureFixture[str]
OTHER = Tuning(2, 2, flash_attention=True, packed=False)  # differs from the default in everything but repacking


def the_file(data: Path) -> Path:
    [file] = paths.tuning_dir(data).iterdir()
    return file


# Storing


def test_a_result_is_used_where_it_was_measured(demo: Bundle, tmp_path: Path) -> None:
    assert tuning.load(tmp_path, demo) is None
    assert tuning_of(tmp_path, demo, Resources()) == tuning.default(demo)
    file = tuning.save(tmp_path, demo, OTHER)
    assert tuning.load(tmp_path, demo) == OTHER == tuning_of(tmp_path, demo, Resources())
    assert [*paths.tuning_dir(tmp_path).iterdir()] == [file]
    if os.name == "posix":
        assert file.stat().st_mode & 0o777 == 0o600


def test_a_result_is_not_used_for_another_model(demo: Bundle, tmp_path: Path) -> None:
    tuning.save(tmp_path, demo, OTHER)
    for part in ("language", "vision"):
        file = replace(demo.files[part], sha256="0" * 64)
        assert tuning.load(tmp_path, replace(demo, files=demo.files | {part: file})) is None


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"measured_for": {"processor": "Z80"}},
        {"measured_for": {"processors": 4711}},
        {"measured_for": {"versions": {"llama-cpp-python": "0.0.1"}}},
        {"measured_for": []},
        {"tuning": {"threads": 0}},
        {"tuning": {"threads": True}},
        {"tuning": {"vision_threads": 10**6}},
        {"tuning": {"flash_attention": "yes"}},
        {"tuning": {"packed": None}},
        {"tuning": 1},
    ],
)
def test_a_result_of_another_machine_or_with_wrong_values_is_ignored(
    change: dict[str, Any], demo: Bundle, tmp_path: Path
) -> None:
    file = tuning.save(tmp_path, demo, OTHER)
    values = json.loads(file.read_text())
    for key, value in change.items():
        values[key] = values[key] | value if isinstance(value, dict) else value
    file.write_text(json.dumps(values))
    assert tuning.load(tmp_path, demo) is None
    assert tuning_of(tmp_path, demo, Resources()) == tuning.default(demo)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_file_is_ignored_and_replaced(damage: bytes, demo: Bundle, tmp_path: Path) -> None:
    file = tuning.save(tmp_path, demo, OTHER)
    file.write_bytes(damage)
    assert tuning.load(tmp_path, demo) is None
    tuning.save(tmp_path, demo, OTHER)
    assert tuning.load(tmp_path, demo) == OTHER


def test_the_machine_reports_its_processor() -> None:
    assert machine.processor()
    assert 0 <= machine.physical_cores() <= default_threads()
    assert machine.own_memory_bytes() > 0 or sys.platform != "linux"


# Using


def test_an_app_opens_its_engine_with_the_result(demo: Bundle, tmp_path: Path) -> None:
    tuning.save(tmp_path, demo, OTHER)
    with App.open(tmp_path) as app:
        engine = app.engine
        assert isinstance(engine, LocalEngine)
        assert engine.tuning == OTHER
        context: Any = engine._scheduler._context
        assert binding().llama_n_threads(context.handle) == 2


def test_chosen_threads_and_little_memory_win_over_the_result(demo: Bundle, tmp_path: Path) -> None:
    tuning.save(tmp_path, demo, replace(OTHER, packed=True, repacked=True))
    with App.open(tmp_path) as app:
        app.run_with(demo, Resources(threads=1, packed=False))
        engine = app.engine
        assert isinstance(engine, LocalEngine)
        assert engine.tuning == Tuning(1, 1, flash_attention=True, repacked=False, packed=False)


def test_weights_are_repacked_only_if_that_memory_is_free(demo: Bundle, tmp_path: Path, capsys: Capture) -> None:
    tuning.save(tmp_path, demo, replace(OTHER, repacked=True))
    assert tuning_of(tmp_path, demo, Resources()).repacked is library.may_repack(demo)
    huge = replace(demo, files=demo.files | {"language": replace(demo.files["language"], bytes=10**15)})
    assert not library.may_repack(huge)
    assert tuning_of(tmp_path, huge, Resources()) == OTHER
    assert [finding.key for finding in doctor.tuned(tmp_path, huge)] == ["doctor.tuned", "doctor.not_repacked"]


# Measuring


def test_every_combination_is_measured_and_one_is_chosen(demo: Bundle) -> None:
    steps: list[Step] = []
    result = measure(demo, may_repack=True, watch=steps.append, rounds=3, threads=(1, 2))
    assert {(w.flash_attention, w.repacked) for w in result.words} == {*product((False, True), repeat=2)}
    assert all(w.rounds >= 1 and w.read_tokens_s > 0 and w.generate_tokens_s > 0 for w in result.words)
    assert {e.packed for e in result.eyes} == {False, True}
    assert {w.threads for w in result.words} == {e.threads for e in result.eyes} == {1, 2}
    chosen = result.tuning
    assert (chosen.flash_attention, chosen.repacked, chosen.threads) in {
        (w.flash_attention, w.repacked, w.threads) for w in result.words
    }
    assert (chosen.packed, chosen.vision_threads) in {(e.packed, e.threads) for e in result.eyes}
    assert [step.number for step in steps] == [*range(1, steps[0].total + 1)]


def test_a_small_model_is_measured_with_its_default_threads_only(demo: Bundle) -> None:
    assert thread_counts(demo) == (1,)
    large = replace(demo.files["language"], bytes=settings.SMALL_MODEL_BYTES)
    counts = thread_counts(replace(demo, files=demo.files | {"language": large}))
    assert counts[0] == default_threads() == max(counts)
    assert len(counts) == len({*counts})


def test_without_memory_for_it_repacking_is_not_measured(demo: Bundle) -> None:
    result = measure(demo, may_repack=False, watch=lambda step: None, rounds=1)
    assert not any(words.repacked for words in result.words)
    assert not result.tuning.repacked


def words(flash: bool, repacked: bool, threads: int, seconds: float) -> Words:
    """Figures of a combination that takes `seconds` for a question, half of them for reading."""
    read, generate = settings.TUNE_READ_TOKENS * settings.TUNE_READ_WEIGHT, settings.TUNE_ANSWER_TOKENS
    return Words(flash, repacked, threads, read / (seconds / 2), generate / (seconds / 2), 0, 5)


@pytest.mark.parametrize(
    ("measured", "chosen"),
    [
        ([words(True, False, 4, 9.7)], (False, False, 4)),  # hardly faster: the default stays
        ([words(True, False, 4, 9.0)], (True, False, 4)),
        ([words(False, False, 2, 9.0)], (False, False, 2)),
        ([words(False, True, 4, 9.0)], (False, True, 4)),
        ([words(True, False, 4, 9.0), words(False, True, 4, 8.8)], (True, False, 4)),  # not worth the memory
        ([words(True, False, 4, 9.0), words(False, True, 4, 8.0)], (False, True, 4)),
    ],
)
def test_a_combination_is_chosen_if_it_is_clearly_faster(measured: list[Words], chosen: tuple[bool, bool, int]) -> None:
    found = choose(Tuning(4, 4), [words(False, False, 4, 10.0), *measured], [])
    assert (found.flash_attention, found.repacked, found.threads) == chosen
    assert found.vision_threads == found.threads


@pytest.mark.parametrize(
    ("packed", "fewer", "unpacked", "chosen"),
    [
        (1.0, 1.2, 2.0, (True, 4)),
        (1.0, 0.98, 2.0, (True, 4)),
        (1.0, 0.8, 2.0, (True, 2)),
        (1.0, 1.2, 1.02, (False, 4)),  # packing is not worth the memory
    ],
)
def test_the_eyes_are_packed_if_that_is_clearly_faster(
    packed: float, fewer: float, unpacked: float, chosen: tuple[bool, int]
) -> None:
    eyes = [Eyes(True, 4, packed, 0), Eyes(True, 2, fewer, 0), Eyes(False, 4, unpacked, 0)]
    found = choose(Tuning(4, 4), [words(False, False, 4, 1.0)], eyes)
    assert (found.packed, found.vision_threads) == chosen


# The command


def test_doctor_tunes_and_then_shows_the_result(demo: Bundle, tmp_path: Path, capsys: Capture) -> None:
    assert main(["--data", str(tmp_path), "doctor"]) == 0
    assert "Speed settings, the defaults" in capsys.readouterr().out
    assert main(["--data", str(tmp_path), "doctor", "--tune"]) == 0
    out, err = capsys.readouterr()
    assert "flash attention" in out and "Speed settings, measured on this machine" in out
    assert "Step 1 of" in err and str(the_file(tmp_path)) in err
    stored = tuning.load(tmp_path, demo)
    assert stored is not None
    assert main(["--data", str(tmp_path), "doctor"]) == 0
    assert f"measured on this machine: threads {stored.threads}," in capsys.readouterr().out


class Impatient(io.StringIO):
    """An error stream that presses Ctrl-C when the seventh step is announced."""

    def write(self, text: str) -> int:
        if "Step 7" in text:
            signal.raise_signal(signal.SIGINT)
        return super().write(text)


def test_ctrl_c_keeps_the_earlier_result(demo: Bundle, tmp_path: Path) -> None:
    before = tuning.save(tmp_path, demo, OTHER).read_bytes()
    with redirect_stderr(Impatient()) as seen:
        assert main(["--data", str(tmp_path), "doctor", "--tune"]) == 130
    assert "the earlier result" in seen.getvalue().splitlines()[-1]
    assert the_file(tmp_path).read_bytes() == before
    assert tuning.load(tmp_path, demo) == OTHER


def test_tuning_a_server_is_refused_in_one_sentence(tmp_path: Path, capsys: Capture) -> None:
    assert main(["--data", str(tmp_path), "doctor", "--tune", "--server", "http://127.0.0.1:9"]) == 2
    [sentence] = capsys.readouterr().err.splitlines()
    assert "measures this machine" in sentence


# The same answers

CLOSE = 0.05  # logits: below it, rounding decides between the two best tokens
QUESTIONS = ("What is in the picture?", "What colour is the circle?", "Where is the circle?", "有几个圆形？")


class NotingModel:
    """A Model whose samplers note by how much the best logit of each step exceeds the second best."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.margins: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def sampler(self, sampling: Sampling, seed: int) -> NotingSampler:
        return NotingSampler(self._model.sampler(sampling, seed), self.margins)


class NotingSampler:
    def __init__(self, sampler: Sampler, margins: list[float]) -> None:
        self._sampler = sampler
        self._margins = margins

    def pick(self, context: Context, row: int) -> int:
        second, best = np.sort(context.logits(row))[-2:]
        self._margins.append(float(best - second))
        return self._sampler.pick(context, row)

    def accept(self, token: int) -> None:
        self._sampler.accept(token)

    def free(self) -> None:
        self._sampler.free()


@pytest.fixture(scope="module")
def four_bits(demo: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The demo in q4_0, a type that llama.cpp repacks on every usual processor."""
    target = copy_model(demo.path, tmp_path_factory.mktemp("tuning") / "demo")
    language = target / demo.files["language"].name
    llama = binding()
    how = llama.llama_model_quantize_default_params()
    how.ftype, how.allow_requantize, how.nthread = llama.LLAMA_FTYPE_MOSTLY_Q4_0, True, 1
    source = os.fsencode(demo.language)
    assert llama.llama_model_quantize(source, os.fsencode(language), ctypes.byref(how)) == 0
    return replace(demo, path=target)


def answers(engine: ScheduledEngine, draw: Draw) -> Iterator[tuple[int, ...]]:
    """The token ids of greedy answers."""
    for colour, question in product(("red", "blue"), QUESTIONS):
        events = run(engine.start(ask(question, draw(colour), key=colour + question), GREEDY))
        yield finished(events).tokens


@pytest.fixture(scope="module")
def reference(four_bits: Bundle, draw: Draw) -> list[tuple[tuple[int, ...], list[float]]]:
    """For each question, the tokens of the answer with the default settings, and the margin of each."""
    model = NotingModel(Model(four_bits.language))
    context = Context(cast(Any, model)._model, 2, four_bits.context_tokens, settings.BATCH_TOKENS, 1)
    vision, tokens = OnnxVision(four_bits, 1), four_bits.context_tokens
    info = EngineInfo("local", four_bits.id, tokens, True, four_bits.image.tokens, four_bits.sampling)
    engine = ScheduledEngine(info, Scheduler(four_bits, cast(Any, model), context, vision, 2, tokens))
    found = []
    for answer in answers(engine, draw):
        found.append((answer, [*model.margins]))
        model.margins.clear()
    engine.close()
    return found


@pytest.mark.parametrize(
    "settings",
    [Tuning(1, 1, *switches) for switches in product((False, True), repeat=3)]
    + [Tuning(2, 2), Tuning(2, 1, True, True), Tuning(1, 1, unified=True)],
    ids=str,
)
def test_the_greedy_answer_is_the_same_up_to_a_close_decision(
    settings: Tuning,
    four_bits: Bundle,
    reference: list[tuple[tuple[int, ...], list[float]]],
    draw: Draw,
) -> None:
    engine = LocalEngine(four_bits, tuning=settings)
    close = 0
    for found, (expected, margins) in zip(answers(engine, draw), reference, strict=True):
        first = next((n for n, margin in enumerate(margins) if margin < CLOSE), len(margins))
        close += first < len(margins)
        assert found[:first] == expected[:first]
        assert first < len(margins) or found == expected
    engine.close()
    assert close <= len(reference) // 2, f"{close} of {len(reference)} answers meet a close decision"
