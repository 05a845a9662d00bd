"""An Imp checkpoint as computed by transformers: the reference for bundles, and what TorchEngine runs.

In: a checkpoint folder or its weights; pictures as model input (`images.model_input`); prompts as pieces of token ids
and embeddings. Out: embeddings, logits, and the tokens of greedy decoding.
This file does not know bundles, llama.cpp or onnxruntime.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impchat.models.convert import vocabulary
from impchat.models.convert.checkpoint import Checkpoint, Folder
from impchat.models.convert.layouts import VisionLayout, Weights, recognise
from impchat.models.convert.parts import Language

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    Floats = NDArray[np.float32]
    Piece = Sequence[int] | Floats  # token ids, or embeddings (positions, hidden)


@dataclass(frozen=True, slots=True)
class Greedy:
    """The result of greedy decoding."""

    tokens: tuple[int, ...]
    margins: tuple[float, ...]  # for each token, the best logit minus the second best


class Reference:
    """An Imp in transformers' SiglipVisionModel and the causal model of its family, with torch's layers for the
    projector; float32 on a CPU, float16 on a GPU."""

    def __init__(self, source: Path | Weights, *, device: str = "cpu", streamed: bool = False) -> None:
        """`streamed`: read the language model's weights again at each run, layer by layer, so that a model of any size
        needs only the memory of its largest layer.

        Raises ModelError as `layouts.recognise`."""
        import torch

        self.path = source if isinstance(source, Path) else None
        self.weights = weights = recognise(Checkpoint(source)) if isinstance(source, Path) else source
        self._at = (torch.device(device), torch.float32 if device == "cpu" else torch.float16)
        self.eyes = self._filled(_eyes(weights), "eyes.")
        self.projector = self._filled(_projector(weights), "projector.")
        self.language = self._streamed(_language(weights)) if streamed else self._filled(_language(weights), "")

    @property
    def hidden(self) -> int:
        """Size of an embedding."""
        return self.weights.language.hidden

    @property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's own tokenizer; only if the source is a folder."""
        assert self.path is not None
        return vocabulary.tokenizer(Folder(self.path), self.weights.layout.family.pre_tokenizer)

    @property
    def layers(self) -> Iterable[Any]:
        """The layers of the language model, in the order in which they run."""
        layers: Iterable[Any] = self.language.model.layers
        return layers

    def embed(self, pixel_values: Floats) -> Floats:
        """Pictures (n, 3, size, size) -> embeddings (n, tokens, hidden)."""
        import torch

        with torch.inference_mode():
            seen = self.eyes(torch.from_numpy(pixel_values).to(*self._at), output_hidden_states=True)
            # The output of the last layer that was kept is used, without the norm that follows it.
            embeddings: Floats = self.projector(seen.hidden_states[-1]).float().cpu().numpy()
        return embeddings

    def cache(self, held: Sequence[tuple[Any, Any]] | None = None) -> Any:
        """A KV cache, empty or with the keys and values (1, heads, positions, size) of each layer."""
        from transformers import DynamicCache

        return DynamicCache(held)

    def read(self, pieces: Sequence[Piece], cache: Any, wanted: Sequence[int]) -> Floats:
        """Read `pieces` after the content of `cache`, and add them to it; None: without a cache.

        Returns the logits (wanted, vocabulary) after the `wanted` positions of `pieces`, counted from 0."""
        import torch

        with torch.inference_mode():
            read = self.language.model(inputs_embeds=self._join(pieces), cache=cache, use_cache=cache is not None)
            at = torch.tensor(wanted, dtype=torch.long, device=self._at[0])
            logits: Floats = self.language.lm_head(read.last_hidden_state[0, at]).float().cpu().numpy()
        return logits

    def logits(self, pieces: Sequence[Piece]) -> Floats:
        """The logits (positions, vocabulary) after each position of a prompt."""
        return self.read(pieces, None, range(sum(len(piece) for piece in pieces)))

    def together(self, prompts: Sequence[Sequence[Piece]], wanted: Sequence[Sequence[int]]) -> list[Floats]:
        """Read `prompts` as one batch. For each, returns the logits (wanted, vocabulary) at `wanted` positions."""
        import torch

        with torch.inference_mode():
            # Attention is causal, so the padding after the shorter ones has no effect.
            rows = torch.nn.utils.rnn.pad_sequence([self._join(pieces)[0] for pieces in prompts], batch_first=True)
            hidden = self.language.model(inputs_embeds=rows, use_cache=False).last_hidden_state
            asked = torch.cat([hidden[n, list(at)] for n, at in enumerate(wanted)])
            logits = self.language.lm_head(asked).float().cpu().split([len(at) for at in wanted])
        return [values.numpy() for values in logits]

    def greedy(self, pieces: Sequence[Piece], count: int, *, eos: Sequence[int] = ()) -> Greedy:
        """The `count` likeliest next tokens, one by one; ends before the first of `eos`."""
        import numpy as np

        tokens: list[int] = []
        margins: list[float] = []
        cache = self.cache()
        last = sum(len(piece) for piece in pieces) - 1
        for _ in range(count):
            logits = self.read(pieces, cache, [last])[0]
            token = int(logits.argmax())
            if token in eos:
                break
            second, best = np.partition(logits, -2)[-2:]
            tokens.append(token)
            margins.append(float(best - second))
            pieces, last = [[token]], 0
        return Greedy(tuple(tokens), tuple(margins))

    def _join(self, pieces: Sequence[Piece]) -> Any:
        import numpy as np
        import torch

        table = self.language.get_input_embeddings()
        rows = [
            torch.from_numpy(np.array(piece)).to(*self._at)
            if isinstance(piece, np.ndarray)
            else table(torch.tensor(list(piece), device=self._at[0]))
            for piece in pieces
        ]
        return torch.cat(rows)[None]

    def _filled(self, module: Any, prefix: str) -> Any:
        """`module`, created without values, filled with the weights whose names begin with `prefix` (those of the
        language model have none). Every parameter must get a value, except those of the unused norm."""
        names = self.weights.names(prefix) if prefix else (n for n in self.weights.names("") if _is_language(n))
        values = {name.removeprefix(prefix): self._value(name) for name in names}
        missing, unexpected = module.load_state_dict(values, strict=False, assign=True)
        assert set(missing) <= {"post_layernorm.weight", "post_layernorm.bias"}, f"no weights for {missing}"
        assert not unexpected, f"no place for {unexpected}"
        if missing:  # a checkpoint may lack the norm after the last layer
            module.post_layernorm = type(module.post_layernorm)(self.weights.eyes.hidden)
        return module.to(*self._at).eval().requires_grad_(False)

    def _streamed(self, module: Any) -> Any:
        """`module`, of which each layer has values only while it runs."""

        def fill(name: str) -> Any:
            def before(layer: Any, _: Any) -> None:
                names = self.weights.names(f"{name}.")
                values = {ours.removeprefix(f"{name}."): self._value(ours) for ours in names}
                layer.load_state_dict(values, strict=True, assign=True)

            return before

        def empty(layer: Any, _: Any, __: Any) -> None:
            layer.to("meta")

        for name, layer in _steps(module):
            layer.register_forward_pre_hook(fill(name))
            layer.register_forward_hook(empty)
        return module.eval().requires_grad_(False)

    def _value(self, name: str) -> Any:
        import torch

        return torch.from_numpy(self.weights.read(name)).to(*self._at)


def _is_language(name: str) -> bool:
    return not name.startswith(("eyes.", "projector."))


def _steps(module: Any) -> Iterator[tuple[str, Any]]:
    """The parts of a causal model that have weights, each small enough for memory, with their names."""
    for name, part in module.model.named_children():
        if name == "layers":
            yield from ((f"model.layers.{n}", layer) for n, layer in enumerate(part))
        elif next(part.parameters(), None) is not None:
            yield f"model.{name}", part
    yield "lm_head", module.lm_head


# The next three functions return modules whose parameters have shapes but no values.


def _language(weights: Weights) -> Any:
    import torch

    kind, config = decoder(weights.language)
    with torch.device("meta"):
        model = kind(config)
    # The tables of its rotary embedding are computed, not stored in checkpoints.
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model


def decoder(size: Language) -> tuple[Any, Any]:
    """The class and configuration of a language model in transformers."""
    return {"phi2": _phi, "qwen2": _qwen2, "phi3": _phi3}[size.family](size)


def _phi(size: Language) -> tuple[Any, Any]:
    from transformers import PhiConfig, PhiForCausalLM

    config = PhiConfig(
        vocab_size=size.vocab,
        hidden_size=size.hidden,
        intermediate_size=size.mlp,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        hidden_act="gelu_new",
        layer_norm_eps=size.norm_eps,
        max_position_embeddings=size.context,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": size.rope_theta,
            "partial_rotary_factor": size.rotary_dims / (size.hidden // size.heads),
        },
    )
    return PhiForCausalLM, config


def _qwen2(size: Language) -> tuple[Any, Any]:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM, Qwen2Config(**_gated(size), use_sliding_window=False)


def _phi3(size: Language) -> tuple[Any, Any]:
    from transformers import Phi3Config, Phi3ForCausalLM

    # The default token ids exceed a small vocabulary, and transformers warns about it.
    no_tokens = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    return Phi3ForCausalLM, Phi3Config(
        **_gated(size),
        **no_tokens,
        original_max_position_embeddings=size.context,
        sliding_window=size.window,
    )


def _gated(size: Language) -> dict[str, Any]:
    """The size fields in configurations of decoders with RMS norms and gated MLPs."""
    return {
        "vocab_size": size.vocab,
        "hidden_size": size.hidden,
        "intermediate_size": size.mlp,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.heads,
        "hidden_act": "silu",
        "rms_norm_eps": size.norm_eps,
        "max_position_embeddings": size.context,
        "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": size.rope_theta},
    }


def tower(size: VisionLayout) -> Any:
    """The configuration of a vision tower in transformers."""
    from transformers import SiglipVisionConfig

    return SiglipVisionConfig(
        hidden_size=size.hidden,
        intermediate_size=size.mlp,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        image_size=size.image_size,
        patch_size=size.patch_size,
        layer_norm_eps=size.norm_eps,
        vision_use_head=False,
    )


def _eyes(weights: Weights) -> Any:
    import torch
    from transformers import SiglipVisionModel

    with torch.device("meta"):
        model = SiglipVisionModel(tower(weights.eyes))
    model.embeddings.position_ids = torch.arange(weights.eyes.tokens)[None]
    return model


def _projector(weights: Weights) -> Any:
    import torch
    from torch import nn

    size = weights.eyes
    with torch.device("meta"):
        first, second = nn.Linear(size.hidden, size.projected), nn.Linear(size.projected, size.projected)
        return nn.Sequential(first, nn.GELU(), second)
