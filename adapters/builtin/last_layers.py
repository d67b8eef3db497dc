"""Training of the layers next to the head."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from pydantic import Field

from adapters.backbone import dequantize_layers, encoder_layers, linear_layers
from adapters.builtin.weights import InPlace
from adapters.errors import AdapterError
from adapters.strategy import strategies

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


@strategies.register("last_layers")
class LastLayers(InPlace):
    """The last layers learn, all below them stays frozen, quantized if it is.

    On a quantized backbone the layers that learn are turned back to float.

    Attributes:
        count: How many layers learn.
    """

    paper: ClassVar[str] = "Lee et al., 2019, arXiv:1911.03090"

    count: int = Field(default=2, ge=1)

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Switch the last layers on.

        Raises:
            AdapterError: The encoder has fewer layers.
        """
        layers = list(encoder_layers(model))
        if self.count > len(layers):
            raise AdapterError(
                f"strategy.count={self.count}, but the backbone has {len(layers)} layers; choose "
                f"1 to {len(layers)}."
            )
        for name in layers[-self.count :]:
            inside = [n for n in linear_layers(model) if n.startswith(f"{name}.")]
            dequantize_layers(model, inside)
            model.get_submodule(name).requires_grad_(True)
        return cast("nn.Module", model)
