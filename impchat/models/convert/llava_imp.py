"""An Imp based on Phi-2 in transformers: LLaVA whose language model's head has a bias.

`impchat convert --format hf` copies this file into the checkpoint; transformers loads it with trust_remote_code=True.
"""

from torch import nn
from transformers import LlavaConfig, LlavaForConditionalGeneration


class ImpForConditionalGeneration(LlavaForConditionalGeneration):  # type: ignore[misc]  # transformers is not read
    """LlavaForConditionalGeneration with `lm_head.bias`."""

    def __init__(self, config: LlavaConfig) -> None:
        super().__init__(config)
        text = config.text_config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=True)
        self.post_init()
