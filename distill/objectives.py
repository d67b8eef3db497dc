"""What a student is asked to do, as losses that declare what they need of the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from adapters.registry import Registry
from distill.signals import Need, Signals

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Outputs:
    """A student's answer to one batch.

    Attributes:
        logits: ``[batch, classes]`` in the order of the data's labels.
        hidden: The output of each layer, first to last, ``[batch, length, width]``; empty unless
            an objective asked for it.
    """

    logits: Tensor
    hidden: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Pair:
    """The facts about student and teacher that an objective may depend on.

    Attributes:
        student_width: Width of the student's hidden states.
        teacher_width: Width of the teacher's hidden states.
        layer_map: For each student layer, the teacher layer that it answers to.
        same_tokens: Whether both see a text as the same tokens.
    """

    student_width: int
    teacher_width: int
    layer_map: tuple[int, ...]
    same_tokens: bool


class Objective(BaseModel):
    """One term of the loss; its fields are its settings.

    A subclass names what it needs of the teacher in `needs` and implements `loss`. One that has
    weights of its own to learn returns them from `parts`.

    Attributes:
        weight: Factor of this term in the sum.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    #: What the teacher has to give; empty if no teacher is needed.
    needs: ClassVar[frozenset[Need]] = frozenset()

    weight: float = Field(default=1.0, gt=0)

    def parts(self, pair: Pair) -> nn.Module | None:
        """Check that the objective can hold for this pair, and return what it has to learn.

        Raises:
            DistillError: It cannot; the message says why and what to do.
        """
        return None

    def loss(
        self,
        student: Outputs,
        teacher: Signals | None,
        labels: Tensor,
        mask: Tensor,
        parts: nn.Module | None,
    ) -> Tensor:
        """Return the loss of one batch, a scalar, before `weight`.

        Args:
            student: The student's answer.
            teacher: The teacher's answer; None only if `needs` is empty.
            labels: Label ids ``[batch]``.
            mask: 1 for tokens and 0 for padding, ``[batch, length]``.
            parts: What `parts` returned.
        """
        raise NotImplementedError


objectives: Registry[type[Objective]] = Registry(
    "objective", group="potstill.objectives", base=Objective
)


def needed(terms: Sequence[Objective]) -> frozenset[Need]:
    """Return what some objectives together need of a teacher; empty if they need none."""
    return frozenset[Need]().union(*(term.needs for term in terms))


@objectives.register("ce")
class CrossEntropy(Objective):
    """Cross-entropy with the labels: what a student without a teacher learns from."""

    def loss(
        self,
        student: Outputs,
        teacher: Signals | None,
        labels: Tensor,
        mask: Tensor,
        parts: nn.Module | None,
    ) -> Tensor:
        """Return the mean cross-entropy of the batch, in nats."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(student.logits, labels)


@objectives.register("kl")
class KullbackLeibler(Objective):
    """Divergence from the teacher's softened probabilities (Hinton et al., 2015, arXiv:1503.02531).

    Attributes:
        temperature: What logits are divided by. The loss is multiplied by its square, so that its
            gradient keeps its size at any temperature.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"logits"})

    temperature: float = Field(default=2.0, gt=0)

    def loss(
        self,
        student: Outputs,
        teacher: Signals | None,
        labels: Tensor,
        mask: Tensor,
        parts: nn.Module | None,
    ) -> Tensor:
        """Return the mean divergence of the batch, in nats, times the squared temperature."""
        from torch.nn.functional import kl_div, log_softmax

        assert teacher is not None
        own = log_softmax(student.logits / self.temperature, dim=-1)
        target = log_softmax(teacher.logits / self.temperature, dim=-1)
        divergence = kl_div(own, target, log_target=True, reduction="batchmean")
        return divergence * self.temperature**2


@objectives.register("hidden")
class Hidden(Objective):
    """Squared distance of hidden states, layer by layer (Jiao et al., 2020, arXiv:1909.10351).

    Each student layer answers to one teacher layer. Where the widths differ, a linear projection
    of the student's states is learnt beside it and thrown away afterwards.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"hidden"})

    def parts(self, pair: Pair) -> nn.Module | None:
        """Return the projection, one for each layer, where the widths differ.

        Raises:
            DistillError: Teacher and student do not share their tokens.
        """
        from torch import nn

        from distill.errors import DistillError

        if not pair.same_tokens:
            raise DistillError(
                "The objective 'hidden' compares token by token, but teacher and student have "
                "different tokenizers. Leave 'hidden' out of distill.objectives, or choose a "
                "student with the teacher's tokenizer (distill.student.layers=…)."
            )
        if pair.student_width == pair.teacher_width:
            return None
        return nn.ModuleList(
            nn.Linear(pair.student_width, pair.teacher_width) for _ in pair.layer_map
        )

    def loss(
        self,
        student: Outputs,
        teacher: Signals | None,
        labels: Tensor,
        mask: Tensor,
        parts: nn.Module | None,
    ) -> Tensor:
        """Return the mean squared difference over layers, width and tokens, padding left out."""
        from torch import nn, stack

        assert teacher is not None
        states: Sequence[Tensor] = student.hidden
        if isinstance(parts, nn.ModuleList):
            states = [project(state) for project, state in zip(parts, states, strict=True)]
        seen = mask.unsqueeze(-1).to(states[0].dtype)
        per_layer = [
            ((own - target) ** 2 * seen).sum() / (seen.sum() * own.shape[-1])
            for own, target in zip(states, teacher.hidden, strict=True)
        ]
        return stack(per_layer).mean()
