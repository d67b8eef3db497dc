"""Where a student comes from: cut out of its teacher, or another backbone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

from distill.errors import DistillError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


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
                f"distill.student.layers={wanted}, but the teacher has {available} layers; "
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
            f"distill.student.layers={list(listed)} has to list layers of the teacher in rising "
            f"order, counted from 0; it has layers 0 to {available - 1}."
        )
    return listed


def cut(model: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """Return a copy of the model with only some of its layers; embeddings and head come along.

    Args:
        model: A plain classifier; it stays as it is.
        layers: Which layers to keep, from `kept_layers`.

    Raises:
        DistillError: The architecture keeps no list of layers.
    """
    from torch import nn

    student = copy.deepcopy(model)
    stack = layer_stack(student)
    kept = nn.ModuleList(stack[index] for index in layers)
    for name, module in student.named_modules():
        if module is stack:
            student.set_submodule(name, kept)
            break
    for key in ("num_hidden_layers", "n_layers"):
        if hasattr(student.config, key):
            setattr(student.config, key, len(kept))
    types = getattr(student.config, "layer_types", None)
    if types:  # architectures whose layers differ keep a list of their kinds
        student.config.layer_types = [types[index] for index in layers]
    return student


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
    """Return the teacher layer that each student layer answers to: evenly, the last to the last."""
    return tuple((i + 1) * teacher_layers // student_layers - 1 for i in range(student_layers))
