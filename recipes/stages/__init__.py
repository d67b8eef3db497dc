"""The stages of a run, in their order; each turns one artefact on disk into the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recipes.workspace import Workspace


#: The folder of the teacher's answers; what is in it is checked, not cleared.
SIGNALS = "signals"


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes:
        name: What ``--from`` and the ledger call it; the module of this name holds `run`.
        folders: What it leaves in the run's folder, and what is cleared before it starts anew;
            patterns for `Path.glob`.
        sections: Parts of the recipe that it is the first to depend on.
        distributed: Whether every process of a torchrun takes part, rather than the first alone.
    """

    name: str
    folders: tuple[str, ...]
    sections: tuple[str, ...]
    distributed: bool = False

    def reads(self, key: str) -> int:
        """Tell whether this stage is the first to depend on a dotted key of the recipe.

        Returns:
            How long the name of the part is that the key belongs to: of two stages the one with the
            longer one, which is about less, is meant. 0 for a key of another stage.
        """
        parts = [part for part in self.sections if key == part or key.startswith(f"{part}.")]
        return max(map(len, parts), default=0)

    @property
    def run(self) -> Callable[[Workspace], None]:
        """The stage's function; what it imports is loaded only now."""
        function: Callable[[Workspace], None] = import_module(f"recipes.stages.{self.name}").run
        return function


STAGES = (
    Stage(
        "baseline",
        ("baseline",),
        (
            "task",
            "data",
            "phases",
            "backbone",
            "train.precision",  # of the embeddings
            "seed",
            "device",
            "threads",
            "allow_fallback",
            "plugins",
        ),
    ),
    Stage("finetune", ("joint", "teacher"), ("strategy", "contrast", "train"), distributed=True),
    Stage("merge", ("merged",), ("merge",)),
    Stage(
        "distill",
        ("student", "student-[0-9]*", "student-alone", "folds", "imitation"),
        ("distill",),
        distributed=True,
    ),
    Stage("export", ("onnx",), ("export.optimize",)),
    Stage(
        "quantize",
        (),
        ("export.quantization", "export.choose", "export.embeddings", "gate"),
    ),
    Stage("bundle", ("bundle",), ("decide", "data.slices")),
)


def first_reader(key: str) -> int:
    """Return the place in `STAGES` of the first stage that depends on a dotted key."""
    return max(range(len(STAGES)), key=lambda place: (STAGES[place].reads(key), -place))
