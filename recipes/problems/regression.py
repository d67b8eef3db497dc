"""A number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from recipes.problems import Problem, problems
from recipes.problems.resampling import DRAWS, drawn

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

#: Deviations that stand for what is no number.
_FAR = 1e6
#: Two models give the same answer if they are apart by less than this many deviations.
SAME = 0.1


@problems.register("regression")
class Regression(Problem):
    """A number; the model's only output is called what the number is.

    Labels of rows are floats ``[rows]``: distances from the mean of the training rows, in their
    standard deviation, which ``facts["scale"]`` has. So does a model answer; a learning rate that
    is right for one scale is right for all.
    """

    headline = "r2"
    kind = "regression"
    unlabelled = float("nan")

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean squared distance, in squared deviations."""
        from torch.nn.functional import mse_loss

        return mse_loss(logits[:, 0], labels.to(logits.dtype))

    def constant(self) -> np.ndarray:
        """Return the mean."""
        import numpy as np

        return np.zeros(1)

    def metrics(self, logits: np.ndarray, labels: Sequence[Any]) -> dict[str, float]:
        """Return the share of explained variance, distances, and correlations.

        ``r2`` is the coefficient of determination: 1 for perfect, 0 for what the mean would do,
        negative for worse; ``mae`` and ``rmse`` are in the number's own unit; ``pearson`` and
        ``spearman`` are 0 where a model always gives the same number.
        """
        import numpy as np
        from scipy.stats import rankdata  # type: ignore[import-untyped, unused-ignore]

        # A model that collapsed, and gives no number, is as far off as can be told.
        given = np.nan_to_num(logits[:, 0].astype(np.float64), nan=_FAR, posinf=_FAR, neginf=-_FAR)
        given = self._number(given)
        truth = self._number(np.asarray(labels, dtype=np.float64))
        error = given - truth
        spread = float(((truth - truth.mean()) ** 2).sum())
        return {
            "r2": 1 - float((error**2).sum()) / spread if spread else 0.0,
            "mae": float(np.abs(error).mean()),
            "rmse": float((error**2).mean() ** 0.5),
            "pearson": _correlation(given, truth),
            "spearman": _correlation(rankdata(given), rankdata(truth)),
        }

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return the logits themselves: a number has no probability."""
        return logits

    def resampled(
        self, models: Sequence[np.ndarray], labels: Sequence[Any], draws: int = DRAWS
    ) -> dict[str, np.ndarray]:
        """Return the share of explained variance; see `Problem.resampled`."""
        import numpy as np

        truth = np.asarray(labels, dtype=np.float64)
        errors = [(logits[:, 0] - truth) ** 2 for logits in models]
        kinds, times = drawn(np.stack([truth, truth**2, *errors], axis=1), draws)
        total, squares, *missed = (times @ kinds).T
        spread = squares - total**2 / len(truth)
        # A draw of one and the same number has nothing to explain, as in `metrics`.
        some = spread > 1e-9 * max(1e-9, float(squares.max()))
        safe = np.where(some, spread, 1.0)
        return {"r2": np.stack([np.where(some, 1 - error / safe, 0.0) for error in missed])}

    def answers(self, logits: np.ndarray) -> np.ndarray:
        """Return the numbers, in deviations."""
        return logits[:, 0]

    def same(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Tell for each row whether two numbers are apart by less than a tenth of a deviation."""
        return abs(one - other)[:, 0] < SAME  # type: ignore[no-any-return]

    def told(self, answer: Any) -> str:
        """Write the number in its own unit."""
        from recipes.tasks.wording import measured

        return measured(float(self._number(answer)), self.facts["scale"]["deviation"])

    def numbers(self, logits: Any) -> np.ndarray:
        """Return numbers ``[rows]`` in their own unit, of logits or of the labels of rows."""
        import numpy as np

        found: np.ndarray = self._number(np.asarray(logits, dtype=np.float64).reshape(-1))
        return found

    def _number(self, distances: Any) -> Any:
        scale = self.facts["scale"]
        return distances * scale["deviation"] + scale["mean"]


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    import numpy as np

    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])
