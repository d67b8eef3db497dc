"""How far a few-shot recipe is above the strictest rival: one that learns from its validation too.

python -m recipes.compare few_shot_cls data.per_class=8,16,32,64 --seeds 0,1,2 --to finetune
python -m tests.benchmarks.few_shots runs/compare-few_shot_cls

Of the labelled rows of each class, a run holds some out to choose by; the rival needs none, and so
learns from all of them: a logistic regression on the frozen backbone's mean embeddings, which the
runs have kept. Its strength of regularization is the product's, or found by cross-validation over
its rows. All figures are of the test rows, mean and deviation over the seeds, in percent.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from adapters.hardware import inspect_hardware
from recipes.ledger import Ledger
from recipes.reading import read_recipe
from recipes.workspace import Workspace

_STRENGTHS = [0.1, 1.0, 10.0, 100.0]
_COLUMNS = ("teacher", "frozen, same rows", "frozen, all rows", "frozen, all rows, C found")


def main() -> None:
    """Print a table, a line for each cell of a comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="what recipes.compare has written")
    folder = parser.parse_args().folder
    print(f"{'cell':<16}{'rows':>6}" + "".join(f"{column:>28}" for column in _COLUMNS))
    for cell in json.loads((folder / "comparison.json").read_text(encoding="utf-8"))["cells"]:
        runs = [folder / run["folder"] for run in cell["runs"] if not run["fault"]]
        found, sizes = zip(*map(_measured, runs), strict=True)
        told = (_spread([scores[column] for scores in found]) for column in _COLUMNS)
        print(f"{cell['label']:<16}{sizes[0]:>6}" + "".join(f"{one:>28}" for one in told))


def _measured(folder: Path) -> tuple[dict[str, float], int]:
    """Return accuracies of a run and its rivals, and how many labelled rows there were."""
    recipe = read_recipe(str(folder / "recipe.yaml"), [])
    rows = Workspace(recipe, folder, inspect_hardware("cpu", 1), offline=False).rows
    with np.load(folder / "baseline" / "embeddings.npz") as kept:
        features = np.concatenate([kept["train"], kept["validation"]])
        test = kept["test"]
    labels = np.array([*rows.train.labels, *rows.validation.labels])
    truth = np.array(rows.test.labels)
    plain = LogisticRegression(C=10.0, max_iter=1000)
    folds = StratifiedKFold(4, shuffle=True, random_state=0)
    found = GridSearchCV(LogisticRegression(max_iter=1000), {"C": _STRENGTHS}, cv=folds)
    ledger = Ledger(folder / "ledger.json")
    rivals = (model.fit(features, labels).score(test, truth) for model in (plain, found))
    scores = (ledger["teacher"].score, ledger["frozen-logreg"].score, *rivals)
    return dict(zip(_COLUMNS, scores, strict=True)), len(labels)


def _spread(values: list[float]) -> str:
    more = f" ±{100 * stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * fmean(values):.2f}{more}"


if __name__ == "__main__":
    main()
