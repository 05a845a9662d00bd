"""All five models, reduced in size, from the files of their repositories to answers equal to those of transformers."""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from impchat import prompts, settings
from impchat.bundle import Bundle
from impchat.engines.local.llama import Model
from impchat.engines.local.vision import OnnxVision
from impchat.errors import ModelError
from impchat.messages import Picture, Prompt, Turn
from impchat.models.convert import checkpoint, convert, layouts, vocabulary
from impchat.models.convert.checkpoint import Checkpoint, Config, Folder
from impchat.models.convert.reference import Reference
from tests.convert import checkpoints
from tests.convert.checkpoints import CORPUS, FAMILY
from tests.convert.test_parity import cosines, engine_tokens, next_logits, picture, pixels, reference_pieces

SAYS = settings.SYSTEM
# If the two best logits differ by less, either token is right: llama.cpp keeps 800 positions' keys in 16 bits.
CLOSE = 0.3
MARKERS = ["<|im_start|>", "<|im_end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<s>", "<image>"]


@dataclass
class Member:
    """A model of the family; its derived files and objects are made once."""

    id: str
    source: Path
    bundle: Bundle

    @cached_property
    def model(self) -> Model:
        return Model(self.bundle.language)

    @cached_property
    def reference(self) -> Reference:
        return Reference(self.source)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_file(str(self.source / checkpoint.TOKENIZER))

    @cached_property
    def plain(self) -> Tokenizer:
        """The same tokenizer without special tokens: markers are text."""
        tokenizer = Tokenizer.from_file(str(self.source / checkpoint.TOKENIZER))
        tokenizer.encode_special_tokens = True
        return tokenizer

    @property
    def tokenize(self) -> prompts.Tokenize:
        """Tokenises as the engine does."""
        return prompts.in_nfc(self.model.tokenize) if self.bundle.text.nfc else self.model.tokenize


@pytest.fixture(scope="module", params=FAMILY)
def member(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    folder = tmp_path_factory.mktemp(request.param)
    source = checkpoints.write(folder / "checkpoint", FAMILY[request.param], shards=3)
    made = Member(request.param, source, convert(source, folder / "model", language="f16", vision="fp16"))
    yield made
    if "model" in vars(made):
        made.model.free()


def bos(member: Member) -> int | None:
    return member.model.bos if member.bundle.text.add_bos else None


def test_a_member_answers_as_transformers_does(member: Member) -> None:
    bundle, compared, distinct = member.bundle, 0, set()
    for prompt in (
        Prompt(SAYS, (Turn("user", "What colour is the circle?", (picture(1),)),)),
        Prompt(
            "", (Turn("user", "图里有几个圆？"), Turn("assistant", "", tokens=(270, 271)), Turn("user", " e\u0301 🙂"))
        ),
    ):
        ours = engine_tokens(bundle, prompt, 40)
        pieces = reference_pieces(bundle, member.reference, prompt)
        if (first := bos(member)) is not None:
            pieces.insert(0, [first])
        theirs = member.reference.greedy(pieces, 40, eos=bundle.text.eos)
        pairs = enumerate(zip(ours, theirs.tokens, strict=True))
        same = next((i for i, (one, other) in pairs if one != other), len(theirs.tokens))
        assert same == len(theirs.tokens) or theirs.margins[same] < CLOSE
        compared += same
        distinct |= {*ours[:same]}
    assert compared > 24 and len(distinct) > 8, "the random model's answer is too short to compare"


def test_a_members_16_bit_vision_encoder_matches_transformers(member: Member) -> None:
    shown = picture(3, 120, 50)
    ours = OnnxVision(member.bundle, threads=1).encode(shown)
    theirs = member.reference.embed(pixels(member.bundle, shown))[0]
    assert ours.shape == (member.bundle.image.tokens, FAMILY[member.id].hidden)
    assert cosines(ours, theirs).min() > 0.9999


def texts() -> list[str]:
    """About 1,000: English, Chinese, code, emoji, runs of spaces, letters composed in several ways. They contain no
    letters of the latest Unicode versions, for which Python's and the tokenizers' own tables differ."""
    draw = random.Random(11)
    letters = [chr(c) for c in (*range(1, 0x560), *range(0x1100, 0x1113), *range(0x1161, 0x1176))]
    letters += [*"你好世界图里有几个圆🙂👍中文é가각", *[" ", "  ", "\n", "'s", "\t"] * 60]
    words = [*" ".join(CORPUS).split(" "), "", "", "\n", "\n\n", "\t", "   ", "e\u0301", "가", "…", "<|end", "</s"]
    fixed = ["", " ", "  three\t\ttabs \n\n\n lines \r\n", " " * 37, "a" + " " * 9 + "b", "👩‍👩‍👧‍👦 🇨🇳 ❤️ ﬁ ½ Ⅷ"]
    mixed = ["".join(draw.choices(letters, k=draw.randint(1, 40))) for _ in range(500)]
    return [*CORPUS, *fixed, *mixed, *(" ".join(draw.choices(words, k=draw.randint(1, 30))) for _ in range(500))]


def test_a_thousand_texts_have_the_source_tokenizers_ids(member: Member) -> None:
    wrong = [t for t in texts() if list(member.tokenize(t)) != member.tokenizer.encode(t, add_special_tokens=False).ids]
    assert not wrong


def test_typed_markers_are_text_for_a_member_and_its_tokenizer(member: Member) -> None:
    draw = random.Random(5)
    typed = [" ".join(draw.choices([*MARKERS, "red", "图", "\n"], k=8)) for _ in range(50)]
    assert [list(member.tokenize(t)) for t in typed] == [
        member.plain.encode(t, add_special_tokens=False).ids for t in typed
    ]
    special = {n for n, t in member.tokenizer.get_added_tokens_decoder().items() if t.special}
    assert not special & {n for t in [*typed, "</s>", "<unk>"] for n in member.tokenize(t)}


def test_the_pieces_of_a_text_join_to_it(member: Member) -> None:
    begin = " " if FAMILY[member.id].layout == "phi3" else ""  # SentencePiece puts a space before every text
    for text in filter(None, texts()[:200]):
        joined = b"".join(member.model.piece(token) for token in member.tokenize(text)).decode()
        assert joined == begin + (unicodedata.normalize("NFC", text) if member.bundle.text.nfc else text)


def as_trained(member: Member, system: str, question: str, answer: str, more: str) -> tuple[str, str]:
    """Two rounds of a conversation about one picture in the format of Imp's training: the text before `<image>`, and
    the text after it."""
    if FAMILY[member.id].layout in ("older", "newer"):
        return f"{system} USER: ", f"\n{question} ASSISTANT: {answer}</s>USER: {more} ASSISTANT:"
    if FAMILY[member.id].layout == "qwen2":
        return f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n", (
            f"\n{question}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"
            f"<|im_start|>user\n{more}<|im_end|>\n<|im_start|>assistant\n"
        )
    return f"<|system|>\n{system}<|end|>\n<|user|>\n", (
        f"\n{question}<|end|>\n<|assistant|>\n{answer}<|end|>\n<|user|>\n{more}<|end|>\n<|assistant|>\n"
    )


def test_a_prompt_has_the_ids_of_the_training_format(member: Member) -> None:
    shown = picture(1)
    for system, question, answer, more in (
        (SAYS, "What colour is the circle?", "The circle is red.", "And  the\nsquare?"),
        ("A chat.", "图里有几个圆？", "图里有三个。", "it's 12 by 24, isn't it?"),
    ):
        prompt = Prompt(system, (Turn("user", question, (shown,)), Turn("assistant", answer), Turn("user", more)))
        pieces = prompts.render(prompt, member.bundle.writing, member.tokenize, member.bundle.text.eos[0], bos(member))
        at = next(i for i, piece in enumerate(pieces) if isinstance(piece, Picture))
        before, after = ([n for p in part for n in p.ids] for part in (pieces[:at], pieces[at + 1 :]))  # type: ignore[union-attr]
        first, rest = as_trained(member, system, question, answer, more)
        begin = [] if bos(member) is None else [bos(member)]
        assert before == begin + member.tokenizer.encode(first, add_special_tokens=False).ids
        assert after == member.tokenizer.encode(rest, add_special_tokens=False).ids


def test_llama_cpps_own_programs_read_the_same_from_the_file(member: Member) -> None:
    head = {name: field.contents() for name, field in gguf.GGUFReader(member.bundle.language).fields.items()}
    config = json.loads((member.source / "config.json").read_text())
    layout = FAMILY[member.id].layout
    arch, pre = {"qwen2": ("qwen2", "qwen2"), "phi3": ("phi3", "default")}.get(layout, ("phi2", "phi-2"))
    assert (head["general.architecture"], head["tokenizer.ggml.pre"]) == (arch, pre)
    assert head["tokenizer.ggml.eos_token_id"] == config["eos_token_id"] == member.bundle.text.eos[0]
    assert head["tokenizer.ggml.add_bos_token"] is (layout == "phi3")
    if "image_token" in config:
        assert head["tokenizer.ggml.tokens"][config["image_token_index"]] == "<image>"
    if "bos_token_id" in config:
        assert head["tokenizer.ggml.bos_token_id"] == config["bos_token_id"]
    template = ImmutableSandboxedEnvironment().from_string(head["tokenizer.chat_template"])
    turns = [{"role": r, "content": c} for r, c in (("user", "<image>\nQ"), ("assistant", "A"), ("user", "MORE"))]
    for system in (SAYS, "S"):
        first_turns = [{"role": "system", "content": system}] if system != SAYS else []
        text = template.render(messages=first_turns + turns, add_generation_prompt=True)
        assert text == "<image>".join(as_trained(member, system, "Q", "A", "MORE"))


@pytest.mark.parametrize("id", ["imp-v1.5-2b", "imp-v1.5-4b"])
def test_wrong_missing_and_extra_tensors_are_named(id: str, tmp_path: Path) -> None:
    name = {
        "imp-v1.5-2b": "model.layers.1.self_attn.k_proj.bias",
        "imp-v1.5-4b": "model.layers.1.mlp.gate_up_proj.weight",
    }[id]

    def refusal(change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> ModelError:
        with pytest.raises(ModelError) as caught:
            layouts.recognise(Checkpoint(checkpoints.write(tmp_path / "checkpoint", FAMILY[id], change)))
        assert name in str(caught.value) and name in caught.value.sentence("zh")
        return caught.value

    assert refusal(lambda tensors, config: tensors.pop(name)).code == "checkpoint.tensors_missing"
    assert refusal(lambda tensors, config: tensors.update({name: tensors[name][:-1]})).code == "checkpoint.tensor_shape"
    name = f"{name}_more"
    assert (
        refusal(lambda tensors, config: tensors.update({name: np.zeros(2)[:0].astype("f4")})).code
        == "checkpoint.tensors_unknown"
    )


@pytest.mark.parametrize(
    ("id", "field", "value"),
    [
        ("imp-v1.5-2b", "use_sliding_window", True),
        ("imp-v1.5-2b", "num_key_value_heads", 1),
        ("imp-v1.5-2b", "tie_word_embeddings", True),
        ("imp-v1.5-2b", "rms_norm_eps", None),
        ("imp-v1.5-4b", "rope_scaling", {"type": "su"}),
        ("imp-v1.5-4b", "hidden_act", "gelu"),
        ("imp-v1.5-3b", "qk_layernorm", True),
        ("imp-v1.5-3b", "mm_vision_tower", "openai/clip-vit-large-patch14"),
    ],
)
def test_an_unsupported_configuration_is_refused(id: str, field: str, value: Any, tmp_path: Path) -> None:
    def change(tensors: dict[str, Any], config: dict[str, Any]) -> None:
        config[field] = value
        if field == "mm_vision_tower":
            del config["vision_tower_config"]

    with pytest.raises(ModelError) as caught:
        layouts.plan(Folder(checkpoints.write(tmp_path / "checkpoint", FAMILY[id], change)))
    assert (caught.value.code, caught.value.values["field"]) == ("checkpoint.config", field)


def test_missing_fields_of_a_configuration_have_the_values_of_the_published_models(tmp_path: Path) -> None:
    config = {"activation_function": "gelu_new", "mm_projector_type": "mlp2x_gelu", "mm_vision_select_layer": -2}
    config["mm_vision_tower"] = "google/siglip-so400m-patch14-384"
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / checkpoint.INDEX).write_text('{"weight_map": {}}')
    folder = Folder(tmp_path)
    language = layouts.phi2.describe(Config(config, tmp_path))
    assert (language.hidden, language.layers, language.heads, language.mlp) == (2560, 32, 32, 10240)
    assert (language.vocab, language.rotary_dims, language.norm_eps, language.context) == (51200, 32, 1e-5, 2048)
    eyes = layouts.describe_eyes(folder, language)
    assert (eyes.hidden, eyes.layers, eyes.heads, eyes.mlp, eyes.tokens) == (1152, 26, 16, 4304, 729)


def test_vocab_json_and_merges_txt_are_equivalent_to_tokenizer_json(tmp_path: Path) -> None:
    path = checkpoints.write(tmp_path / "checkpoint", FAMILY["imp-v1.5-2b"])
    folder = Folder(path)
    size = folder.config.integer("vocab_size")
    before = vocabulary.read(folder, size, "qwen2")
    whole = Tokenizer.from_file(str(path / checkpoint.TOKENIZER))
    checkpoints.to_vocab_and_merges(path)
    assert vocabulary.read(Folder(path), size, "qwen2") == before
    made = vocabulary.tokenizer(Folder(path), "qwen2")
    for text in texts()[:100]:
        assert made.encode(f"<|im_start|>{text}").ids == whole.encode(f"<|im_start|>{text}").ids


def test_a_phi3_tokenizer_whose_markers_keep_line_breaks_gets_another_template(tmp_path: Path) -> None:
    path = checkpoints.write(tmp_path / "checkpoint", FAMILY["imp-v1.5-4b"], shards=1)
    values = json.loads((path / checkpoint.TOKENIZER).read_text())
    for token in values["added_tokens"]:
        token["rstrip"] = False
    (path / checkpoint.TOKENIZER).write_text(json.dumps(values))
    made = convert(path, tmp_path / "phi3", language="f16", vision="fp32")  # a name that llama.cpp does not recognise
    loose = Member("imp-v1.5-4b", path, made)
    assert made.template == "phi3"
    prompt = Prompt(
        "A chat.", (Turn("user", "What?", (picture(1),)), Turn("assistant", "", tokens=(300,)), Turn("user", "Q"))
    )
    pieces = prompts.render(prompt, made.writing, loose.tokenize, made.text.eos[0])
    ids = [n for piece in pieces if not isinstance(piece, Picture) for n in piece.ids]
    end = loose.tokenizer.token_to_id("<|end|>")
    first, rest = as_trained(loose, "A chat.", "What?", "", "Q")
    expected = loose.tokenizer.encode(first, add_special_tokens=False).ids
    expected += loose.tokenizer.encode(rest, add_special_tokens=False).ids
    del ids[len(ids) - 1 - ids[::-1].index(300)]  # the answer's token, which the text above does not contain
    assert ids == expected and end in ids
    loose.model.free()


def say_of_added_tokens(path: Path, **said: Any) -> None:
    """Describe every added token in tokenizer_config.json, with `said` overriding the rules of tokenizer.json, and
    add a token for pictures after them that is missing in tokenizer.json."""
    added = json.loads((path / checkpoint.TOKENIZER).read_text())["added_tokens"]
    config = json.loads((path / checkpoint.TOKENIZER_CONFIG).read_text())
    decoder = {str(token.pop("id")): token | said for token in added}
    plain = {"lstrip": False, "rstrip": False, "normalized": True, "single_word": False, "special": False}
    decoder[str(max(map(int, decoder)) + 1)] = {"content": "<image>"} | plain
    (path / checkpoint.TOKENIZER_CONFIG).write_text(json.dumps(config | {"added_tokens_decoder": decoder}))


@pytest.mark.parametrize("swallows", [True, False])
def test_if_the_two_tokenizer_files_disagree_a_bundle_follows_transformers(swallows: bool, tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    path = checkpoints.write(tmp_path / "checkpoint", FAMILY["imp-v1.5-4b"])
    values = json.loads((path / checkpoint.TOKENIZER).read_text())
    for token in values["added_tokens"]:
        token["rstrip"] = not swallows
    (path / checkpoint.TOKENIZER).write_text(json.dumps(values))
    say_of_added_tokens(path, rstrip=swallows)
    theirs = PreTrainedTokenizerFast.from_pretrained(path)
    made = Member("imp-v1.5-4b", path, convert(path, tmp_path / "phi3", language="f16", vision="fp32"))
    assert made.bundle.template == ("phi3-tight" if swallows else "phi3")
    for system, question in (("A chat.", "What?"), ("图 is\nhere.", " 图里有几个圆？ \n")):
        prompt = Prompt(system, (Turn("user", question),))
        ids = [n for piece in prompts.render(prompt, made.bundle.writing, made.tokenize, 0) for n in piece.ids]
        text = f"<|system|>\n{system}<|end|>\n<|user|>\n{question.strip()}<|end|>\n<|assistant|>\n"
        assert ids == theirs(text, add_special_tokens=False).input_ids
    made.model.free()


def test_the_picture_token_can_have_other_rules_than_the_markers(tmp_path: Path) -> None:
    path = checkpoints.write(tmp_path / "checkpoint", FAMILY["imp-v1.5-4b"])
    say_of_added_tokens(path)
    made = Member("imp-v1.5-4b", path, convert(path, tmp_path / "model", language="f16", vision="fp32"))
    assert made.bundle.template == "phi3-tight"
    image = gguf.GGUFReader(made.bundle.language).fields["tokenizer.ggml.tokens"].contents().index("<image>")
    typed = "Is <image> \n a word?"
    ids = made.tokenize(typed)
    assert image not in ids and b"".join(map(made.model.piece, ids)).decode() == f" {typed}"
    assert ids == made.plain.encode(typed, add_special_tokens=False).ids
    made.model.free()


def test_tokenizers_of_which_only_some_markers_strip_line_breaks_are_refused(tmp_path: Path) -> None:
    path = checkpoints.write(tmp_path / "checkpoint", FAMILY["imp-v1.5-4b"])
    values = json.loads((path / checkpoint.TOKENIZER).read_text())
    next(token for token in values["added_tokens"] if token["content"] == "<|end|>")["rstrip"] = False
    (path / checkpoint.TOKENIZER).write_text(json.dumps(values))
    with pytest.raises(ModelError) as caught:
        vocabulary.read(Folder(path), 10**6, "default")
    assert (caught.value.code, caught.value.values["detail"]) == ("checkpoint.tokenizer", "added_tokens")


def test_bfloat16_is_read_exactly(tmp_path: Path) -> None:
    tiny = FAMILY["imp-v1.5-4b"]
    path = checkpoints.write(tmp_path / "checkpoint", tiny)
    name = "model.layers.0.self_attn.qkv_proj.weight"
    exact = checkpoints.make_tensors(tiny, json.loads((path / "config.json").read_text())["vocab_size"])[name]
    read = Checkpoint(path).read(name)
    assert read.dtype == np.float32 and np.abs(read - exact).max() <= np.abs(exact).max() / 256
    assert np.array_equal(Checkpoint(path).read(name, (3, 7)), read[3:7])


@pytest.mark.parametrize(
    ("id", "language", "least"),
    [("imp-v1.5-2b", "q8_0", 0.998), ("imp-v1.5-2b", "q4_0", 0.9), ("imp-v1.5-4b", "q4_k_m", 0.94)],
)
def test_fewer_bits_lose_little(id: str, language: str, least: float, tmp_path: Path) -> None:
    path = checkpoints.write(tmp_path / "checkpoint", FAMILY[id])
    made = convert(path, tmp_path / "model", language=language, vision="int8")
    assert made.files["language"].type == language
    reference = Reference(path)
    ids = reference.tokenizer.encode("A chat between a curious user and 图里有几个圆", add_special_tokens=False).ids
    assert cosines(next_logits(made, ids), reference.logits([ids])[-1]) >= least
