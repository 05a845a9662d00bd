"""impchat.engines.local.llama: it uses only names that both versions of the binding have; contexts and samplers."""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import impchat
from impchat.bundle import Bundle
from impchat.engines.local.llama import Context, Model, Outcome, Row, Sampler, _short_runs
from impchat.errors import ModelError
from impchat.messages import Sampling

CORE = Path(impchat.__file__).parent
APART = ("models/convert", "server")  # not part of the phone app
PHONE = Path(__file__).with_name("llama_cpp_0_3_32_names.txt").read_text().split()
GREEDY = Sampling(temperature=0)


def uses_of_the_binding() -> Iterator[tuple[str, str]]:
    """(file, name) of every llama.cpp name that the core uses; fields of its parameters as structure.field."""
    for file in CORE.rglob("*.py"):
        if file.relative_to(CORE).as_posix().startswith(APART):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            name = getattr(node, "attr", None) or getattr(node, "id", None) or getattr(node, "name", None)
            if isinstance(name, str) and re.match(r"(llama|ggml)_(?!cpp\b)[a-z]", name, re.IGNORECASE):
                yield file.name, name
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_set":
                made = ast.unparse(node.args[0])
                structure = re.sub(r".*\.(llama_\w+)_default_params\(\)", r"\1_params", made)
                yield from ((file.name, f"{structure}.{given.arg}") for given in node.keywords)


def test_the_core_uses_only_names_of_the_binding_that_the_phone_has_too() -> None:
    uses = {*uses_of_the_binding()}
    assert {"llama_decode", "llama_model_params.n_gpu_layers"} <= {name for _, name in uses}
    assert {use for use in uses if use[1] not in PHONE} == set()
    assert {file for file, _ in uses} == {"llama.py"}  # the only module that uses the binding


def test_the_binding_leaves_no_file_open() -> None:
    code = "from impchat.engines.local.llama import binding; binding()"
    done = subprocess.run([sys.executable, "-X", "dev", "-c", code], capture_output=True, text=True, cwd=CORE.parent)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="module")
def model(demo: Bundle) -> Iterator[Model]:
    model = Model(demo.language)
    yield model
    model.free()


@pytest.fixture
def context(model: Model) -> Iterator[Context]:
    context = Context(model, sequences=2, context_tokens=512, batch_tokens=128, threads=1)
    yield context
    context.free()


def rows(ids: list[int], start: int = 0, sequence: int = 0) -> list[Row]:
    """`ids` as a batch; a token is sampled after the last."""
    return [Row(sequence, start + n, t, logits=n == len(ids) - 1) for n, t in enumerate(ids)]


def following(model: Model, context: Context, row: int) -> int:
    sampler = Sampler(model, GREEDY, seed=0)
    token = sampler.pick(context, row)
    sampler.free()
    return token


@pytest.mark.parametrize("text", ["What is it?", " Grün 图里 🟥", "a\n\n b\x00c"])
def test_tokens_decode_to_the_same_text(model: Model, text: str) -> None:
    assert b"".join(map(model.piece, model.tokenize(text))).decode() == text


def test_markers_become_tokens_only_if_requested(model: Model, demo: Bundle) -> None:
    [eos] = demo.text.eos
    assert model.tokenize("</s>", True) == [eos]
    assert eos not in model.tokenize("</s>")
    assert model.piece(eos) == b""


def test_an_aborted_decode_changes_nothing_once_its_positions_are_removed(model: Model, context: Context) -> None:
    ids = model.tokenize("What colour is the circle? " * 100)[:100]
    assert context.decode(rows(ids)) is Outcome.DONE
    expected = following(model, context, 99)

    context.remove(0, 50)
    context.abort()
    assert context.decode(rows(ids[50:], start=50)) is Outcome.ABORTED
    context.remove(0, 50)
    context.rearm()
    assert context.decode(rows(ids[50:], start=50)) is Outcome.DONE
    assert following(model, context, 49) == expected


def test_a_batch_that_llama_cpp_refuses_is_reported_as_failed(model: Model, context: Context) -> None:
    assert context.decode(rows([1, 2, 10**6])) is Outcome.FAILED
    context.remove(0, 0)
    assert context.decode(rows([1, 2, 3])) is Outcome.DONE


def test_a_batch_above_n_batch_is_not_passed_to_llama_cpp(context: Context) -> None:
    with pytest.raises(AssertionError):  # llama.cpp would abort the process
        context.decode(rows([1] * 129))


def test_a_shared_prefix_gives_the_same_answer_as_a_decoded_one(model: Model, context: Context) -> None:
    ids = model.tokenize("How many shapes are there in the picture?")
    context.decode(rows(ids))
    expected = following(model, context, len(ids) - 1)
    context.share(0, 1, len(ids) - 1)
    context.decode(rows(ids[-1:], start=len(ids) - 1, sequence=1))
    assert following(model, context, 0) == expected
    context.remove(0, 0)  # the other sequence keeps the shared cells
    context.remove(1, len(ids) - 1)
    context.decode(rows(ids[-1:], start=len(ids) - 1, sequence=1))
    assert following(model, context, 0) == expected


def test_embeddings_and_tokens_share_one_sequence(model: Model, context: Context) -> None:
    embeddings = np.random.default_rng(0).standard_normal((20, model.hidden)).astype(np.float32)
    context.decode(rows(model.tokenize("USER:")))
    start = len(model.tokenize("USER:"))
    assert context.decode([Row(0, start + n) for n in range(20)], embeddings) is Outcome.DONE
    assert context.decode(rows(model.tokenize("What?"), start=start + 20)) is Outcome.DONE


def test_a_seed_repeats_its_choices(model: Model, context: Context) -> None:
    ids = model.tokenize("What is it?")
    context.decode(rows(ids))

    def choices(seed: int) -> list[int]:
        sampler = Sampler(model, Sampling(temperature=2, top_k=0, top_p=1, min_p=0), seed)
        picked = [sampler.pick(context, len(ids) - 1) for _ in range(12)]
        sampler.free()
        return picked

    assert choices(1) == choices(1)
    assert len({tuple(choices(seed)) for seed in range(8)}) > 1


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=5, top_k=1, top_p=1, min_p=0),
        Sampling(temperature=5, top_k=0, top_p=1e-6, min_p=0),
        Sampling(temperature=5, top_k=0, top_p=1, min_p=1),
    ],
    ids=["top_k", "top_p", "min_p"],
)
def test_each_limit_alone_leaves_only_the_most_likely_token(model: Model, context: Context, sampling: Sampling) -> None:
    ids = model.tokenize("What is it?")
    context.decode(rows(ids))
    sampler = Sampler(model, sampling, seed=3)
    assert sampler.pick(context, len(ids) - 1) == following(model, context, len(ids) - 1)
    sampler.free()


def test_the_repeat_penalty_prevents_repetition(model: Model, context: Context) -> None:
    ids = model.tokenize("What is it?")
    context.decode(rows(ids))
    sampler = Sampler(model, Sampling(temperature=0, repeat_penalty=10), seed=0)
    picked = [sampler.pick(context, len(ids) - 1) for _ in range(8)]
    sampler.free()
    assert len({*picked}) > 1


def test_a_file_that_is_no_model_is_refused_with_the_reason(tmp_path: Path) -> None:
    broken = tmp_path / "language.gguf"
    broken.write_bytes(b"not a model")
    with pytest.raises(ModelError) as refused:
        Model(broken)
    assert refused.value.code == "model.load_failed"
    assert str(broken) in str(refused.value) and "magic" in str(refused.value)


def test_memory_is_freed_once_however_often_close_is_called(demo: Bundle) -> None:
    model = Model(demo.language)
    context = Context(model, 1, 256, 64, 1)
    sampler = Sampler(model, GREEDY, 0)
    for thing in (sampler, context, model) * 2:
        thing.free()


def with_pre_tokenizer(name: str, gguf: bytes) -> bytes:
    """The same file with another pre-tokenizer; the model's name is shortened so that all offsets stay the same."""

    def string(value: bytes) -> bytes:
        return len(value).to_bytes(8, "little") + value

    def replaced(data: bytes, key: bytes, change: Callable[[bytes], bytes]) -> bytes:
        at = data.index(string(key)) + 8 + len(key) + 4  # after the type of the value
        size = int.from_bytes(data[at : at + 8], "little")
        return data[:at] + string(change(data[at + 8 : at + 8 + size])) + data[at + 8 + size :]

    before = len(gguf)
    gguf = replaced(gguf, b"tokenizer.ggml.pre", lambda _: name.encode())
    return replaced(gguf, b"general.name", lambda value: value[: len(value) - (len(gguf) - before)])


@pytest.mark.parametrize("pre", ["gpt-4o", "tekken", "deepseek-v3"])
def test_no_text_crashes_the_process_with_any_pre_tokenizer(demo: Bundle, tmp_path: Path, pre: str) -> None:
    file = tmp_path / "language.gguf"
    file.write_bytes(with_pre_tokenizer(pre, demo.language.read_bytes()))
    code = f"""
from pathlib import Path
from threading import Thread
from impchat.engines.local.llama import Model
model = Model(Path({str(file)!r}))
def tokenize():
    for letter in "a", "字", " ", "!", "1", "e\u0301":
        text = letter * 30_000
        print(b"".join(map(model.piece, model.tokenize(text))).decode() == text)
thread = Thread(target=tokenize)
thread.start()
thread.join()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=CORE.parent)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["True"] * 6, "")


def test_ordinary_text_is_tokenised_in_one_call(model: Model) -> None:
    assert _short_runs("Where is it? " * 1000) == ["Where is it? " * 1000]
    chinese = "图里有什么？红色的圆在哪里，" * 500
    assert _short_runs(chinese) == [chinese]
    assert [len(part) for part in _short_runs("a" * 2500 + "12" + " " * 1001)] == [1000, 1000, 1502, 1]
