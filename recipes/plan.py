"""What a run would do, without doing it."""

from __future__ import annotations

from collections.abc import Sequence

from adapters.strategy import strategies
from recipes.long_text import told
from recipes.preflight import check_possible
from recipes.several_students import students
from recipes.students import described, foretold, trimmed
from recipes.tasks.wording import counted, listed, shown
from recipes.workspace import Workspace


def print_plan(work: Workspace, stages: Sequence[str]) -> None:
    """Read the data, look at the backbone and print the plan on standard output.

    Args:
        work: The run.
        stages: Those that it would go through.

    Raises:
        RecipeError: Data, backbone or student cannot be used; and what `check_possible` raises.
    """
    start = check_possible(work)
    recipe, rows = work.recipe, work.rows
    size = sum(file.stat().st_size for file in work.backbone.path.glob("*.safetensors"))
    print(f"run folder  {work.folder}")
    print(f"data        {rows.source}")
    for note in rows.notes:
        print(f"            {note}")
    print(f"labels      {listed(map(shown, rows.labels), 20)}")
    print(
        f"backbone    {work.backbone.source} ({size / 1e6:.0f} MB), "
        f"{told(recipe.data.long, work.max_length)}"
    )
    if recipe.strategy is None:
        print("strategy    none: the backbone is the teacher as it is")
    else:
        settings = ", ".join(f"{k}={v}" for k, v in strategies.plain(recipe.strategy).items())
        print(f"strategy    {settings}")
    if recipe.contrast is not None:
        settings = ", ".join(f"{k}={v}" for k, v in recipe.contrast.model_dump().items())
        print(f"contrast    {settings}")
    print(f"student     {described(recipe.distill)}")
    for sentence in foretold(work, trimmed(work, start, rows.train.texts)):
        print(f"            {sentence}")
    for name, other in list(students(work).items())[1:]:
        print(f"{name:<12}{described(other.recipe.distill)}")
    print(f"machine     {work.hardware.name}, {counted(work.hardware.threads, 'thread')}")
    for sentence in work.missing_capabilities():
        print(f"            {sentence}")
    print(f"stages      {' → '.join(stages) or 'none: all are done'}")
