"""What kind of answer a row has: how it is learnt, judged and told, whatever the modality."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from adapters import Registry
from recipes.problems.classes import UNLABELLED, Classes
from recipes.problems.decision import AS_IT_IS, Decision, OffsetSearch, fit_decision
from recipes.problems.resampling import DRAWS

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from recipes.recipe import DecideSettings


class Problem(ABC):
    """One problem type.

    Its name in the registry is the ``problem_type`` of the bundle, whose edge runtime turns the
    same logits into the same answers.

    Args:
        labels: Names of the model's outputs, in their order.
        train: What the training rows say, in the form of `recipes.tasks.Split.labels`: for what
            is weighted by them.
        facts: What the edge runtime has to know besides the labels: `recipes.tasks.Rows.facts`.
    """

    #: The metric that artefacts are compared by, one of `metrics`; the higher the better.
    headline: ClassVar[str]
    #: Label of a text that has none, in a batch of training texts; objectives leave it out.
    unlabelled: Any = UNLABELLED
    #: What transformers calls it; None for exactly one label.
    kind: ClassVar[str | None] = None
    #: Keys of the recipe's section ``decide`` that mean something here.
    decides: ClassVar[frozenset[str]] = frozenset()
    #: How ``decide.offsets`` are found, where they are among `decides`.
    offset_search: ClassVar[OffsetSearch | None] = None
    #: The least probability with which a label is given if nobody wishes a precision.
    least: ClassVar[float] = 0.0
    #: Objectives that are called otherwise here, by the name that a recipe gives them.
    objectives: ClassVar[Mapping[str, str]] = {}
    #: Whether a number added to all logits of a row changes neither its loss nor its answer.
    shift_free: ClassVar[bool] = False
    #: Whether a row has exactly one of the labels.
    exclusive: ClassVar[bool] = False

    def __init__(
        self,
        labels: Sequence[str],
        train: Sequence[Any] = (),
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.labels = tuple(labels)
        self.train = train
        self.facts = dict(facts or {})

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss ``[]`` of logits ``[batch, outputs]`` and a batch of labels."""

    @abstractmethod
    def constant(self) -> np.ndarray:
        """Return the logits ``[outputs]`` that fit the training rows best without a look at one."""

    @abstractmethod
    def metrics(self, logits: np.ndarray, labels: Sequence[Any]) -> dict[str, float]:
        """Return the metrics of logits ``[rows, outputs]``, the headline among them."""

    @abstractmethod
    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return probabilities ``[rows, outputs]``, as the edge runtime gives them."""

    @abstractmethod
    def answers(self, logits: np.ndarray) -> np.ndarray:
        """Return what logits ``[rows, outputs]`` say, in the form of the rows' labels."""

    def classes(self, labels: Sequence[Any]) -> Classes | None:
        """Return the classes that rows are counted, drawn and copied as; None without labels.

        Args:
            labels: What the rows say, `unlabelled` ones too.
        """
        return Classes.of_ids(labels) if self.exclusive else None

    def same(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Tell for each row whether two models' logits ``[rows, outputs]`` give the same answer."""
        differ = self.answers(one) != self.answers(other)
        same: np.ndarray = ~differ.reshape(len(differ), -1).any(axis=1)
        return same

    def all_metrics(
        self, logits: np.ndarray, labels: Sequence[Any], decision: Decision = AS_IT_IS
    ) -> dict[str, float]:
        """Return every figure that is one number, those of `metrics` among them.

        They are for finished artefacts: `metrics` is computed after every epoch and has to be
        cheap.

        Args:
            logits: Logits ``[rows, outputs]``.
            labels: What the rows say.
            decision: How answers are made of the logits.
        """
        return self.metrics(logits, labels)

    def by_class(
        self, logits: np.ndarray, labels: Sequence[Any], decision: Decision = AS_IT_IS
    ) -> dict[str, Any]:
        """Return figures of each label, and the confusion matrix; nothing where there is none.

        Returns:
            ``labels``: for each name ``precision``, ``recall``, ``f1`` and ``rows``. ``confusion``:
            counts by true and given label.
        """
        return {}

    def resampled(
        self, models: Sequence[np.ndarray], labels: Sequence[Any], draws: int = DRAWS
    ) -> dict[str, np.ndarray]:
        """Judge models on rows that are drawn with replacement, all on the same ones.

        Args:
            models: Logits ``[rows, outputs]`` of each, moved by its `Decision` if it has one.
            labels: What the rows say.
            draws: How often rows are drawn.

        Returns:
            The headline, and other figures that are worth an interval: ``[models, draws]``.
        """
        import numpy as np

        chance, truth = np.random.default_rng(0), np.asarray(labels)
        found = []
        for _ in range(min(draws, 500)):  # each draw costs a call of `metrics`
            rows = chance.integers(0, len(truth), len(truth))
            scores = [self.metrics(logits[rows], list(truth[rows])) for logits in models]
            found.append([score[self.headline] for score in scores])
        return {self.headline: np.array(found).T}

    def decided(
        self, logits: np.ndarray, labels: Sequence[Any], settings: DecideSettings
    ) -> tuple[Decision, dict[str, Any]]:
        """Fit how answers are made of logits; those in `decides` can be asked for.

        Args:
            logits: Logits of the file that is shipped on the validation rows.
            labels: What these rows say.
            settings: What is asked for.

        Returns:
            The decision, and what the ledger should tell of how it was found.
        """
        return fit_decision(self, logits, labels, settings) if self.decides else (AS_IT_IS, {})

    def choices(self, logits: np.ndarray, labels: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Return the choices of one outcome among several that answers are made of.

        A softmax over the logits of a choice gives the probabilities of its outcomes: they are
        what calibration is fitted on and judged by. Only asked where there are `decides`.

        Args:
            logits: Logits ``[rows, outputs]``.
            labels: What the rows say.

        Returns:
            Logits ``[choices, outcomes]``, and the ids of the right outcomes ``[choices]``.
        """
        import numpy as np

        return logits, np.asarray(labels)

    def told_labels(
        self, logits: np.ndarray, labels: Sequence[Any], decision: Decision
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return what a threshold can withhold: each label that is given without one.

        Only asked where there are `decides`.

        Returns:
            Place of the label, the probability that its threshold is compared with, and whether
            it is right, all ``[labels given]``.
        """
        raise NotImplementedError

    def selective(
        self, logits: np.ndarray, labels: Sequence[Any], decision: Decision
    ) -> dict[str, float]:
        """Return what thresholds leave of the answers.

        Returns:
            ``coverage``, the share of the labels given without thresholds that are given with
            them, and ``precision`` among these, left out where none is given.
        """
        import numpy as np

        from recipes.problems.decision import selective

        least = np.array([decision.thresholds.get(label, self.least) for label in self.labels])
        places, sure, right = self.told_labels(logits, labels, decision)
        return selective(sure, right, least[places])

    def told(self, answer: Any) -> str:
        """Put an answer, or the label of a row, into words."""
        return self.labels[int(answer)]


#: Closed to plug-ins: `edge.py`, which every bundle holds, has to know how each is answered.
problems: Registry[type[Problem]] = Registry("problem", group="", base=Problem)

from recipes.problems import multi_label, ordinal, regression, single_label  # noqa: E402, F401
