"""Several students in one run: each learns and leaves as the one, and the ladder takes its pick."""

from __future__ import annotations

from recipes.ledger import Row
from recipes.workspace import Workspace

#: The row, and the folder, of the student that the recipe is about.
STUDENT = "student"


def students(work: Workspace) -> dict[str, Workspace]:
    """Return every student's name with a workspace whose recipe is about that student.

    Names are ``student``, ``student-2``, ``student-3`` and so on: of rows, of folders, and of their
    files in ``onnx``. The workspaces share folder, ledger and rows.
    """
    found = {STUDENT: work}
    for number, settings in enumerate(work.recipe.distill.others, start=2):
        distill = work.recipe.distill.model_copy(update={"student": settings, "others": ()})
        recipe = work.recipe.model_copy(update={"distill": distill})
        other = Workspace(recipe, work.folder, work.hardware, work.offline)
        other.ledger, other.rows, other.max_length = work.ledger, work.rows, work.max_length
        other.task = work.task  # it has read the rows, and knows what it has read
        found[f"{STUDENT}-{number}"] = other
    return found


def float_row(student: str) -> str:
    """Return the name of the row of a student's float file."""
    return f"{student}-onnx"


def student_of(row: Row) -> str:
    """Return the name of the student that a file's row is about, float or quantized."""
    if row.stage == "export":
        return row.name.removesuffix("-onnx")
    return str(row.agreement.get("with", float_row(STUDENT))).removesuffix("-onnx")
