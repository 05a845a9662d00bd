"""An Imp checkpoint as transformers computes it, in float32: what a bundle is compared with.

In: a checkpoint folder; pictures as model input (`images.model_input`); prompts as pieces of token ids and embeddings.
Out: embeddings, logits, and the tokens that greedy decoding gives.
This file does not know bundles, llama.cpp or onnxruntime.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impchat.models.convert.checkpoint import TOKENIZER, Checkpoint
from impchat.models.convert.layouts import Eyes, Weights, recognise
from impchat.models.convert.parts import Language

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Piece = Sequence[int] | Floats  # token ids, or embeddings (positions, hidden)


@dataclass(frozen=True, slots=True)
class Greedy:
    """What greedy decoding gave."""

    tokens: tuple[int, ...]
    margins: tuple[float, ...]  # at each of them: the best logit less the second best


class Reference:
    """An Imp read by transformers' SiglipVisionModel and PhiForCausalLM, with torch's own layers for the projector.

    Raises ModelError as `layouts.recognise` does."""

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        weights = recognise(Checkpoint(path))
        self.tokenizer = Tokenizer.from_file(str(path / TOKENIZER))
        self.language = _language(weights)
        self.eyes = _eyes(weights)
        self.projector = _projector(weights)

    def embed(self, pixel_values: Floats) -> Floats:
        """Pictures (n, 3, size, size) -> embeddings (n, tokens, hidden)."""
        import torch

        with torch.inference_mode():
            seen = self.eyes(torch.from_numpy(pixel_values), output_hidden_states=True)
            # The last layer that is kept is the one that is used, before the norm behind it.
            embeddings: Floats = self.projector(seen.hidden_states[-1]).numpy()
        return embeddings

    def logits(self, pieces: Sequence[Piece]) -> Floats:
        """The logits (positions, vocabulary) behind each position of a prompt."""
        import torch

        with torch.inference_mode():
            logits: Floats = self.language(inputs_embeds=self._join(pieces)).logits[0].numpy()
        return logits

    def greedy(self, pieces: Sequence[Piece], count: int, *, eos: Sequence[int] = ()) -> Greedy:
        """The `count` likeliest next tokens, one after the other; fewer where one of `eos` comes, which is left out."""
        import torch

        tokens: list[int] = []
        margins: list[float] = []
        with torch.inference_mode():
            out = self.language(inputs_embeds=self._join(pieces), use_cache=True)
            for _ in range(count):
                best = out.logits[0, -1].topk(2)
                token = int(best.indices[0])
                if token in eos:
                    break
                tokens.append(token)
                margins.append(float(best.values[0] - best.values[1]))
                out = self.language(torch.tensor([[token]]), past_key_values=out.past_key_values, use_cache=True)
        return Greedy(tuple(tokens), tuple(margins))

    def _join(self, pieces: Sequence[Piece]) -> Any:
        import numpy as np
        import torch

        table = self.language.get_input_embeddings()
        rows = [torch.from_numpy(p) if isinstance(p, np.ndarray) else table(torch.tensor(list(p))) for p in pieces]
        return torch.cat(rows)[None]


def _language(weights: Weights) -> Any:
    from transformers import PhiConfig, PhiForCausalLM

    size: Language = weights.language
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
    return _filled(PhiForCausalLM(config), weights, "model.", "lm_head.")


def _eyes(weights: Weights) -> Any:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    size: Eyes = weights.eyes
    config = SiglipVisionConfig(
        hidden_size=size.hidden,
        intermediate_size=size.mlp,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        image_size=size.image_size,
        patch_size=size.patch_size,
        layer_norm_eps=size.norm_eps,
        vision_use_head=False,
    )
    # Its norm behind the last layer is not used, and a checkpoint need not have it.
    unused = ("post_layernorm.weight", "post_layernorm.bias")
    return _filled(SiglipVisionModel(config), weights, "eyes.", left_out=unused)


def _projector(weights: Weights) -> Any:
    from torch import nn

    size = weights.eyes
    layers = nn.Sequential(nn.Linear(size.hidden, size.projected), nn.GELU(), nn.Linear(size.projected, size.projected))
    return _filled(layers, weights, "projector.")


def _filled(module: Any, weights: Weights, *prefixes: str, left_out: Sequence[str] = ()) -> Any:
    """`module` with the weights whose names begin with `prefixes`; every parameter must get one, but `left_out`."""
    import torch

    values = {}
    for prefix in prefixes:
        for name in weights.names(prefix):
            ours = name.removeprefix(prefix) if prefix in ("eyes.", "projector.") else name
            values[ours] = torch.from_numpy(weights.read(name)).float()
    missing, unexpected = module.load_state_dict(values, strict=False)
    assert set(missing) == set(left_out), f"no weights for {missing}"
    assert not unexpected, f"no place for {unexpected}"
    return module.eval().requires_grad_(False)
