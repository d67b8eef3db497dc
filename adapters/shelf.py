"""Several adapters of one backbone, which is held once."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.backbone import head_modules
from adapters.errors import AdapterError, NeedsFloatWeightsError
from adapters.files import (
    adapter_state,
    read_facts,
    read_memory,
    read_state,
    saved_strategy,
)
from adapters.strategy import copy_state, prepare

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


class Shelf:
    """Adapters of one backbone, of which one at a time is in use.

    The backbone's weights are held once. Each adapter stands in a model of its own, whose frozen
    tensors are those of the backbone; so adapters of any strategies, with any labels, stand side by
    side, and switching costs nothing. (peft's own switching asks for one method and one head size
    for all.) A strategy that changes weights of the backbone, such as ``full`` or ``pissa``, holds
    its own version of these.

    Args:
        backbone: From `adapters.backbone.load_backbone`, quantized or not; it is not changed.
    """

    def __init__(self, backbone: PreTrainedModel) -> None:
        self._backbone = backbone
        self._models: dict[str, nn.Module] = {}
        self._labels: dict[str, Sequence[str]] = {}
        self._used = ""

    @property
    def names(self) -> Sequence[str]:
        """The adapters on the shelf, in the order in which they came."""
        return list(self._models)

    @property
    def model(self) -> nn.Module:
        """The model with the adapter in use, in evaluation mode."""
        return self._models[self._used]

    @property
    def labels(self) -> Sequence[str]:
        """The labels of the adapter in use, in the order of their ids."""
        return self._labels[self._used]

    def add(self, name: str, folder: Path) -> None:
        """Put one more adapter on the shelf; the first one is in use at once.

        Args:
            name: What to call it.
            folder: What `adapters.files.save_adapter` wrote.

        Raises:
            AdapterError: The name is taken; the adapter is damaged or of another backbone; or its
                strategy fails, or changes the shared weights of the backbone.
        """
        if name in self._models:
            raise AdapterError(f"There is an adapter {name!r} on the shelf; choose another name.")
        facts = read_facts(folder)
        strategy, labels = saved_strategy(folder), facts["labels"]
        if strategy.needs_float_weights and getattr(self._backbone, "is_quantized", False):
            raise NeedsFloatWeightsError(
                f"The adapter in {folder} ({facts['strategy']['name']}) changes weights that a "
                "quantized backbone freezes; load the backbone in float (quantization none)."
            )
        before = _sums(self._backbone)
        model = prepare(
            with_labels(sharing_copy(self._backbone), labels), strategy, read_memory(folder)
        )
        if _sums(self._backbone) != before:
            raise AdapterError(
                f"The strategy {facts['strategy']['name']!r} writes into the backbone's tensors in "
                "prepare(), and other adapters share them; it has to replace them."
            )
        for weight in model.parameters():
            if weight.requires_grad:
                weight.data = weight.data.clone()
        copy_state(adapter_state(model), read_state(folder))
        self._models[name], self._labels[name] = model.eval(), labels
        self._used = self._used or name

    def use(self, name: str) -> nn.Module:
        """Switch to another adapter.

        Returns:
            The model with it, in evaluation mode.

        Raises:
            AdapterError: There is no such adapter.
        """
        if name not in self._models:
            raise AdapterError(
                f"There is no adapter {name!r} on the shelf; there are {', '.join(self._models)}."
            )
        self._used = name
        return self.model


def sharing_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a model whose parameters are new but share the memory of the old ones."""
    from torch import Tensor

    known: dict[int, Any] = {}
    for module in model.modules():
        for weight in module.parameters(recurse=False):
            # bitsandbytes' parameters carry the facts of their quantization along.
            own = Tensor._make_subclass(type(weight), weight.data, False)
            own.__dict__.update(vars(weight))
            if state := getattr(weight, "quant_state", None):
                # A layer may write into this when it is first called.
                own.quant_state = known[id(state)] = copy.deepcopy(state)
                own.module = None
            known[id(weight)] = own
        for value in vars(getattr(module, "state", object)).values():
            if isinstance(value, Tensor):  # the same 8-bit weights once more
                known[id(value)] = value
    return copy.deepcopy(model, known)


def with_labels(model: PreTrainedModel, labels: Sequence[str]) -> PreTrainedModel:
    """Give a model a head for other labels, of random weights.

    Args:
        model: The backbone with any head; changed in place.
        labels: Label names in the order of their ids.

    Returns:
        The model.
    """
    outline = _outline(model, labels)
    for name in head_modules(model):
        head = outline.get_submodule(name).to_empty(device=model.device)
        model.set_submodule(name, head.eval().requires_grad_(False))
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: index for index, label in enumerate(labels)}
    model.num_labels = len(labels)
    return model


def label_rows(model: PreTrainedModel) -> set[str]:
    """Return the names of the head's parameters that have one row for each label."""
    more = dict(_outline(model, [*model.config.id2label.values(), ""]).named_parameters())
    return {
        name
        for name, weight in model.named_parameters()
        if name in more and len(more[name]) == len(weight) + 1
    }


def _outline(model: PreTrainedModel, labels: Sequence[str]) -> PreTrainedModel:
    """Return a model of the same class for other labels, without memory for its weights."""
    import torch

    config = copy.deepcopy(model.config)
    config.id2label = dict(enumerate(labels))
    with torch.device("meta"):
        outline: PreTrainedModel = type(model)(config)
    return outline


def _sums(model: nn.Module) -> Mapping[str, float]:
    return {name: float(weight.detach().float().sum()) for name, weight in model.named_parameters()}
