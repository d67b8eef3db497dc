"""Low-rank updates of linear layers: LoRA and its closest relatives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from adapters.builtin.peft_base import OverPeft
from adapters.errors import NeedsFloatWeightsError
from adapters.strategy import strategies

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn
    from transformers import PreTrainedModel


@strategies.register("lora")
class Lora(OverPeft):
    """Low-rank updates of the encoder's linear layers.

    Attributes:
        rank: Width of the update; a layer learns ``rank * (inputs + outputs)`` weights.
        alpha: The update is scaled by ``alpha / rank``.
        dropout: Probability with which an input of the update is dropped in training.
    """

    paper: ClassVar[str] = "Hu et al., 2021, arXiv:2106.09685"
    #: What a relative sets in peft's configuration besides.
    variant: ClassVar[dict[str, Any]] = {}

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)

    def config(self, model: PreTrainedModel) -> PeftConfig:
        """Return peft's configuration for this model."""
        from peft import LoraConfig

        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=self.layers(model),
            **self.variant,
        )


@strategies.register("token_lora")
class TokenLora(Lora):
    """LoRA that also learns a low-rank update of the table of tokens.

    What a text says hangs on single words at times, and on what they mean in the data at hand. The
    table is most of a small backbone's weights, and plain LoRA leaves it as it is.

    Attributes:
        token_rank: Width of the table's update, which has ``token_rank * (tokens + width)``
            weights.
        token_alpha: The table's update is scaled by ``token_alpha / token_rank``. A token is learnt
            from few texts, so it takes smaller steps than a layer does.
    """

    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16.0, gt=0)
    token_rank: int = Field(default=6, ge=1)
    token_alpha: float = Field(default=1.5, gt=0)

    def config(self, model: PreTrainedModel) -> PeftConfig:
        """Return peft's configuration for this model."""
        table = model.get_input_embeddings()
        (name,) = [name for name, module in model.named_modules() if module is table]
        found: Any = super().config(model)
        found.target_modules = {*found.target_modules, name}
        found.rank_pattern = {name: self.token_rank}
        found.alpha_pattern = {name: self.token_alpha}
        return found


@strategies.register("dora")
class Dora(Lora):
    """LoRA on the direction of each weight column, its magnitude learnt apart."""

    paper: ClassVar[str] = "Liu et al., 2024, arXiv:2402.09353"
    variant: ClassVar[dict[str, Any]] = {"use_dora": True}

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Wrap the target layers in peft's.

        Raises:
            NeedsFloatWeightsError: The backbone is held in 8 bits on a processor.
        """
        if getattr(model, "is_loaded_in_8bit", False) and model.device.type == "cpu":
            raise NeedsFloatWeightsError(
                "peft's DoRA cannot read bitsandbytes' 8-bit weights on a processor. Set "
                "backbone.quantization=nf4 or none, or choose the strategy lora."
            )
        return super().prepare(model)


@strategies.register("rslora")
class RsLora(Lora):
    """LoRA scaled by alpha / sqrt(rank), so that high ranks keep learning."""

    paper: ClassVar[str] = "Kalajdzievski, 2023, arXiv:2312.03732"
    variant: ClassVar[dict[str, Any]] = {"use_rslora": True}

    alpha: float = Field(default=8.0, gt=0)


@strategies.register("vera")
class Vera(OverPeft):
    """Two learnt vectors a layer around one pair of random matrices that all layers share.

    Attributes:
        rank: Width of the random matrices; a layer learns ``rank + outputs`` weights.
        dropout: Probability with which an input of the update is dropped in training.
        start: First value of the vector along the rank.
    """

    paper: ClassVar[str] = "Kopiczko et al., 2023, arXiv:2310.11454"

    rank: int = Field(default=256, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    start: float = Field(default=0.1, gt=0)

    def config(self, model: PreTrainedModel) -> PeftConfig:
        """Return peft's configuration for this model."""
        from peft import VeraConfig

        return VeraConfig(
            r=self.rank,
            vera_dropout=self.dropout,
            d_initial=self.start,
            target_modules=self.layers(model),
        )
