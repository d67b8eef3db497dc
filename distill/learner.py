"""A student with its objectives, as one module that a training loop can train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from distill.errors import DistillError
from distill.objectives import Objective, Outputs, Pair, needed
from distill.signals import Signals, TeacherSignals

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class Learner(nn.Module):
    """Computes the weighted sum of the objectives for a batch.

    Args:
        student: The model that learns, a plain classifier.
        objectives: The terms of the loss.
        teacher: Where the teacher's answers come from; None if no objective needs them.
        pair: Facts about both, for the objectives' own checks.

    Raises:
        DistillError: An objective needs a teacher and there is none, or cannot hold for this pair.
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
        self.needs = needed(objectives)
        if self.needs and teacher is None:
            raise DistillError(
                f"The objectives need a teacher's {', '.join(sorted(self.needs))}, "
                "but there is no teacher."
            )
        parts = [objective.parts(pair) for objective in objectives]
        self.parts = nn.ModuleList(part if part is not None else nn.Identity() for part in parts)
        self._has_parts = [part is not None for part in parts]

    def forward(
        self, labels: Tensor, texts: Sequence[str] | None = None, **inputs: Tensor
    ) -> dict[str, Any]:
        """Answer a batch.

        Args:
            labels: Label ids ``[batch]``.
            texts: The batch's texts; needed in training whenever there is a teacher.
            **inputs: The student's inputs, ``[batch, length]`` each.

        Returns:
            ``loss``, a scalar, and ``logits`` ``[batch, classes]``. In evaluation mode the loss is
            zero: a model is chosen by what it answers, not by how it was taught.
        """
        if not self.training:
            logits = self.student(**inputs).logits
            return {"loss": logits.new_zeros(()), "logits": logits}
        answer = self.student(**inputs, output_hidden_states="hidden" in self.needs)
        hidden = answer.hidden_states[1:] if "hidden" in self.needs else ()
        own = Outputs(answer.logits, tuple(hidden))
        taught: Signals | None = None
        if self.needs and self.teacher is not None:
            taught = self.teacher(texts or (), inputs)
        loss: Any = 0.0
        for objective, part, has in zip(self.objectives, self.parts, self._has_parts, strict=True):
            term = objective.loss(
                own, taught, labels, inputs["attention_mask"], part if has else None
            )
            loss = loss + objective.weight * term
        return {"loss": loss, "logits": answer.logits}
