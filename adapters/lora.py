"""Low-rank adaptation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from adapters.strategy import Strategy, strategies

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


@strategies.register("lora")
class Lora(Strategy):
    """Low-rank updates of the encoder's linear layers (Hu et al., 2021, arXiv:2106.09685).

    Attributes:
        rank: Width of the update; a layer learns ``rank * (inputs + outputs)`` weights.
        alpha: The update is scaled by ``alpha / rank``.
        dropout: Probability with which an input of the update is dropped in training.
        targets: Last parts of the names of the layers to update, such as ``["query", "value"]``;
            empty for every linear layer of the encoder.
    """

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] = Field(default=(), strict=False)

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Wrap the target layers in peft's LoRA layers."""
        from peft import LoraConfig, get_peft_model

        from adapters.backbone import linear_layers

        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=linear_layers(model, self.targets),
        )
        wrapped: nn.Module = get_peft_model(model, config)
        return wrapped

    def finish(self, model: nn.Module) -> PreTrainedModel:
        """Add the updates to the weights and unwrap."""
        return model.merge_and_unload()  # type: ignore[operator]
