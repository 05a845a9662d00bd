"""Models other than Imp: two GGUF files become a bundle that answers, or are refused with the reason."""

from __future__ import annotations

import ctypes
import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from impchat import bundle, prompts, settings
from impchat.bundle import Bundle
from impchat.cli.main import main
from impchat.engines import Engine
from impchat.engines.local import mtmd
from impchat.engines.local.engine import LocalEngine
from impchat.engines.local.llama import Model
from impchat.errors import ImpChatError
from impchat.messages import Encoding, Picture, Prompt, Sampling, Turn
from impchat.models.add import add
from tests.convert.tiny_gguf import Tiny, write_language, write_mmproj
from tests.core.conformance import GREEDY, EngineConformance, ask, finished, run, text_of
from tests.core.conftest import draw

__all__ = ["draw"]  # a fixture

LLAVA = Tiny()
MOBILE = Tiny(
    projector="ldp", image_size=336, eyes_layers=2
)  # llama.cpp supports this projector only for 24 x 24 patches
TOKENS = {"mlp": 16, "ldp": 144}


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """language.gguf, which both pairs share, mlp.gguf and ldp.gguf."""
    folder = tmp_path_factory.mktemp("gguf")
    write_language(folder / "language.gguf", LLAVA)
    for tiny in (LLAVA, MOBILE):
        write_mmproj(folder / f"{tiny.projector}.gguf", tiny)
    return folder


@pytest.fixture(scope="session")
def llava(files: Path) -> Bundle:
    return add(files / "language.gguf", files / "mlp.gguf", files / "models" / "mlp", id="tiny-llava")


@pytest.fixture(scope="session")
def mobile(files: Path) -> Bundle:
    """Added through symbolic links, as in a download cache."""
    links = files / "links"
    links.mkdir()
    for name in ("language.gguf", "ldp.gguf"):
        (links / name).symlink_to(files / name)
    return add(links / "language.gguf", links / "ldp.gguf", files / "models" / "ldp", id="tiny-mobile")


@pytest.fixture(scope="session", params=["llava", "mobile"])
def added(request: pytest.FixtureRequest) -> Bundle:
    bundle: Bundle = request.getfixturevalue(request.param)
    return bundle


@pytest.fixture(scope="session")
def engine(added: Bundle) -> Iterator[LocalEngine]:
    engine = LocalEngine(added, threads=1)
    yield engine
    engine.close()


class TestAddedModel(EngineConformance):
    """The conformance suite, with mtmd as the vision encoder."""

    @pytest.fixture
    def engine(self, llava: Bundle) -> Iterator[Engine]:
        engine = LocalEngine(llava, threads=1)
        yield engine
        engine.close()

    @pytest.fixture
    def endless(self, engine: Engine) -> Engine:
        return engine


@pytest.fixture
def model(files: Path) -> Iterator[Model]:
    model = Model(files / "language.gguf")
    yield model
    model.free()


def photo(seed: int = 0, size: tuple[int, int] = (90, 60)) -> Picture:
    draw = np.random.default_rng(seed)
    out = io.BytesIO()
    Image.fromarray(draw.integers(0, 256, (*size[::-1], 3), np.uint8)).save(out, "PNG")
    return Picture(hashlib.sha256(out.getvalue()).hexdigest(), out.getvalue())


def refusal(*given: Any, **named: Any) -> ImpChatError:
    with pytest.raises(ImpChatError) as caught:
        add(*given, **named)
    assert caught.value.sentence("en") and caught.value.sentence("zh")
    return caught.value


def test_the_bundle_contains_all_that_is_needed_to_run_it(added: Bundle, files: Path) -> None:
    projector = added.figures["projector"]
    assert bundle.load(added.path) == added
    added.verify()
    assert (added.family, added.template, added.name) == ("llama", "own", "Tiny Vicuna")
    assert added.source == f"language.gguf, {projector}.gguf"
    assert added.image.tokens == TOKENS[projector] and added.context_tokens == 1024
    assert added.sampling == Sampling(temperature=0.6, top_k=20)  # the recommendations in the file that are valid
    assert added.text.eos == (2,) and not added.text.add_bos  # the template writes <s> itself
    assert added.turns and added.turns.markers == ("<s>",) and added.turns.answer == " ASSISTANT:"
    assert added.mmproj and added.mmproj.samefile(files / f"{projector}.gguf")  # a link: no second copy of gigabytes


def test_the_prompt_is_that_of_the_models_own_template(added: Bundle, model: Model) -> None:
    talk = [("user", "What is red?"), ("assistant", "A circle."), ("user", "What is this?")]
    prompt = Prompt("A chat.", tuple(Turn(role, text) for role, text in talk))  # type: ignore[arg-type]
    pieces = prompts.render(prompt, added.writing, model.tokenize, added.text.eos[0])
    ids = [i for piece in pieces if isinstance(piece, prompts.Tokens) for i in piece.ids]
    text = "<s>A chat. USER: What is red? ASSISTANT: A circle.</s>USER: What is this? ASSISTANT:"
    assert ids == model.tokenize(text, True)


def test_a_marker_typed_by_a_user_stays_text(added: Bundle, model: Model) -> None:
    pieces = prompts.render(ask("</s>USER: <s>"), added.writing, model.tokenize, added.text.eos[0])
    ids = [i for piece in pieces if isinstance(piece, prompts.Tokens) for i in piece.ids]
    assert ids.count(model.bos) == 1 and model.eos not in ids


def test_a_question_about_a_picture_is_answered(engine: LocalEngine, added: Bundle) -> None:
    events = run(engine.start(ask("What is this?", photo()), GREEDY))
    end = finished(events)
    assert Encoding(photo().sha256) in events and text_of(events)
    assert end.stats.prompt_tokens > added.image.tokens
    other = run(engine.start(ask("What is this?", photo(1)), GREEDY))
    assert finished(other).tokens != end.tokens  # the picture makes a difference


def test_a_cached_prompt_is_not_processed_again(engine: LocalEngine) -> None:
    picture = photo(2)
    opened = Prompt(settings.SYSTEM, (Turn("user", "", (picture,)),), "talk", open_turn=True)
    read = run(engine.prefill(opened))[-1].stats  # type: ignore[union-attr]
    first = finished(run(engine.start(ask("What is this?", picture, key="talk"), GREEDY)))
    assert first.stats.cached_tokens == read.prompt_tokens
    before = (Turn("user", "What is this?", (picture,)), Turn("assistant", "?", tokens=first.tokens))
    second = finished(run(engine.start(ask("A circle?", key="talk", turns=before), GREEDY)))
    assert second.stats.cached_tokens >= first.stats.prompt_tokens + first.stats.generated_tokens - 1


def test_the_embeddings_are_those_of_llama_cpp(added: Bundle) -> None:
    """A picture of the encoder's own size is not resized, and two interfaces of mtmd give the same result."""
    model = Model(added.language)
    eyes = mtmd.MtmdVision(added, model, 1)
    picture = photo(3, (added.image.size, added.image.size))
    ours = eyes.encode(picture)
    assert ours.shape == (added.image.tokens, model.hidden) and eyes.cached(picture.sha256) is ours
    assert np.array_equal(ours, by_hand(eyes, picture))
    eyes.close()
    with pytest.raises(ImpChatError) as caught:
        eyes.encode(photo(4))
    assert caught.value.code == "engine.vision_failed"
    eyes.free()
    model.free()


def by_hand(eyes: mtmd.MtmdVision, picture: Picture) -> Any:
    """The embeddings by mtmd's batch calls, which llama.cpp's server uses."""
    binding = mtmd.binding()
    with chunks_of(eyes._projector, b"<__media__>", picture) as (chunk,):
        batch = binding.mtmd_batch_init(eyes._projector._handle)
        assert binding.mtmd_batch_add_chunk(batch, chunk) == 0 and binding.mtmd_batch_encode(batch) == 0
        shape = (binding.mtmd_input_chunk_get_n_tokens(chunk), eyes.hidden)
        found = np.ctypeslib.as_array(binding.mtmd_batch_get_output_embd(batch, chunk), shape).copy()
        binding.mtmd_batch_free(batch)
    return found


@contextmanager
def chunks_of(projector: mtmd.Projector, text: bytes, picture: Picture) -> Iterator[list[Any]]:
    """The chunks that llama.cpp itself makes of a text with one picture."""
    binding = mtmd.binding()
    pixels = np.asarray(Image.open(io.BytesIO(picture.data)).convert("RGB"))
    values = pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
    bitmap = binding.mtmd_bitmap_init(pixels.shape[1], pixels.shape[0], values)
    chunks = binding.mtmd_input_chunks_init()
    given = binding.mtmd_input_text(text, len(text), False, True)
    bitmaps = (ctypes.c_void_p * 1)(bitmap)
    assert binding.mtmd_tokenize(projector._handle, chunks, ctypes.byref(given), bitmaps, 1) == 0
    yield [binding.mtmd_input_chunks_get(chunks, n) for n in range(binding.mtmd_input_chunks_size(chunks))]
    binding.mtmd_input_chunks_free(chunks)
    binding.mtmd_bitmap_free(bitmap)


def test_the_text_around_a_picture_is_tokenised_as_llama_cpp_does(llava: Bundle, model: Model) -> None:
    assert llava.mmproj
    projector = mtmd.Projector(llava.mmproj, model, 1)
    text = b"<s>A chat. USER: <__media__>\nWhat is red? ASSISTANT:"
    prompt = Prompt("A chat.", (Turn("user", "What is red?", (photo(),)),))
    ours = prompts.render(prompt, llava.writing, model.tokenize, 2)
    at = ours.index(photo())
    with chunks_of(projector, text, photo()) as (before, _, after):
        for chunk, pieces in ((before, ours[:at]), (after, ours[at + 1 :])):
            assert projector._ids(chunk) == [i for p in pieces if isinstance(p, prompts.Tokens) for i in p.ids]
    projector.free()


class Impatient(mtmd.Projector):
    """Is cancelled as soon as its first operations are done."""

    def _goes_on(self, operation: int, asking: bool, data: object) -> bool:
        if not asking:
            self.stop()
        return super()._goes_on(operation, asking, data)


def test_encoding_a_picture_can_be_cancelled(files: Path, model: Model) -> None:
    patient = mtmd.Projector(files / "ldp.gguf", model, 1)
    impatient = Impatient(files / "ldp.gguf", model, 1)
    pixels = np.zeros((336, 336, 3), np.uint8)
    patient.see(pixels)
    with pytest.raises(ImpChatError) as caught:
        impatient.see(pixels)
    assert caught.value.code == "engine.vision_failed"
    assert 0 < impatient._asked < patient._asked / 2
    patient.free()
    impatient.free()


def test_a_build_without_mtmd_is_reported_in_a_sentence(llava: Bundle, tmp_path: Path) -> None:
    """As on phones, whose llama-cpp-python does not include the library."""
    code = (
        "import sys; from pathlib import Path; from impchat.engines.local.engine import LocalEngine\n"
        "from impchat.errors import EngineError; from impchat import bundle\n"
        "try: LocalEngine(bundle.load(Path(sys.argv[1])), threads=1)\n"
        "except EngineError as exc: print(exc.code, exc)\n"
    )
    nowhere = {"MTMD_CPP_LIB": str(tmp_path), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", code, str(llava.path)], env=os.environ | nowhere, capture_output=True, text=True
    )
    assert done.stdout.startswith("engine.no_mtmd This model's eyes need the mtmd library"), done.stderr


def test_a_projectors_text_tokens_around_a_picture_are_stored(files: Path, tmp_path: Path) -> None:
    tiny = Tiny(projector="kimivl", extra_tokens=("<|media_start|>", "<|media_end|>"))
    model = Model(write_language(tmp_path / "language.gguf", tiny))
    projector = mtmd.Projector(
        write_mmproj(tmp_path / "mmproj.gguf", tiny, **{"clip.vision.projector.scale_factor": 2}), model, 1
    )
    seen = projector.see(np.zeros((56, 84, 3), np.uint8))
    start, end = model.vocabulary - 2, model.vocabulary - 1
    assert (seen.before, seen.after) == ((start,), (end,)) and len(seen.embeddings) > 1
    projector.free()
    model.free()


def test_a_prompt_has_these_tokens_around_each_picture(added: Bundle, model: Model) -> None:
    assert added.turns
    around = replace(added, turns=replace(added.turns, before=(5, 6), after=(7,)))
    prompt = ask("What is this?", photo(), photo(1))
    pieces = prompts.render(prompt, around.writing, model.tokenize, 2)
    plain = prompts.render(prompt, added.writing, model.tokenize, 2)
    assert len(pieces) == len(plain) + 4
    for picture in (photo(), photo(1)):
        at = pieces.index(picture)
        assert (pieces[at - 1], pieces[at + 1]) == (prompts.Tokens((5, 6)), prompts.Tokens((7,)))
    opened = replace(prompt, open_turn=True, turns=(replace(prompt.turns[0], text=""),))
    assert prompts.render(opened, around.writing, model.tokenize, 2) == pieces[: pieces.index(photo(1)) + 2]


def test_models_that_need_more_than_plain_embeddings_are_refused(files: Path, tmp_path: Path) -> None:
    plain, made = files / "language.gguf", tmp_path / "mmproj.gguf"

    def code(projector: str, language: Path = plain, **keys: Any) -> str:
        tiny = Tiny(projector=projector)
        error = refusal(language, write_mmproj(made, tiny, **keys), tmp_path / "model", id="model")
        assert str(made) in error.sentence()
        return error.code

    pinpoints = [56, 112, 112, 56, 112, 112]
    assert code("mlp", **{"clip.vision.image_grid_pinpoints": pinpoints}) == "mmproj.slices"  # LLaVA-1.6
    assert code("gemma3") == "mmproj.attention"
    assert code("kimivl", **{"clip.vision.projector.scale_factor": 2}) == "mmproj.sizes"
    assert code("ldp") == "add.crashed"  # llama.cpp aborts the process for a grid other than 24 x 24
    qwen = write_language(tmp_path / "qwen2vl.gguf", replace(LLAVA, arch="qwen2vl"))
    assert code("mlp", qwen) == "mmproj.positions"
    assert not (tmp_path / "model").exists()


def test_files_that_do_not_belong_together_are_refused(files: Path, tmp_path: Path) -> None:
    language, eyes, target = files / "language.gguf", files / "mlp.gguf", tmp_path / "model"
    other = write_mmproj(tmp_path / "other.gguf", replace(LLAVA, projected=48))
    found = refusal(language, other, target, id="model")
    assert (found.code, found.values["wanted"], found.values["width"]) == ("mmproj.widths", "64", "48")
    assert refusal(eyes, eyes, target, id="model").code == "add.not_language"
    assert refusal(language, language, target, id="model").code == "add.not_mmproj"
    assert refusal(language, tmp_path / "nothing.gguf", target, id="model").code == "gguf.missing"
    unknown = write_language(tmp_path / "unknown.gguf", replace(LLAVA, arch="tomorrow"))
    found = refusal(unknown, eyes, target, id="model")
    assert (found.code, found.values["architecture"]) == ("add.architecture", "tomorrow")
    assert refusal(language, eyes, target, id="../model").code == "convert.id"
    assert [*tmp_path.glob("*model*")] == []


def test_a_recurrent_language_model_is_refused(files: Path, tmp_path: Path) -> None:
    mamba = write_language(tmp_path / "mamba.gguf", replace(LLAVA, arch="mamba"))
    assert refusal(mamba, files / "mlp.gguf", tmp_path / "model", id="model").code == "add.recurrent"


def test_a_truncated_file_is_refused(files: Path, tmp_path: Path) -> None:
    whole = (files / "mlp.gguf").read_bytes()
    cut = tmp_path / "mmproj.gguf"
    broken = (b"", b"GGML" + whole[4:], whole[:200], b"GGUF\xff\0\0\0" + whole[8:])
    for data, code in (*((data, "gguf.broken") for data in broken), (whole[:-5000], "model.load_failed")):
        cut.write_bytes(data)
        assert refusal(files / "language.gguf", cut, tmp_path / "model", id="model").code == code


def test_a_language_model_without_a_chat_template_needs_one_by_option(files: Path, tmp_path: Path) -> None:
    bare = write_language(tmp_path / "bare.gguf", replace(LLAVA, template=None))
    target = tmp_path / "model"
    found = refusal(bare, files / "mlp.gguf", target, id="model")
    assert found.code == "add.no_template" and "vicuna" in found.sentence()
    assert refusal(bare, files / "mlp.gguf", target, id="model", template="x").code == "add.template_unknown"
    assert refusal(bare, files / "mlp.gguf", target, id="model", template="qwen").code == "add.template_unfit"
    made = add(bare, files / "mlp.gguf", target, id="model", template="vicuna", name="My LLaVA")
    assert made.turns and made.name == "My LLaVA" and made.text.add_bos and made.text.system is None
    model = Model(made.language)
    pieces = prompts.render(ask("What is red?"), made.writing, model.tokenize, 2, model.bos)
    ids = [i for piece in pieces if isinstance(piece, prompts.Tokens) for i in piece.ids]
    assert ids == [1, *model.tokenize(f"{settings.SYSTEM} USER: What is red? ASSISTANT:")]
    model.free()


def test_an_added_model_answers_in_the_terminal(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IMPCHAT_MODEL", raising=False)
    (tmp_path / "photo.png").write_bytes(photo().data)
    gguf = [str(files / "language.gguf"), "--mmproj", str(files / "mlp.gguf")]
    assert main(["--data", str(tmp_path), "models", "add", *gguf, "--id", "mine"]) == 0
    capsys.readouterr()
    words = ["--model", "mine", "--max-tokens", "8", str(tmp_path / "photo.png"), "What is this?"]
    assert main(["--data", str(tmp_path), "ask", *words]) == 0
    assert capsys.readouterr().out.strip()
