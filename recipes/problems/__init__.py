"""What kind of answer a row has: how it is learnt, judged and told, whatever the modality."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from adapters import Registry

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class Problem(ABC):
    """One problem type.

    Its name in the registry is the ``problem_type`` of the bundle, whose edge runtime turns the
    same logits into the same answers.

    Args:
        labels: Names of the model's outputs, in their order.
        train: What the training rows say, in the form of `recipes.tasks.Split.labels`: for what
            is weighted or scaled by them.
    """

    #: The metric that artefacts are compared by, one of `metrics`; the higher the better.
    headline: ClassVar[str]
    #: Whether a row has exactly one of the labels, so that classes can be counted and weighted.
    exclusive: ClassVar[bool] = False

    def __init__(self, labels: Sequence[str], train: Sequence[Any] = ()) -> None:
        self.labels = tuple(labels)
        self.train = train

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss ``[]`` of logits ``[batch, outputs]`` and a batch of labels."""

    @abstractmethod
    def metrics(self, logits: np.ndarray, labels: Sequence[Any]) -> dict[str, float]:
        """Return the metrics of logits ``[rows, outputs]``, the headline among them."""

    @abstractmethod
    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return probabilities ``[rows, outputs]``, as the edge runtime gives them."""

    @abstractmethod
    def same(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Tell for each row whether two models' logits ``[rows, outputs]`` give the same answer."""


problems: Registry[type[Problem]] = Registry("problem", group="potstill.problems", base=Problem)

from recipes.problems import single_label  # noqa: E402, F401  (registers itself)
