"""What objectives share that hold layers of the student against layers of the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from distill.errors import DistillError
from distill.objective import Objective, Pair, objectives
from distill.signals import Need, Outputs, Signals

if TYPE_CHECKING:
    from torch import Tensor, nn


class Layerwise(Objective):
    """Base of objectives that hold student layers against teacher layers, pair by pair.

    A subclass implements `distance` and names in `needs` the signals that it is given. Where the
    widths differ, a linear projection of the student's states is learnt for each pair and thrown
    away afterwards.

    Attributes:
        map: Pairs of a student layer and the teacher layer that it answers to, counted from 0;
            ``last`` for the last layers alone; null for the objective's own choice.
    """

    #: Whether only the last layers are compared unless `map` says otherwise, and not each student
    #: layer with the one that it was cut from or stands for.
    last_only: ClassVar[bool] = False

    map: (
        Literal["last"]
        | Annotated[
            tuple[Annotated[tuple[int, int], Field(strict=False)], ...],
            Field(strict=False, min_length=1),
        ]
        | None
    ) = None

    def layers(self, pair: Pair) -> Sequence[tuple[int, int]]:
        """Return the pairs of layers that are compared."""
        if isinstance(self.map, tuple):
            return self.map
        if self.map == "last" or self.last_only:
            return [(len(pair.layer_map) - 1, pair.teacher_layers - 1)]
        return super().layers(pair)

    def parts(self, pair: Pair) -> nn.Module | None:
        """Return the projection, one for each pair of layers, where the widths differ.

        Raises:
            DistillError: Teacher and student do not share their tokens, or `map` names a layer
                that does not exist.
        """
        check_tokens(self, pair)
        check_layers(self, pair)
        return projections(pair, len(self.layers(pair)))

    def compared(self) -> Sequence[Need]:
        """Return the signals that are compared; by default all of `needs`."""
        return sorted(self.needs)

    def loss(
        self,
        student: Outputs,
        teacher: Signals | None,
        labels: Tensor,
        mask: Tensor,
        parts: nn.Module | None,
    ) -> Tensor:
        """Return the mean `distance` over signals and pairs of layers."""
        from torch import nn, stack

        distances = []
        for need in self.compared():
            states: Sequence[Tensor] = getattr(student, need)
            if isinstance(parts, nn.ModuleList):
                states = [project(state) for project, state in zip(parts, states, strict=True)]
            for own, target in zip(states, getattr(teacher, need), strict=True):
                distances.append(self.distance(own, target, mask))
        return stack(distances).mean()

    def distance(self, own: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Return how far a student's layer is from a teacher's, a scalar.

        Args:
            own: A signal of the student, projected where the widths differ.
            target: The same of the teacher.
            mask: 1 for tokens and 0 for padding, ``[batch, length]``.
        """
        raise NotImplementedError


def called(objective: Objective) -> str:
    """Return how messages call an objective."""
    cls = type(objective)
    return f"The objective {next(iter(objectives.loaded(cls)), cls.__qualname__)!r}"


def check_tokens(objective: Objective, pair: Pair) -> None:
    """Refuse a pair whose positions do not correspond.

    Raises:
        DistillError: Teacher and student do not share their tokens.
    """
    if not pair.same_tokens:
        raise DistillError(
            f"{called(objective)} compares token by token, but teacher and student have different "
            "tokenizers. Put 'contrast', which compares whole texts, in its place, or choose a "
            "student with the teacher's tokenizer (distill.student.layers=…)."
        )


def check_layers(objective: Objective, pair: Pair) -> None:
    """Refuse a map to layers that are not there.

    Raises:
        DistillError: A layer does not exist; the message names those that do.
    """
    own, theirs = len(pair.layer_map), pair.teacher_layers
    for one, other in objective.layers(pair):
        if not (0 <= one < own and 0 <= other < theirs):
            raise DistillError(
                f"{called(objective)} holds student layer {one} against teacher layer {other}, but "
                f"the student has layers 0 to {own - 1} and the teacher 0 to {theirs - 1}. Mend "
                "its map."
            )


def projections(pair: Pair, count: int) -> nn.ModuleList | None:
    """Return linear layers from the student's width to the teacher's; None if they are equal."""
    from torch import nn

    if pair.student_width == pair.teacher_width:
        return None
    return nn.ModuleList(nn.Linear(pair.student_width, pair.teacher_width) for _ in range(count))


def squared(own: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared difference over the last axis, which is left out.

    torch's own loss takes half the time of a difference, its square and the way back through both.
    """
    from torch.nn.functional import mse_loss

    return mse_loss(own, target, reduction="none").mean(dim=-1)


def token_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of ``[batch, length]`` over all tokens of the batch, padding left out."""
    return (values * mask).sum() / mask.sum()
