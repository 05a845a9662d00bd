"""What is known of each model before it is on this machine.

In: a model's id. Out: an `Entry`: its name, licence, source and the defaults that go into its bundle's manifest.
This file does not know which models are on disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from impchat import settings
from impchat.messages import Sampling


@dataclass(frozen=True, slots=True)
class Entry:
    """A model by its id."""

    id: str
    name: str  # for people
    licence: str
    source: str  # where its checkpoint comes from
    sampling: Sampling = field(default_factory=Sampling)
    context_tokens: int = settings.CONTEXT_TOKENS
    demo: bool = False


ENTRIES = {
    entry.id: entry
    for entry in (
        Entry(
            settings.DEMO_MODEL,
            "Imp demo @196",
            "Apache-2.0",
            "python -m impchat.models.demo.train",
            # It has learned short answers to questions about drawn shapes: the likeliest words are the right ones.
            sampling=Sampling(temperature=0.0, max_tokens=256),
            demo=True,
        ),
        Entry(
            settings.DEFAULT_MODEL,
            "Imp-v1.5-3B @196",
            "research use only: CC BY NC 4.0 data; LLaVA, SigLIP, Phi-2 and GPT-4 terms",
            "MILVLG/Imp-v1.5-3B-196",
        ),
    )
}
