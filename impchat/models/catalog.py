"""What is known about models before they are on this machine: the Imp family and the demo.

In: a model's id. Out: an `Entry`: its name, licence, source, sizes and the defaults for its bundle's manifest.
This file does not know which models are on disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from impchat import settings
from impchat.bundle import is_id
from impchat.errors import ModelError
from impchat.messages import Sampling


@dataclass(frozen=True, slots=True)
class Entry:
    """A model of the catalogue. Sizes are computed from the published shapes; 0: unknown."""

    id: str
    name: str  # for display
    licence: str
    source: str  # of its checkpoint; a repository of the hub if `download_bytes` is not 0
    sampling: Sampling = field(default_factory=Sampling)
    context_tokens: int = settings.CONTEXT_TOKENS
    demo: bool = False
    family: str = ""  # of the language model
    template: str = ""  # of the prompt
    image_size: int = 0  # pixels, both sides
    parameters: int = 0  # language model, vision encoder and projector
    download_bytes: int = 0  # of the checkpoint, in 16 bits
    bundle_bytes: int = 0  # of the bundle in the default types, approximate
    cache_bytes: int = 0  # of the KV cache for one token of context, in 16 bits

    @property
    def word(self) -> str:
        """The argument of `impchat models pull` for it."""
        return self.id if self.id in ENTRIES else self.source


def _licence(language: str) -> str:
    """The licence of a model whose language model is `language`: the text that the user accepts."""
    return f"research use only: CC BY NC 4.0 data; LLaVA, SigLIP, {language} and GPT-4 terms"


def _phi2(id: str, name: str, source: str, image_size: int, parameters: int) -> Entry:
    return Entry(
        id,
        name,
        _licence("Phi-2"),
        source,
        family="phi2",
        template="phi2",
        image_size=image_size,
        parameters=parameters,
        download_bytes=round(2 * parameters, -6),
        bundle_bytes=2_300_000_000,  # python -m benchmarks.fullsize
        cache_bytes=32 * 2 * 2560 * 2,
    )


ENTRIES = {
    entry.id: entry
    for entry in (
        Entry(
            settings.DEMO_MODEL,
            "Imp demo @196",
            "Apache-2.0",
            "python -m tools.demo_model.train",
            # It is trained on short answers to questions about drawn shapes: the likeliest words are right.
            sampling=Sampling(temperature=0.0, max_tokens=256),
            demo=True,
        ),
        _phi2(settings.DEFAULT_MODEL, "Imp-v1.5-3B @196", "MILVLG/Imp-v1.5-3B-196", 196, 3_186_323_104),
        _phi2("imp-v1.5-3b", "Imp-v1.5-3B @384", "MILVLG/Imp-v1.5-3B-Phi2", 384, 3_186_937_120),
        _phi2("imp-v1-3b", "Imp-v1-3B @384", "MILVLG/imp-v1-3b", 384, 3_186_937_120),
        Entry(
            "imp-v1.5-2b",
            "Imp-v1.5-2B @384",
            _licence("Qwen1.5"),
            "MILVLG/Imp-v1.5-2B-Qwen1.5",
            context_tokens=2560,  # a picture takes 729 of them; it was trained with this many
            family="qwen2",
            template="qwen",
            image_size=384,
            parameters=2_241_131_808,
            download_bytes=4_482_000_000,
            bundle_bytes=1_740_000_000,
            cache_bytes=24 * 2 * 2048 * 2,
        ),
        Entry(
            "imp-v1.5-4b",
            "Imp-v1.5-4B @384",
            _licence("Phi-3"),
            "MILVLG/Imp-v1.5-4B-Phi3",
            context_tokens=2047,  # its sliding window, which llama.cpp does not support
            family="phi3",
            template="phi3",
            image_size=384,
            parameters=4_231_807_264,
            download_bytes=8_464_000_000,
            bundle_bytes=2_920_000_000,
            cache_bytes=32 * 2 * 3072 * 2,
        ),
    )
}


def memory_bytes(
    entry: Entry | None,
    bundle_bytes: int,
    context_tokens: int,
    slots: int = settings.SLOTS,
    packed: bool = True,
) -> int:
    """Approximate memory that a bundle of this size takes while it runs: its files, the KV cache of all slots at this
    context, and the rest of the program with its buffers. `packed`: see `engines.local.vision.OnnxVision`."""
    cache = entry.cache_bytes if entry else 0
    overhead = settings.MODEL_OVERHEAD_BYTES if packed else settings.UNPACKED_MODEL_OVERHEAD_BYTES
    return bundle_bytes + cache * context_tokens * slots + overhead


def find(text: str) -> Entry:
    """The entry with this id; for `OWNER/NAME`, a repository of the hub, an entry with plain defaults.

    Raises ModelError "model.not_in_catalogue" if it is neither, or the demo, which needs no download."""
    if text in ENTRIES and not ENTRIES[text].demo:
        return ENTRIES[text]
    known = next((entry for entry in ENTRIES.values() if entry.source == text), None)
    if known:
        return known
    owner, _, name = text.partition("/")
    if is_id(owner) and is_id(name):
        id = f"{owner}-{name}" if name in ENTRIES else name  # a copy by another owner never takes a known name
        return Entry(id, name, f"the terms on the page of {text}", text)
    known_ids = ", ".join(entry.id for entry in ENTRIES.values() if not entry.demo)
    raise ModelError("model.not_in_catalogue", model=text, known=known_ids)
