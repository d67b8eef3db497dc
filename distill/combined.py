"""Several teachers behind one: their mean, a weighted mean, one for each text.

Only logits can be combined; those of a mean are the logarithms of its probabilities, of labels that
exclude one another. A combination is cached or combined again like any other teacher.
"""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distill.errors import DistillError
from distill.signals import Signals, Teacher, Wants, text_key

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from distill.windows import Windows

    #: Asks one teacher about the rows of a batch with these numbers, and returns its logits
    #: ``[rows, classes]``.
    Ask = Callable[[Teacher, Sequence[int]], Tensor]

#: When weights are found: no weight moves by more than this in a step, or so many steps.
_STILL, _STEPS = 1e-7, 10_000


class Combined(ABC):
    """Several teachers that answer as one; their labels are in the data's order.

    Args:
        teachers: Who is asked, at least one, all on one device; each reads a text with its own
            tokenizer.

    Raises:
        DistillError: A teacher is asked for more than its logits.
    """

    wants: Wants
    #: It has no hidden states to give.
    width = 0

    def __init__(self, teachers: Sequence[Teacher]) -> None:
        if not teachers:
            raise DistillError("There is no teacher to combine; name at least one.")
        if odd := sorted({need for teacher in teachers for need in teacher.wants}):
            raise DistillError(
                f"The objectives want {', '.join(odd)} of several teachers, but only logits can be "
                "combined. Use one teacher, or objectives that want its logits only."
            )
        self.teachers = tuple(teachers)
        self.wants = {}

    @property
    def classes(self) -> int:
        """How many labels there are."""
        return self.teachers[0].classes

    def __call__(
        self,
        texts: Sequence[str],
        inputs: Mapping[str, Tensor],
        windows: Windows | None = None,
    ) -> Signals:
        """Answer a batch; texts in windows are read anew by each teacher, as a whole."""
        if windows is not None:
            return self.ask(texts)

        def ask(teacher: Teacher, rows: Sequence[int]) -> Tensor:
            own = {name: tensor[list(rows)] for name, tensor in inputs.items()}
            return teacher([texts[row] for row in rows], own).logits.float()

        return Signals(self._logits(texts, ask))

    def ask(self, texts: Sequence[str]) -> Signals:
        """Answer texts for which there are no inputs of a student."""

        def ask(teacher: Teacher, rows: Sequence[int]) -> Tensor:
            return teacher.ask([texts[row] for row in rows]).logits.float()

        return Signals(self._logits(texts, ask))

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text has to the first teacher."""
        return self.teachers[0].lengths(texts)

    def fingerprint(self) -> str:
        """Return a hash of how the teachers are combined, and of theirs."""
        own = [type(self).__name__, self._facts(), [one.fingerprint() for one in self.teachers]]
        return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()

    @abstractmethod
    def _logits(self, texts: Sequence[str], ask: Ask) -> Tensor:
        """Return the combined logits ``[batch, classes]``."""

    def _facts(self) -> Any:
        """Return what the combination depends on besides its teachers, ready for JSON."""
        return None


class Weighted(Combined):
    """The weighted mean of the teachers' probabilities.

    Args:
        teachers: Who is asked; one without weight is not.
        weights: How much each counts, none negative and not all 0; `skill_weights` finds them on
            validation data. Only their ratios matter.

    Raises:
        DistillError: The weights do not fit, or a teacher is asked for more than its logits.
    """

    def __init__(self, teachers: Sequence[Teacher], weights: Sequence[float]) -> None:
        super().__init__(teachers)
        total = sum(weights)
        if len(weights) != len(teachers) or min(weights) < 0 or not 0 < total < math.inf:
            raise DistillError(
                f"The weights {list(weights)} do not fit {len(teachers)} teachers: each needs one, "
                "none may be negative, and not all may be 0."
            )
        self.weights = tuple(float(weight / total) for weight in weights)

    def _logits(self, texts: Sequence[str], ask: Ask) -> Tensor:
        rows, pairs = range(len(texts)), zip(self.teachers, self.weights, strict=True)
        heard = [(one, weight) for one, weight in pairs if weight]
        return _mixed([ask(one, rows) for one, _ in heard], [weight for _, weight in heard])

    def _facts(self) -> Any:
        return self.weights


class Mean(Weighted):
    """The mean of the teachers' probabilities, each counting the same.

    Hinton et al. (2015, arXiv:1503.02531) distil an ensemble this way.

    Args:
        teachers: Who is asked.

    Raises:
        DistillError: A teacher is asked for more than its logits.
    """

    def __init__(self, teachers: Sequence[Teacher]) -> None:
        super().__init__(teachers, [1.0] * len(teachers))


class PerExample(Combined):
    """One teacher for each text: the best for a labelled one, the most certain for another.

    The best is the one that gives the true label the highest probability, the most certain the one
    with the least entropy; of equals the first. Yuan et al. (2021, arXiv:2012.06048) choose
    teachers example by example with a learnt policy; this rule needs no training.

    Args:
        teachers: Who is asked.
        labels: The label id of each labelled text.

    Raises:
        DistillError: A teacher is asked for more than its logits.
    """

    def __init__(self, teachers: Sequence[Teacher], labels: Mapping[str, int]) -> None:
        super().__init__(teachers)
        self.labels = {text_key(text): int(label) for text, label in labels.items()}

    def _logits(self, texts: Sequence[str], ask: Ask) -> Tensor:
        import torch

        heard = [ask(teacher, range(len(texts))) for teacher in self.teachers]
        logs = torch.stack(heard).log_softmax(-1)
        value = torch.special.entr(logs.exp()).sum(-1).neg()
        for row, text in enumerate(texts):
            label = self.labels.get(text_key(text))
            if label is not None:
                value[:, row] = logs[:, row, label]
        return logs[value.argmax(0), torch.arange(len(texts), device=logs.device)]

    def _facts(self) -> Any:
        return self.labels


class OutOfFold(Combined):
    """Answers each training text with the teacher that never saw it, and others with all.

    A teacher is right and certain about the rows that it learnt from, and so says little more
    than their labels. Dao et al. (2021, arXiv:2104.09732) fit the teacher on the other folds.

    Args:
        teachers: Who is asked; teacher ``i`` learnt from all training texts but those of fold
            ``i``.
        folds: The fold of each training text. Repeated texts have to be in one fold.
        exclusive: Whether a text has exactly one label. If not, what several teachers say of a text
            is the mean of their logits, which are odds of single labels or numbers.

    Raises:
        DistillError: A fold has no teacher, or a teacher is asked for more than its logits.
    """

    def __init__(
        self, teachers: Sequence[Teacher], folds: Mapping[str, int], *, exclusive: bool = True
    ) -> None:
        super().__init__(teachers)
        if odd := sorted(set(folds.values()) - set(range(len(teachers)))):
            raise DistillError(
                f"There is no teacher for fold {odd[0]}: with {len(teachers)} teachers, folds are "
                f"0 to {len(teachers) - 1}."
            )
        self.folds = {text_key(text): int(fold) for text, fold in folds.items()}
        self.exclusive = exclusive

    def _logits(self, texts: Sequence[str], ask: Ask) -> Tensor:
        import torch

        folds = [self.folds.get(text_key(text)) for text in texts]
        found: dict[int, Tensor] = {}
        for fold in set(folds):
            rows = [row for row, own in enumerate(folds) if own == fold]
            found |= zip(rows, self._of_fold(fold, rows, ask), strict=True)
        return torch.stack([found[row] for row in range(len(texts))])

    def _of_fold(self, fold: int | None, rows: Sequence[int], ask: Ask) -> Tensor:
        import torch

        if fold is not None:
            return ask(self.teachers[fold], rows)
        heard = [ask(one, rows) for one in self.teachers]
        if not self.exclusive:
            return torch.stack(heard).mean(0)
        return _mixed(heard, [1 / len(heard)] * len(heard))

    def _facts(self) -> Any:
        return [self.folds, self.exclusive]


def skill_weights(logits: Sequence[np.ndarray], labels: Sequence[int] | np.ndarray) -> list[float]:
    """Find the weights with which the teachers' mixture is most right on validation data.

    They have the highest log-likelihood of the labels under the weighted mean of the teachers'
    probabilities: stacking (Yao et al., 2018, arXiv:1704.02030), found with the EM updates for
    the weights of a mixture. A teacher that adds nothing to the others ends near 0.

    Args:
        logits: Each teacher's logits ``[rows, classes]`` on rows that none of them learnt from,
            columns in the order of the data's labels.
        labels: Label ids ``[rows]``.

    Returns:
        A weight for each teacher; they sum to 1. On these rows the mixture is never less likely
        than with equal weights.
    """
    import numpy as np

    places = np.asarray(labels, np.int64)[:, None]
    right = []
    for one in logits:
        scores = np.asarray(one, np.float64)
        scores = scores - scores.max(axis=1, keepdims=True)
        own = np.take_along_axis(scores, places, axis=1)[:, 0]
        right.append(own - np.log(np.exp(scores).sum(axis=1)))
    chances = np.exp(np.stack(right) - np.max(right, axis=0))
    weights = np.full(len(right), 1 / len(right))
    for _ in range(_STEPS):
        shares = weights[:, None] * chances
        before, weights = weights, (shares / shares.sum(axis=0)).mean(axis=1)
        if abs(weights - before).max() < _STILL:
            break
    return [float(weight) for weight in weights]


def _mixed(logits: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the logarithms of the weighted mean of the probabilities that logits stand for."""
    import torch

    logs, shares = torch.stack(list(logits)).log_softmax(-1), logits[0].new_tensor(weights).log()
    return torch.logsumexp(logs + shares[:, None, None], dim=0)
