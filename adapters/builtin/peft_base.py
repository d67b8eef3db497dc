"""What all strategies share that peft implements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from adapters.backbone import linear_layers
from adapters.strategy import Strategy

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn
    from transformers import PreTrainedModel


class OverPeft(Strategy):
    """A strategy that one of peft's configurations describes.

    A subclass implements `config`. Which layers are adapted is found by looking at the model, so
    that an architecture needs no entry in a table.

    Attributes:
        targets: Last parts of the names of the layers to adapt, such as ``["query", "value"]``;
            empty for every linear layer of the encoder.
    """

    targets: tuple[str, ...] = Field(default=(), strict=False)

    def config(self, model: PreTrainedModel) -> PeftConfig:
        """Return peft's configuration for this model."""
        raise NotImplementedError

    def layers(self, model: PreTrainedModel) -> list[str]:
        """Return the full names of the layers to adapt.

        Raises:
            AdapterError: The model has no layer of such a name.
        """
        return linear_layers(model, self.targets)

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Wrap the target layers in peft's."""
        from peft import get_peft_model

        wrapped: nn.Module = get_peft_model(model, self.config(model))
        return wrapped

    def finish(self, model: nn.Module) -> PreTrainedModel:
        """Fold the updates into the weights and unwrap."""
        return model.merge_and_unload()  # type: ignore[operator]
