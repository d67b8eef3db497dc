"""A student with its objectives, as one module that a training loop can train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from distill.errors import DistillError
from distill.objective import Objective, Pair, asked, call, loss_of, needed
from distill.signals import Answer, Need, Outputs, Signals, TeacherSignals, Wants
from distill.taps import ask
from distill.windows import Windows, answers

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

T = TypeVar("T", bound=Answer)


class Learner(nn.Module):
    """Computes the weighted sum of the objectives for a batch.

    Args:
        student: The model that learns, a plain classifier.
        objectives: The terms of the loss.
        teacher: Where the teacher's answers come from; None if no objective needs them. It has to
            be asked for what `distill.objective.asked` says.
        pair: Facts about both, for the objectives' own checks.

    Attributes:
        progress: Share of the training's steps that have been taken; whoever trains keeps it up to
            date, for objectives that count for a part of the time only.

    Raises:
        DistillError: An objective needs a teacher and there is none, or one that was not asked for
            what it needs, or cannot hold for this pair.
    """

    #: The batch's mean is the loss; a training loop must not divide it again.
    accepts_loss_kwargs = False

    def __init__(
        self,
        student: PreTrainedModel,
        objectives: Sequence[Objective],
        teacher: TeacherSignals | None,
        pair: Pair,
    ) -> None:
        super().__init__()
        self.student = student
        self.objectives = tuple(objectives)
        self.teacher = teacher
        self.pair = pair
        self.progress = 0.0
        needs = needed(objectives)
        if needs and teacher is None:
            raise DistillError(
                f"The objectives need a teacher's {', '.join(sorted(needs))}, "
                "but there is no teacher."
            )
        if teacher is not None:
            _check_asked(teacher.wants, asked(objectives, pair)[1])
        parts = [call(objective, "parts", pair) for objective in objectives]
        self.parts = nn.ModuleList(part if part is not None else nn.Identity() for part in parts)
        self._has_parts = [part is not None for part in parts]

    def forward(
        self,
        labels: Tensor,
        texts: Sequence[str] | None = None,
        windows: Windows | None = None,
        **inputs: Tensor,
    ) -> dict[str, Any]:
        """Answer a batch.

        Args:
            labels: Of each text, in a form of `distill.objective.LabelForm`; see `Objective.loss`.
            texts: The batch's texts; needed in training whenever there is a teacher.
            windows: Which rows of the inputs are of which text; None if each text is one row.
            **inputs: The student's inputs, ``[rows, length]`` each.

        Returns:
            ``loss``, a scalar, and ``logits`` ``[batch, classes]``. In evaluation mode the loss is
            zero: a model is chosen by what it answers, not by how it was taught.
        """
        if not self.training:
            logits = answers(self.student, inputs, windows)
            return {"loss": logits.new_zeros(()), "logits": logits}
        counting = [
            (term, factor, part if has else None)
            for term, part, has in zip(self.objectives, self.parts, self._has_parts, strict=True)
            if (factor := term.factor(self.progress))
        ]
        terms = [term for term, _, _ in counting]
        wants, _ = asked(terms, self.pair)
        own = ask(self.student, inputs, wants, Outputs)
        if windows is not None:
            own = windows.joined(own, inputs["attention_mask"])
        taught: Signals | None = None
        if needed(terms) and self.teacher is not None:
            taught = self.teacher(texts or (), inputs, windows)
        # A batch that no term counts for still has a gradient, of zeros.
        loss: Any = 0.0 * own.logits.sum()
        # Sums over many tokens lose their digits in bfloat16.
        with torch.autocast(own.logits.device.type, enabled=False):
            for term, factor, part in counting:
                seen, told = self._picked(term, own, wants, taught)
                mask = inputs["attention_mask"]
                value = loss_of(term, seen, told, labels, mask, part)
                loss = loss + factor * value
        return {"loss": loss, "logits": own.logits}

    def _picked(
        self, objective: Objective, own: Outputs, wants: Wants, taught: Signals | None
    ) -> tuple[Outputs, Signals | None]:
        """Return what one objective declares that it needs, its layers in its order."""
        pairs = objective.layers(self.pair) if objective.needs else ()
        ours, theirs = [one for one, _ in pairs], [other for _, other in pairs]
        seen = _part(own, objective.needs, wants, ours)
        if not objective.needs or taught is None or self.teacher is None:
            return seen, None
        return seen, _part(taught, objective.needs, self.teacher.wants, theirs)


def _part(answer: T, needs: frozenset[Need], wants: Wants, layers: Sequence[int]) -> T:
    """Return a part of an answer, in float32.

    Args:
        answer: What a model said.
        needs: What is picked of it.
        wants: What it was asked for.
        layers: The layers that are picked, in the order that is wanted.
    """
    picked: dict[str, Any] = {}
    for need in needs - {"logits"}:
        states = getattr(answer, need)
        if need == "embeddings":
            picked[need] = states.float()
        else:
            places = [list(wants[need]).index(layer) for layer in layers]
            picked[need] = tuple(states[place].float() for place in places)
    return type(answer)(answer.logits.float(), **picked)


def _check_asked(wants: Wants, expected: Wants) -> None:
    for need, layers in expected.items():
        missing = sorted(set(layers) - set(wants.get(need, ())))
        if need not in wants or missing:
            raise DistillError(
                f"The objectives compare {need} of the teacher's layers {missing or 'too'}, and it "
                "was not asked for them. Give it the wants of distill.objective.asked."
            )
