"""Where a student comes from: cut out of its teacher, or another backbone."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from distill.errors import DistillError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    #: Batches of a model's inputs, such as a tokenizer returns them; no labels among them.
    Batches = Sequence[Mapping[str, Tensor]]


def kept_layers(wanted: int | Sequence[int], available: int) -> tuple[int, ...]:
    """Return which layers of a deeper model a student keeps, counted from 0.

    A number keeps the first and the last layer and others evenly between them (Sanh et al., 2019,
    arXiv:1910.01108, keep every other one); a list is taken as it is.

    Raises:
        DistillError: More layers are wanted than there are, or a listed one does not exist.
    """
    if isinstance(wanted, int):
        if not 1 <= wanted <= available:
            raise DistillError(
                f"distill.student.layers={wanted}, but there are {available} to take from; "
                f"choose 1 to {available}."
            )
        if wanted == 1:
            return (available - 1,)
        return tuple(i * (available - 1) // (wanted - 1) for i in range(wanted))
    listed = tuple(wanted)
    if (
        not listed
        or list(listed) != sorted(set(listed))
        or not 0 <= listed[0] <= listed[-1] < available
    ):
        raise DistillError(
            f"distill.student.layers={list(listed)} has to list layers in rising order, "
            f"counted from 0; there are layers 0 to {available - 1}."
        )
    return listed


def chosen_layers(model: PreTrainedModel, wanted: int, batches: Batches) -> tuple[int, ...]:
    """Choose which layers a student keeps by what the teacher loses without the others.

    Layers go one at a time, always the one without which the last hidden states stay nearest to
    the whole model's, by their mean cosine over tokens. Sajjad et al. (2020, arXiv:2004.03844)
    drop layers of a trained encoder by their contribution, and Men et al. (2024, arXiv:2403.03853)
    measure it by the cosine before and after a layer; here it is measured at the end of the model
    and again after every layer that went, since layers stand in for each other. No label is looked
    at, and there is no chance in it.

    Args:
        model: A plain classifier; it stays as it is.
        wanted: How many layers to keep.
        batches: Inputs of some training texts. L layers are cut to n in (L(L + 1) - n(n + 1)) / 2
            passes over them, each cheaper than a pass through the whole model.

    Returns:
        The layers in rising order, counted from 0.

    Raises:
        DistillError: There are not so many layers, no batches, or the architecture keeps no list
            of layers.
    """
    model = _sharing(model).eval()
    kept = tuple(range(len(layer_stack(model))))
    kept_layers(wanted, len(kept))
    if not batches:
        raise DistillError("Choosing layers by measurement needs at least one batch of texts.")
    whole = [_last_states(model, batch) for batch in batches]
    while len(kept) > wanted:
        shorter = [tuple(k for k in kept if k != left) for left in kept]
        # Ties go to the candidate that keeps the earlier layers.
        kept = max(reversed(shorter), key=lambda layers: _likeness(model, layers, batches, whole))
    return kept


def _likeness(
    model: PreTrainedModel, layers: Sequence[int], batches: Batches, whole: Sequence[Tensor]
) -> float:
    """Return the mean cosine between the last hidden states of some layers and of all."""
    from torch.nn.functional import cosine_similarity

    part = _with_layers(_sharing(model), layers)
    cosines = [
        cosine_similarity(_last_states(part, batch), states, dim=-1)
        for batch, states in zip(batches, whole, strict=True)
    ]
    return sum(c.double().sum().item() for c in cosines) / sum(len(c) for c in cosines)


def _sharing(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy with modules and a configuration of its own, and the same weights."""
    weights = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    return copy.deepcopy(model, weights)


def _last_states(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the last hidden states of all tokens but padding, ``[tokens, width]``."""
    import torch

    with torch.inference_mode():
        states: Tensor = model.base_model(**batch).last_hidden_state
    return states[batch["attention_mask"].bool()]


def cut(model: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """Return a copy of the model with only some of its layers; embeddings and head come along.

    Args:
        model: A plain classifier; it stays as it is.
        layers: Which layers to keep, from `kept_layers` or `chosen_layers`.

    Raises:
        DistillError: The architecture keeps no list of layers.
    """
    return _with_layers(copy.deepcopy(model), layers)


def _with_layers(model: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """Leave only some layers in the model, in place."""
    from torch import nn

    stack = layer_stack(model)
    kept = nn.ModuleList(stack[index] for index in layers)
    for place, layer in enumerate(kept):
        for module in layer.modules():  # decoders number their layers, to keep keys and values
            if hasattr(module, "layer_idx"):
                module.layer_idx = place  # type: ignore[assignment]
    for name, module in model.named_modules():
        if module is stack:
            model.set_submodule(name, kept)
            break
    for key in ("num_hidden_layers", "n_layers"):
        if hasattr(model.config, key):
            setattr(model.config, key, len(kept))
    types = getattr(model.config, "layer_types", None)
    if types:  # architectures whose layers differ keep a list of their kinds
        model.config.layer_types = [types[index] for index in layers]
    return model


def layer_stack(model: PreTrainedModel) -> nn.ModuleList:
    """Return the encoder's list of layers, first to last.

    Raises:
        DistillError: The architecture keeps no such list.
    """
    from torch import nn

    count = model.config.num_hidden_layers
    for module in model.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise DistillError(
        f"{type(model).__name__} keeps no list of {count} layers to cut from; choose the student "
        "by name instead (distill.student.model=…)."
    )


def spread(student_layers: int, teacher_layers: int) -> tuple[int, ...]:
    """Return the teacher layer that each student layer answers to: evenly, the last to the last.

    Of a student that is deeper than its teacher several layers answer to one.
    """
    ends = ((i + 1) * teacher_layers // student_layers for i in range(student_layers))
    return tuple(max(0, end - 1) for end in ends)
