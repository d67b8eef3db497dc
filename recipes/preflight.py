"""Everything that can be known to be impossible before a minute is spent on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from adapters.errors import AdapterError
from adapters.strategy import Strategy, called, finish, prepare
from distill.objectives import Pair
from distill.students import cut, kept_layers, spread
from recipes import assets
from recipes.tasks import Split
from recipes.workspace import Workspace, load_config, load_tokenizer, torch_call

if TYPE_CHECKING:
    import numpy as np

#: On how many rows a strategy's `finish` is tried, and how far logits may be apart after it,
#: against the largest of them or 1. A fold that is right is off by rounding errors only.
_TRIED, _TOLERANCE = 2, 1e-2


def check_possible(work: Workspace) -> None:
    """Try what later stages will do, on models that have learnt nothing.

    Raises:
        RecipeError: Data, backbone or student cannot be used as the recipe says.
        AdapterError: The strategy does not fit the backbone.
        DistillError: An objective cannot hold for this teacher and this student.
    """
    recipe = work.recipe
    _ = work.rows, work.max_length
    for settings in (recipe.train, recipe.distill.train):
        work.hardware.bf16_for(settings.precision, recipe.allow_fallback)
    if work.quantization != "none":
        prepare(work.load(work.quantization), recipe.strategy)
    _check_finish(work)
    if work.rows.phases:
        from recipes.incremental import rehearsed

        for phase in range(len(work.rows.phases)):
            rehearsed(work, phase)
    pair = student_pair(work)
    if recipe.distill.student.layers is not None:
        cut(work.load(), pair.layer_map)
    for objective in recipe.distill.objectives:
        objective.parts(pair)


def _check_finish(work: Workspace) -> None:
    """Let the strategy prepare and finish the backbone in float, and compare both's answers.

    Raises:
        AdapterError: The strategy does not fit, or what it finishes is not the model it prepared.
    """
    strategy, rows = work.recipe.strategy, work.rows.validation
    few = Split(rows.texts[:_TRIED], rows.labels[:_TRIED])
    examples = work.task.features(few, work.tokenizer, work.max_length)
    batch = work.task.collator(work.tokenizer)(examples)
    prepared = prepare(work.load(), strategy)
    before = _answer(strategy, prepared, batch)
    after = _answer(strategy, finish(prepared, strategy), batch)
    difference = float(abs(after - before).max())
    if not difference <= _TOLERANCE * max(1.0, float(abs(before).max())):
        raise AdapterError(
            f"{called(strategy)} does not give an equal model back: before anything is learnt, "
            f"finish() changes the logits by {difference:.3g}. Fold all that prepare() put in."
        )


def _answer(strategy: Strategy, model: Any, batch: Mapping[str, Any]) -> np.ndarray:
    try:
        return torch_call(model)(batch)
    except Exception as error:
        raise AdapterError(
            f"{called(strategy)} leaves a model that does not answer: {type(error).__name__}: "
            f"{' '.join(str(error).split())}. Mend it (adapters.testing.check_strategy shows the "
            "whole story), or choose another strategy or backbone."
        ) from error


def student_pair(work: Workspace) -> Pair:
    """Return the facts about teacher and student that objectives depend on.

    Raises:
        RecipeError: The student's backbone cannot be used.
        DistillError: The teacher does not have the layers that the student is to keep.
    """
    wanted = work.recipe.distill.student
    teacher = load_config(work.backbone.path)
    if wanted.layers is not None:
        layers = kept_layers(wanted.layers, teacher.num_hidden_layers)
        return Pair(teacher.hidden_size, teacher.hidden_size, layers, same_tokens=True)
    asset = assets.resolve(str(wanted.model), "model", offline=work.offline)
    student = load_config(asset.path)
    return Pair(
        student_width=student.hidden_size,
        teacher_width=teacher.hidden_size,
        layer_map=spread(student.num_hidden_layers, teacher.num_hidden_layers),
        same_tokens=load_tokenizer(asset.path).get_vocab() == work.tokenizer.get_vocab(),
    )
