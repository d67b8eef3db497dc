"""What is searched: the space checked against the recipe, and what its trials are measured by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations as pairs
from itertools import product
from typing import Any

from adapters.errors import AdapterError
from distill.errors import DistillError
from recipes.errors import RecipeError
from recipes.problems.metrics import higher_is_better
from recipes.reading import plain, read_recipe
from recipes.recipe import Recipe
from recipes.stages import STAGES
from recipes.tuning.space import Choices, Dimension, Range

#: Keys that say which rows there are: trials with other rows cannot be compared.
_ROWS = (
    "task",
    "phases",
    "data.source",
    "data.train",
    "data.validation",
    "data.test",
    "data.text",
    "data.label",
    "data.pair",
    "data.problem",
    "data.separator",
    "data.order",
    "data.test_fraction",
    "data.validation_fraction",
    "data.split_seed",
    "data.overlap",
    "data.min_rows",
    "data.rare",
    "data.per_class",
    "data.draw_seed",
    "data.invalid_rows",
    "data.max_characters",
)
#: Keys that cannot vary for other reasons, each with what to do instead.
_OTHERS = {
    "seed": "name the seeds of every trial with --seeds 0,1,2",
    "train.metric": "it is what trials are judged by: give it one value",
    "distill.train.metric": "it is what trials are judged by: give it one value",
    "threads": "it changes the time and not the model: give it one value",
    "device": "it changes the time and not the model: give it one value",
    "plugins": "use --plugin",
}
#: Parts of a recipe that are read on the way to the student and not on the way to the teacher.
_STUDENT = ("merge", "distill")
#: What may differ between two commands that work on one study.
MACHINE = ("threads", "device")
#: Most pairs of values that are tried out before anything starts.
_TRIED = 2000


@dataclass(frozen=True)
class Plan:
    """A search that may begin.

    Attributes:
        recipe: Name or file of the recipe.
        base: The recipe with what holds for every trial.
        space: The keys that vary.
        fixed: Overrides that hold for every trial.
        plugins: Further plug-in modules.
        seeds: Seeds of each trial, whose mean counts.
        seed: Seed of the search itself.
        pruner: Who ends poor trials: ``median``, ``halving`` or ``none``.
        inside: The base recipe's own point of the space, as far as it lies in it, as a study
            stores it.
    """

    recipe: str
    base: Recipe
    space: tuple[Dimension, ...]
    fixed: tuple[str, ...]
    plugins: tuple[str, ...]
    seeds: tuple[int, ...]
    seed: int
    pruner: str
    inside: Mapping[str, Any]

    @property
    def target(self) -> str:
        """Whose validation metric counts: ``student`` where a key is about it, or ``teacher``."""
        return "student" if any(_section(d.key) in _STUDENT for d in self.space) else "teacher"

    @property
    def metric(self) -> str | None:
        """The validation metric that is searched for; None for the headline of the problem.

        The higher the better.
        """
        train = self.base.distill.train if self.target == "student" else self.base.train
        return train.metric

    @property
    def stage(self) -> str:
        """How far a trial goes."""
        return "distill" if self.target == "student" else "finetune"

    @property
    def count(self) -> float:
        """How many points the space has; infinity if nobody can count them."""
        total = 1.0
        for dimension in self.space:
            total *= dimension.count
        return total

    @property
    def whole(self) -> float:
        """How many trials try every point; the recipe as it stands, if it is none, comes on top."""
        return self.count + (len(self.inside) < len(self.space))

    def identity(self) -> dict[str, Any]:
        """Return what has to be the same for two commands to work on one study."""
        recipe = {key: value for key, value in plain(self.base).items() if key not in MACHINE}
        return {
            "recipe": recipe,
            "space": {d.key: d.said.partition("=")[2] for d in self.space},
            "seeds": list(self.seeds),
            "seed": self.seed,
            "pruner": self.pruner,
        }


def make_plan(
    recipe: str,
    space: tuple[Dimension, ...],
    fixed: tuple[str, ...],
    *,
    plugins: Sequence[str] = (),
    seeds: Sequence[int] = (),
    seed: int = 0,
    pruner: str | None = None,
) -> Plan:
    """Check a search as far as is possible without reading the data.

    Args:
        recipe: Name or file of the recipe.
        space: From `read_space`.
        fixed: Likewise.
        plugins: Further plug-in modules.
        seeds: Seeds of each trial; by default the recipe's own.
        seed: Seed of the search.
        pruner: Who ends poor trials; None for the median, or for none where data arrive in phases:
            an epoch of one phase tells nothing of what is left after the last.

    Raises:
        RecipeError: A value that the recipe refuses, a key that cannot be searched, or a pruner
            where data arrive in phases.
    """
    base = read_recipe(recipe, fixed, plugins)
    if pruner is None:
        pruner = "median" if base.phases is None else "none"
    elif base.phases is not None and pruner != "none":
        raise RecipeError(
            f"--pruner {pruner} judges a training by its epochs, and where data arrive in phases "
            "they do not tell what is left after the last. Leave the option out."
        )

    def read(*given: str) -> Recipe:
        return read_recipe(recipe, [*fixed, *given], plugins)

    faults = _faults(space, read)
    if faults:
        raise RecipeError(f"{' '.join(faults)} Nothing was started.")
    for dimension in space:
        _check_key(dimension, base)
    own = plain(base)
    inside = {
        d.key: stored for d in space if (stored := _own_value(d, own, base, read)) is not None
    }
    plan = Plan(
        recipe, base, space, fixed, tuple(plugins), tuple(seeds) or (base.seed,), seed, pruner,
        inside,
    )  # fmt: skip
    if plan.metric is not None and not higher_is_better(plan.metric):
        raise RecipeError(
            f"A search looks for the highest value, and of {plan.metric} less is better. Set "
            "train.metric (distill.train.metric for a student) to one such as accuracy or "
            "macro_f1, or r2 for numbers. Nothing was started."
        )
    return plan


def _faults(space: Sequence[Dimension], read: Any) -> list[str]:
    """Try every value, and every pair of values of two lists, and say what the recipe refuses."""
    first = {d.key: f"{d.key}={d.ends[0]}" for d in space}
    found: dict[str, str] = {}
    for dimension, *others in _trials(space):
        given = {**first, **{d.key: f"{d.key}={value}" for d, value in (dimension, *others)}}
        said = " ".join(d.said for d, _ in (dimension, *others))
        if any(d.said in found for d, _ in (dimension, *others)) or said in found:
            continue
        try:
            read(*given.values())
        except (RecipeError, AdapterError, DistillError) as error:
            found[said] = str(error) + _remedy(dimension[0], error)
    return [f"[{said}] {fault}" for said, fault in found.items()]


def _trials(space: Sequence[Dimension]) -> Iterator[tuple[tuple[Dimension, str], ...]]:
    for dimension in space:
        yield from (((dimension, value),) for value in dimension.ends)
    lists = [dimension for dimension in space if isinstance(dimension, Choices)]
    tried = 0
    for one, other in pairs(lists, 2):
        for values in product(one.ends, other.ends):
            tried += 1
            if tried <= _TRIED:
                yield (one, values[0]), (other, values[1])


def _remedy(dimension: Dimension, error: Exception) -> str:
    if isinstance(dimension, Choices) or "unknown key" in str(error):
        return ""
    if "valid integer" in str(error) and not dimension.whole:
        form = "logint" if dimension.log else "int"
        return f" Whole numbers are written {dimension.key}={form}(low,high)."
    return f" {dimension.said} begins or ends there: narrow it."


def _check_key(dimension: Dimension, base: Recipe) -> None:
    """Refuse a key whose values could not be compared, or that nothing measured depends on."""
    key = dimension.key
    for name, advice in _OTHERS.items():
        if key == name:
            raise RecipeError(f"{key} cannot be searched: {advice}.")
    if key == "data" or any(key == name or key.startswith(f"{name}.") for name in _ROWS):
        raise RecipeError(
            f"{key} cannot be searched: it says which rows there are, and trials are compared on "
            f"the same validation rows. Give it one value."
        )
    names = [stage.name for stage in STAGES]
    needed = next((stage.name for stage in STAGES if stage.reads(key)), names[-1])
    if names.index(needed) > names.index("distill"):
        raise RecipeError(
            f"{key} cannot be searched: neither the teacher nor the student depends on it, and "
            "they are what is measured. Give it one value; the best recipe keeps it."
        )
    if base.strategy is None and _section(key) != "distill":
        raise RecipeError(
            f"{key} cannot be searched with strategy: null, which takes the teacher as it is. "
            "Search keys of distill.*, which are about the student."
        )


def _section(key: str) -> str:
    return key.partition(".")[0]


def _own_value(dimension: Dimension, own: Mapping[str, Any], base: Recipe, read: Any) -> Any:
    """Return the base recipe's own value as a study stores it; None if the space has it not."""
    if isinstance(dimension, Range):
        node: Any = own
        for part in dimension.key.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        return dimension.stored(node) if dimension.holds(node) else None
    for text in dimension.values:
        try:
            same = read(f"{dimension.key}={text}") == base
        except (RecipeError, AdapterError, DistillError):
            continue  # in other company it is right, as has been tried
        if same:
            return dimension.stored(text)
    return None
