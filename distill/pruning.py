"""Students that are narrower than their teacher: fewer neurons or fewer attention heads a layer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.errors import DistillError
from distill.students import layer_stack

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from distill.students import Batches

#: What configurations call the width of the feed-forward part.
_WIDTH_KEYS = ("intermediate_size", "hidden_dim")


def prune_feed_forward(model: PreTrainedModel, width: int, batches: Batches) -> PreTrainedModel:
    """Return a copy of the model that keeps the most important neurons of each feed-forward part.

    A neuron matters as much as what it adds to the residual stream varies over tokens: the
    variance of its activation times the squared norm of its outgoing weights. The mean of what
    goes is folded into the bias that comes after, so that a neuron whose activation never changes
    costs nothing to remove. Both are from An et al. (2024, FLAP, arXiv:2312.11983). No label is
    looked at.

    Args:
        model: A plain float classifier whose layers have a feed-forward part of two linear layers,
            such as BERT's, RoBERTa's, DistilBERT's, ELECTRA's or MPNet's; it stays as it is.
        width: How many neurons each layer keeps.
        batches: Inputs of some training texts.

    Raises:
        DistillError: The layers are built otherwise, have fewer neurons, or there are no batches.
    """
    student = copy.deepcopy(model)
    parts = [_feed_forward(student, layer) for layer in layer_stack(student)]
    available = parts[0].outlet.in_features
    key = next((k for k in _WIDTH_KEYS if getattr(student.config, k, None) == available), None)
    if key is None or any(part.outlet.in_features != available for part in parts):
        raise _unlike(model, "name one width for them in its configuration")
    if not 1 <= width <= available:
        raise DistillError(
            f"distill.student.feed_forward={width}, but the feed-forward parts have "
            f"{available} neurons; choose 1 to {available}."
        )
    _narrow(student, parts, width, batches)
    setattr(student.config, key, width)
    _check_reloads(student, f"distill.student.feed_forward={width}")
    return student


def prune_heads(model: PreTrainedModel, heads: int, batches: Batches) -> PreTrainedModel:
    """Return a copy of the model that keeps the most important attention heads of each layer.

    Layers of a trained encoder answer almost as well with fewer heads (Michel et al., 2019,
    arXiv:1905.10650). A head's importance is the sum of that of its outputs, as in
    `prune_feed_forward`.

    Args:
        model: A plain float classifier whose configuration holds the size of a head apart from
            their number (``head_dim``), such as NomicBERT's or EuroBERT's; it stays as it is.
            BERT, RoBERTa, DistilBERT, ELECTRA and MPNet divide the hidden size by the number of
            heads instead: with fewer heads transformers would load them with larger ones.
        heads: How many heads each layer keeps.
        batches: Inputs of some training texts.

    Raises:
        DistillError: The architecture cannot have fewer heads of the same size, has fewer, or
            there are no batches.
    """
    name, available = type(model).__name__, model.config.num_attention_heads
    size = getattr(model.config, "head_dim", None)
    if not 1 <= heads <= available:
        raise DistillError(
            f"distill.student.heads={heads}, but the layers have {available} heads; "
            f"choose 1 to {available}."
        )
    if size is None:
        raise DistillError(
            f"distill.student.heads={heads}: {name} has no place in its configuration for the "
            "size of a head, so a student with fewer heads would load again with larger ones. "
            "Leave it out, and narrow the feed-forward part (distill.student.feed_forward) or keep "
            "fewer layers (distill.student.layers) instead."
        )
    student = copy.deepcopy(model)
    parts = [_attention(student, layer, available * size) for layer in layer_stack(student)]
    _narrow(student, parts, heads, batches, together=size)
    student.config.num_attention_heads = heads
    if getattr(student.config, "num_key_value_heads", None) is not None:
        student.config.num_key_value_heads = heads
    _check_reloads(student, f"distill.student.heads={heads}")
    return student


@dataclass(frozen=True)
class _Part:
    """Linear layers that share an inner dimension: it is given by the inlets, read by the outlet.

    Between them only what works on each value, or on each head, by itself.
    """

    inlets: tuple[nn.Linear, ...]
    outlet: nn.Linear


def _feed_forward(model: PreTrainedModel, layer: nn.Module) -> _Part:
    """Find the two linear layers that a layer ends with, by their shapes."""
    from torch import nn

    width = model.config.hidden_size
    linear = [m for m in layer.modules() if isinstance(m, nn.Linear)]
    if len(linear) < 2:
        raise _unlike(model, "end with two linear layers")
    inlet, outlet = linear[-2:]
    inner = inlet.out_features
    shapes = [(m.in_features, m.out_features) for m in linear]
    gated = inner != width and shapes.count((width, inner)) > 1
    if gated or shapes[-2:] != [(width, inner), (inner, width)]:
        raise _unlike(model, "end with one linear layer that widens and one that goes back")
    return _Part((inlet,), outlet)


def _attention(model: PreTrainedModel, layer: nn.Module, inner: int) -> _Part:
    """Find the linear layers of a layer's attention by the names of architectures with head_dim."""
    for module in layer.modules():
        found: list[Any] = [getattr(module, f"{n}_proj", None) for n in "qkvo"]
        if None not in found:
            widths = [*(proj.out_features for proj in found[:3]), found[3].in_features]
            if widths == [inner] * 4:
                return _Part(tuple(found[:3]), found[3])
    raise _unlike(model, "have queries, keys and values of one width, in four linear layers")


def _narrow(
    model: PreTrainedModel,
    parts: Sequence[_Part],
    wanted: int,
    batches: Batches,
    together: int = 1,
) -> None:
    """Keep the most important groups of ``together`` neighboring inner values, in place."""
    import torch

    for part, (mean, square) in zip(parts, _moments(model, parts, batches), strict=True):
        weight = part.outlet.weight.data
        bias = part.outlet.bias
        # Without a bias nothing can stand in for the mean, so that it counts with the rest.
        spread = square if bias is None else (square - mean**2).clamp(min=0)
        importance = (spread * weight.double().pow(2).sum(dim=0)).view(-1, together).sum(dim=1)
        order = importance.argsort(descending=True, stable=True)
        stays = torch.zeros(len(importance), dtype=torch.bool, device=weight.device)
        stays[order[:wanted]] = True
        stays = stays.repeat_interleave(together)
        if bias is not None:
            bias.data += (weight.double()[:, ~stays] @ mean[~stays]).to(bias.dtype)
        _slice(part.outlet, stays, dim=1)
        for inlet in part.inlets:
            _slice(inlet, stays, dim=0)


def _moments(
    model: PreTrainedModel, parts: Sequence[_Part], batches: Batches
) -> list[tuple[Tensor, Tensor]]:
    """Return the mean of what each part's outlet reads, and of its square, over all real tokens."""
    import torch

    if not batches:
        raise DistillError("Measuring importance needs at least one batch of training texts.")
    zeros = [p.outlet.weight.new_zeros(2, p.outlet.in_features).double() for p in parts]
    seen = torch.zeros(())  # the mask of the batch that is under way

    def watch(total: Tensor) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            values = inputs[0][seen].double()
            total.add_(torch.stack([values.sum(dim=0), values.pow(2).sum(dim=0)]))

        return hook

    handles = [
        part.outlet.register_forward_pre_hook(watch(total))
        for part, total in zip(parts, zeros, strict=True)
    ]
    model.eval()
    tokens = 0
    with torch.no_grad():
        for batch in batches:
            seen = batch["attention_mask"].bool()
            tokens += int(seen.sum())
            model(**batch)
    for handle in handles:
        handle.remove()
    return [(total[0] / tokens, total[1] / tokens) for total in zeros]


def _slice(layer: nn.Linear, stays: Tensor, dim: int) -> None:
    """Keep some outputs (dim 0) or inputs (dim 1) of a linear layer, in place."""
    from torch import nn

    trainable = layer.weight.requires_grad
    kept = layer.weight.data[stays] if dim == 0 else layer.weight.data[:, stays].contiguous()
    layer.weight = nn.Parameter(kept, requires_grad=trainable)
    if dim == 0 and layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.data[stays], requires_grad=trainable)
    layer.out_features, layer.in_features = kept.shape


def _check_reloads(student: PreTrainedModel, setting: str) -> None:
    """Refuse a student whose configuration describes other shapes than it has.

    Raises:
        DistillError: It could be saved, and not be loaded.
    """
    import torch

    with torch.device("meta"):
        outline = type(student)(copy.deepcopy(student.config)).state_dict()
    own = student.state_dict()
    wrong = [n for n, w in outline.items() if n in own and own[n].shape != w.shape]
    if wrong:
        raise DistillError(
            f"{setting}: {type(student).__name__} cannot say this in its configuration; {wrong[0]} "
            "would not load again. Leave it out, or choose a smaller backbone by name "
            "(distill.student.model)."
        )


def _unlike(model: PreTrainedModel, missing: str) -> DistillError:
    return DistillError(
        f"{type(model).__name__} cannot be made narrower: its layers do not {missing}. Leave "
        "distill.student.feed_forward and distill.student.heads out, or choose a smaller backbone "
        "by name (distill.student.model)."
    )
