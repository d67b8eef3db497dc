"""LoRA that starts from the principal part of each weight."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from adapters.backbone import float_weight, load_backbone
from adapters.builtin.low_rank import Lora
from adapters.strategy import strategies

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


@strategies.register("pissa")
class Pissa(Lora):
    """LoRA whose update starts as the largest singular part of a weight; the rest is frozen.

    On a quantized backbone the checkpoint's own weights are split and the rest is quantized, as the
    paper does (QPiSSA): it is smaller than the whole weight, and so is its rounding error.
    """

    paper: ClassVar[str] = "Meng et al., 2024, arXiv:2404.02948"

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Wrap the target layers and move the principal part of each into its update."""
        from peft.tuners.lora import LoraLayer

        weights = _own_weights(model, self.layers(model))
        wrapped = super().prepare(model)
        for name, layer in model.named_modules():
            if isinstance(layer, LoraLayer):
                _move_principal_part(layer, weights[name])
        # What plain peft has to do with a float backbone before it loads this adapter.
        wrapped.peft_config["default"].init_lora_weights = "pissa"  # type: ignore[index, union-attr]
        return wrapped


def _own_weights(model: PreTrainedModel, names: list[str]) -> dict[str, Tensor]:
    """Return the weights of layers as the checkpoint has them, from before any quantization."""
    from torch import nn
    from torch.random import fork_rng

    here = {name: model.get_submodule(name).weight for name in names}
    folder = Path(model.name_or_path)
    if all(w.is_floating_point() for w in here.values()) or not folder.is_dir():
        return {name: float_weight(model.get_submodule(name)) for name in names}
    with fork_rng(devices=[]):
        plain = load_backbone(folder, list(model.config.id2label.values()))
    found = {}
    for name, weight in here.items():
        own = plain.get_submodule(name)
        # A quantized layer is always torch's kind of linear layer, the checkpoint's may be GPT-2's.
        turned = own.weight if isinstance(own, nn.Linear) else own.weight.T
        found[name] = turned.to(weight.device)
    return found


def _move_principal_part(layer: Any, weight: Tensor) -> None:
    """Split a layer's weight into the update's start and a frozen rest."""
    from peft.utils.other import transpose
    from torch import linalg

    base, rank, scaling = layer.get_base_layer(), layer.r["default"], layer.scaling["default"]
    turned = getattr(layer, "fan_in_fan_out", False)
    weight = transpose(weight.data, turned)
    left, values, right = linalg.svd(weight, full_matrices=False)
    root = (values[:rank] / scaling).sqrt()
    layer.lora_A["default"].weight.data = (root[:, None] * right[:rank]).contiguous()
    layer.lora_B["default"].weight.data = (left[:, :rank] * root).contiguous()
    update = layer.lora_B["default"].weight.data @ layer.lora_A["default"].weight.data
    _replace_weight(base, transpose(weight - scaling * update, turned))


def _replace_weight(base: Any, weight: Tensor) -> None:
    """Give a layer another weight, quantized as the old one was."""
    import bitsandbytes

    old = base.weight
    if old.is_floating_point():
        old.data = weight.contiguous()
    elif isinstance(old, bitsandbytes.nn.Params4bit):
        base.weight = bitsandbytes.nn.Params4bit(
            weight.cpu(),
            requires_grad=False,
            quant_type=old.quant_type,
            blocksize=old.blocksize,
            compress_statistics=old.compress_statistics,
            quant_storage=old.quant_storage,
        ).to(old.device)
        base.quant_state = base.weight.quant_state
    else:
        base.weight = bitsandbytes.nn.Int8Params(
            weight.cpu(), requires_grad=False, has_fp16_weights=False
        ).to(old.device)
        base.state.reset_grads()
        base.state.CB, base.state.SCB = None, None
