"""Small layers between the layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, cast

from pydantic import Field

from adapters.backbone import encoder_parts, linear_shape
from adapters.builtin.weights import InPlace
from adapters.strategy import strategies

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


@strategies.register("bottleneck")
class Bottleneck(InPlace):
    """Small networks inside each layer that narrow, bend and widen again; they stay in the model.

    They start as the identity. No plain weights can express them: they are exported in the graph,
    travel into a student that is cut from the model, and cost time; the ledger says how much.

    Attributes:
        placement: After attention and after the feed-forward part (``houlsby``), after the
            feed-forward part only (``pfeiffer``), or beside the feed-forward part (``parallel``).
        reduction: The model's width divided by that of the narrow part.
        scale: What the added part is multiplied by.
        nonlinearity: The function in the narrow part.
    """

    paper: ClassVar[str] = (
        "Houlsby et al., 2019, arXiv:1902.00751; Pfeiffer et al., 2021, arXiv:2005.00247; "
        "He et al., 2022, arXiv:2110.04366"
    )
    adds_layers: ClassVar[bool] = True

    placement: Literal["houlsby", "pfeiffer", "parallel"] = "pfeiffer"
    reduction: int = Field(default=8, ge=1)
    scale: float = Field(default=1.0, gt=0)
    nonlinearity: Literal["relu", "gelu"] = "gelu"

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Put the added layers behind or beside the linear layers that end a part."""
        from adapters.builtin.added_layers import add_behind, add_beside

        for part in encoder_parts(model):
            end = model.get_submodule(part.feed_forward_end)
            width = linear_shape(end)[1]
            narrow = max(1, width // self.reduction)
            if self.placement == "parallel":
                start = model.get_submodule(part.feed_forward_start)
                add_beside(start, end, width, narrow, self.scale, self.nonlinearity)
                continue
            ends = [end]
            if self.placement == "houlsby":
                ends.append(model.get_submodule(part.attention_end))
            for layer in ends:
                add_behind(layer, width, narrow, self.scale, self.nonlinearity)
        return cast("nn.Module", model)
