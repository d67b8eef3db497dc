"""Learnt factors of activations."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from adapters.backbone import encoder_parts
from adapters.builtin.peft_base import OverPeft
from adapters.strategy import strategies

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel

#: What projections to keys and values are called: key, k_proj, value_lin, v.
_KEY_OR_VALUE = re.compile(r"(k|v|key|value)(_\w+)?")


@strategies.register("ia3")
class Ia3(OverPeft):
    """Learnt factors of keys, values and what enters the last feed-forward layer.

    Without `targets` the projections to keys and values are found by their usual names; where keys
    and values are parts of one projection, its whole output is scaled.
    """

    paper: ClassVar[str] = "Liu et al., 2022, arXiv:2205.05638"

    def config(self, model: PreTrainedModel) -> PeftConfig:
        """Return peft's configuration for this model."""
        from peft import IA3Config

        parts = encoder_parts(model)
        ends = [part.feed_forward_end for part in parts]
        layers = self.layers(model)
        if not self.targets:
            attention = [name for part in parts for name in part.attention]
            named = [n for n in attention if _KEY_OR_VALUE.fullmatch(n.rpartition(".")[2])]
            layers = [*(named or attention), *ends]
        return IA3Config(
            target_modules=layers, feedforward_modules=[n for n in ends if n in layers]
        )
