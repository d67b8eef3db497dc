"""Objectives about what the student answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field, PrivateAttr

from distill.objective import LabelForm, Objective, objectives
from distill.signals import Need, Outputs, Signals

if TYPE_CHECKING:
    from torch import Tensor, nn

#: The label of a text that has none; torch's own.
_UNLABELLED = -100


class _FromLabels(Objective):
    """What is learnt from labels: the mean over the texts that have one.

    The form of the labels says what they are: ids ``[batch]``; or 0 and 1 for each of several
    labels ``[batch, labels]``, each of which is a question of its own with the answers no and yes.
    """

    takes: ClassVar[frozenset[LabelForm]] = frozenset({"id", "several"})

    _weights: tuple[float, ...] = PrivateAttr(())

    def weighted(self, weights: Sequence[float]) -> Self:
        """Return this objective with a factor for each label."""
        copy = self.model_copy()
        copy._weights = tuple(weights)
        return copy

    def loss(
        self,
        student: Outputs,
        teacher: Signals | None,
        labels: Tensor,
        mask: Tensor,
        parts: nn.Module | None,
    ) -> Tensor:
        """Return the mean of the texts that have a label, in nats; 0 if none has.

        With factors it is still their number that the sum is divided by, not the factors' sum:
        a batch with a rare label pulls harder than one without.
        """
        ids, known = _ids(labels)
        losses = self._losses(_choices(student.logits, labels), ids) * self._factors(labels)
        return (losses * known).sum() / known.sum().clamp(min=1)

    def _factors(self, labels: Tensor) -> Tensor:
        """Return what each choice counts ``[choices]``; 1 for one without a label."""
        from torch import as_tensor, ones_like

        ids, known = _ids(labels)
        if not self._weights:
            return ones_like(ids)
        own = as_tensor(self._weights, device=ids.device)
        if labels.ndim == 1:
            return own[ids].where(known, 1)
        return own.expand_as(labels).flatten().where(ids == 1, 1)

    def _losses(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Return losses ``[choices]`` of logits ``[choices, outcomes]`` and ids ``[choices]``."""
        raise NotImplementedError


def _choices(logits: Tensor, labels: Tensor) -> Tensor:
    """Return logits ``[choices, outcomes]`` whose softmax answers each choice that is labelled.

    A text with one label is one choice among all labels. One that may have several is as many
    choices as there are labels, between no and yes, whose softmax is the sigmoid of its logit.
    """
    from torch import stack, zeros_like

    if labels.ndim == 1:
        return logits
    odds = logits.flatten()
    return stack([zeros_like(odds), odds], dim=1)


def _ids(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the outcome ``[choices]`` of each choice, and whether it has one."""
    flat = labels.flatten()
    known = flat != _UNLABELLED
    return flat.where(known, 0), known


@objectives.register("ce")
class CrossEntropy(_FromLabels):
    """Cross-entropy with the labels: what a student without a teacher learns from.

    Labels may be numbers ``[batch]`` too, whose cross-entropy under a normal distribution is the
    squared distance.

    Attributes:
        smoothing: Share of a text's probability that is spread evenly over all labels, which keeps
            a model from becoming too sure (Szegedy et al., 2016, arXiv:1512.00567).
    """

    paper: ClassVar[str] = "Bridle, 1990, Neurocomputing, NATO ASI Series F 68, 227-236"
    takes: ClassVar[frozenset[LabelForm]] = Objective.takes

    smoothing: float = Field(default=0.0, ge=0, lt=1)

    def loss(
        self,
        student: Outputs,
        teacher: Signals | None,
        labels: Tensor,
        mask: Tensor,
        parts: nn.Module | None,
    ) -> Tensor:
        """Return the mean of the texts that have a label, in nats; 0 if none has."""
        from torch.nn.functional import mse_loss

        own = student.logits
        if not labels.is_floating_point():
            return super().loss(student, teacher, labels, mask, parts)
        there = ~labels.isnan()
        total = mse_loss(own[there, 0], labels[there].to(own.dtype), reduction="sum")
        return total / there.sum().clamp(min=1)

    def _losses(self, logits: Tensor, ids: Tensor) -> Tensor:
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits, ids, reduction="none", label_smoothing=self.smoothing)


@objectives.register("focal")
class Focal(_FromLabels):
    """Cross-entropy with the labels in which what is answered rightly and surely counts less.

    Attributes:
        gamma: How much less: each text counts by the power of what its label's probability lacks.
            0 is cross-entropy.
    """

    paper: ClassVar[str] = "Lin et al., 2017, arXiv:1708.02002"

    gamma: float = Field(default=2.0, ge=0)

    def _losses(self, logits: Tensor, ids: Tensor) -> Tensor:
        from torch import finfo

        own = logits.log_softmax(-1).gather(-1, ids[:, None])[:, 0]
        # A root of exactly nothing has no gradient.
        lacking = -own.expm1().clamp(max=-finfo(own.dtype).tiny)
        return -own * lacking**self.gamma


@objectives.register("soft_ordinal")
class SoftOrdinal(_FromLabels):
    """Cross-entropy with labels that have an order: a near miss costs less than a far one.

    What is asked for is no single label, but a softmax of the negative distances from it.
    """

    paper: ClassVar[str] = "Díaz and Marathe, 2019, CVPR, Soft Labels for Ordinal Regression"
    takes: ClassVar[frozenset[LabelForm]] = frozenset({"id"})

    def _losses(self, logits: Tensor, ids: Tensor) -> Tensor:
        return soft_ordinal_loss(logits, ids)


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


def _divergences(own: Tensor, told: Tensor, temperature: float) -> Tensor:
    """Return each row's divergence from softened probabilities, times the squared temperature.

    Args:
        own: The student's logits ``[rows, outcomes]``.
        told: The teacher's, likewise.
        temperature: What both are divided by.
    """
    from torch.nn.functional import kl_div, log_softmax

    soft, target = (log_softmax(logits / temperature, dim=-1) for logits in (own, told))
    return kl_div(soft, target, log_target=True, reduction="none").sum(-1) * temperature**2


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
        assert teacher is not None
        if labels.is_floating_point():
            return SquaredLogits().loss(student, teacher, labels, mask, parts)
        if labels.ndim == 2:
            several = Sigmoid(temperature=self.temperature)
            return several.loss(student, teacher, labels, mask, parts)
        return _divergences(student.logits, teacher.logits, self.temperature).mean()


@objectives.register("conditional")
class Conditional(_FromLabels):
    """The teacher where its likeliest answer is the label, and the label where it is not.

    For a teacher that errs on texts whose labels are known, such as one that has forgotten what it
    learnt first: `kl` teaches its errors too. A text without a label has only the teacher. Where
    texts may have several labels, each of them is a choice of its own. A number is neither right
    nor wrong: it is learnt as by `kl`.

    Attributes:
        temperature: What logits are divided by where the teacher teaches. That part of the loss is
            multiplied by its square, so that its gradient keeps its size at any temperature.
    """

    paper: ClassVar[str] = "Meng et al., 2019, arXiv:1904.12399"
    needs: ClassVar[frozenset[Need]] = frozenset({"logits"})
    takes: ClassVar[frozenset[LabelForm]] = Objective.takes

    temperature: float = Field(default=2.0, gt=0)

    def loss(
        self,
        student: Outputs,
        teacher: Signals | None,
        labels: Tensor,
        mask: Tensor,
        parts: nn.Module | None,
    ) -> Tensor:
        """Return the mean over all texts and their labels, in nats."""
        from torch.nn.functional import cross_entropy

        assert teacher is not None
        if labels.is_floating_point():
            return SquaredLogits().loss(student, teacher, labels, mask, parts)
        own, told = _choices(student.logits, labels), _choices(teacher.logits, labels)
        ids, known = _ids(labels)
        taught = _divergences(own, told, self.temperature)
        wrong = known & (told.argmax(-1) != ids)
        losses = taught.where(~wrong, cross_entropy(own, ids, reduction="none"))
        return (losses * self._factors(labels)).mean()


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
