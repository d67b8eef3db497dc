"""Objectives about what the student answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from distill.objective import Objective, objectives
from distill.signals import Need, Outputs, Signals

if TYPE_CHECKING:
    from torch import Tensor, nn

#: The label of a text that has none; torch's own.
_UNLABELLED = -100


@objectives.register("ce")
class CrossEntropy(Objective):
    """Cross-entropy with the labels: what a student without a teacher learns from.

    The form of the labels says what they are: ids ``[batch]``; 0 and 1 for each of several labels
    ``[batch, labels]``, of which each is a question of its own (binary cross-entropy); or numbers
    ``[batch]``, whose cross-entropy under a normal distribution is the squared distance.
    """

    def loss(
        self,
        student: Outputs,
        teacher: Signals | None,
        labels: Tensor,
        mask: Tensor,
        parts: nn.Module | None,
    ) -> Tensor:
        """Return the mean cross-entropy of the texts that have a label, in nats; 0 if none has."""
        from torch.nn.functional import binary_cross_entropy_with_logits as binary
        from torch.nn.functional import cross_entropy, mse_loss

        own = student.logits
        if labels.is_floating_point():
            there = ~labels.isnan()
            total = mse_loss(own[there, 0], labels[there].to(own.dtype), reduction="sum")
        elif labels.ndim == 2:
            there = labels != _UNLABELLED
            total = binary(own[there], labels[there].to(own.dtype), reduction="sum")
        else:
            there = labels != _UNLABELLED
            total = cross_entropy(own, labels, ignore_index=_UNLABELLED, reduction="sum")
        return total / there.sum().clamp(min=1)


@objectives.register("soft_ordinal")
class SoftOrdinal(Objective):
    """Cross-entropy with labels that have an order: a near miss costs less than a far one.

    What is asked for is no single label, but a softmax of the negative distances from it.
    """

    paper: ClassVar[str] = "Díaz and Marathe, 2019, CVPR, Soft Labels for Ordinal Regression"

    def loss(
        self,
        student: Outputs,
        teacher: Signals | None,
        labels: Tensor,
        mask: Tensor,
        parts: nn.Module | None,
    ) -> Tensor:
        """Return the mean cross-entropy of the texts that have a label, in nats; 0 if none has."""
        there = labels != _UNLABELLED
        total = soft_ordinal_loss(student.logits[there], labels[there]).sum()
        return total / there.sum().clamp(min=1)


def soft_ordinal_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy ``[batch]`` with the soft labels of ordered ids, in nats.

    Args:
        logits: ``[batch, labels]``, from the lowest label to the highest.
        labels: Ids ``[batch]``.
    """
    import torch

    places = torch.arange(logits.shape[1], device=logits.device)
    distances = (places[None] - labels[:, None]).abs().to(logits.dtype)
    # Twice the distance: the right label gets three quarters and more of the whole.
    return -((-2 * distances).softmax(-1) * logits.log_softmax(-1)).sum(-1)


@objectives.register("kl")
class KullbackLeibler(Objective):
    """Divergence from the teacher's softened probabilities.

    Where texts may have several labels it is that of each label on its own, as `Sigmoid`, and
    where they have numbers it is the squared distance, as `SquaredLogits`.

    Attributes:
        temperature: What logits are divided by. The loss is multiplied by its square, so that its
            gradient keeps its size at any temperature.
    """

    paper: ClassVar[str] = "Hinton et al., 2015, arXiv:1503.02531"
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
        from torch.nn.functional import kl_div, log_softmax, mse_loss

        assert teacher is not None
        if labels.is_floating_point():
            return mse_loss(student.logits, teacher.logits)
        if labels.ndim == 2:
            several = Sigmoid(temperature=self.temperature)
            return several.loss(student, teacher, labels, mask, parts)
        own = log_softmax(student.logits / self.temperature, dim=-1)
        target = log_softmax(teacher.logits / self.temperature, dim=-1)
        divergence = kl_div(own, target, log_target=True, reduction="batchmean")
        return divergence * self.temperature**2


@objectives.register("mse_logits")
class SquaredLogits(Objective):
    """Squared distance of the logits, before any softmax squeezes them."""

    paper: ClassVar[str] = "Ba and Caruana, 2014, arXiv:1312.6184"
    needs: ClassVar[frozenset[Need]] = frozenset({"logits"})

    def loss(
        self,
        student: Outputs,
        teacher: Signals | None,
        labels: Tensor,
        mask: Tensor,
        parts: nn.Module | None,
    ) -> Tensor:
        """Return the mean squared difference over texts and classes."""
        from torch.nn.functional import mse_loss

        assert teacher is not None
        return mse_loss(student.logits, teacher.logits)


@objectives.register("sigmoid")
class Sigmoid(Objective):
    """Divergence from the teacher label by label, for texts that may have several labels.

    Each label is a question of its own with the answers yes and no; a softmax would have the
    labels of a text compete.

    Attributes:
        temperature: What logits are divided by. The loss is multiplied by its square, so that its
            gradient keeps its size at any temperature.
    """

    paper: ClassVar[str] = "Yang et al., 2023, arXiv:2308.06453"
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
        """Return the mean divergence over texts and labels, in nats, times the squared temperature.

        It is the binary cross-entropy with the teacher's probabilities less their entropy, so that
        it ends at 0.
        """
        from torch.nn.functional import logsigmoid

        assert teacher is not None
        own, target = student.logits / self.temperature, teacher.logits / self.temperature
        yes = target.sigmoid() * (logsigmoid(target) - logsigmoid(own))
        no = (-target).sigmoid() * (logsigmoid(-target) - logsigmoid(-own))
        return (yes + no).mean() * self.temperature**2
