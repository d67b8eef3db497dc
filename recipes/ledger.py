"""The ledger: one row for each artefact, kept on disk after every stage."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.errors import RecipeError
from recipes.whole_files import write_json

if TYPE_CHECKING:
    from export.ladder import Form

#: Fields of a row that two equal runs need not share.
TIMINGS = ("seconds", "teacher_seconds", "latency_ms", "tokens_per_second", "peak_memory_bytes")


@dataclass(frozen=True)
class Row:
    """What is known of one artefact.

    Attributes:
        stage: The stage that made it.
        name: Its name, such as ``"teacher"`` or ``"student-int8"``.
        path: Where it lies, relative to the run's folder; empty if it leaves no file.
        size_bytes: Size of what would have to be shipped.
        parameters: Weights it holds.
        trainable_parameters: Weights of these that learnt.
        split: The split that `metrics` and `agreement` speak of.
        examples: Rows in that split.
        headline: The metric that artefacts are compared by.
        problem: What kind of answer the rows have, a name from `recipes.problems`; empty in ledgers
            of earlier versions.
        metrics: Metric name to value; fractions where they are shares.
        validation: The same metrics on the validation split, where choices are made.
        intervals: Figure to both ends of its 95% interval on the test rows, from a bootstrap.
        differences: How far this row is from others on the same test rows: ``from`` (their names;
            first the row that it is compared with, then the teacher), and each figure's difference
            with both ends of its 95% interval, from a paired bootstrap.
        agreement: With which row it was compared, the share of equal labels, and the largest
            difference of a probability; differences of logits where those were compared.
        latency_ms: Milliseconds of one call, p50 and p95: ``batch_1`` on test rows, in turn with
            all other artefacts; on validation rows, when they were tried, the steps of `ladder` by
            their names, and ``gate``, which the gate goes by.
        threads: Processor threads of the timing.
        seconds: Time that making it took.
        teacher_seconds: The part of it in which a teacher answered texts for its cache.
        tokens_per_second: Training tokens a second, evaluation not counted.
        tokens_read: Training tokens of a student over all epochs, of stages before too.
        peak_memory_bytes: The most memory that the process, or the GPU, held while it was made.
        phases: How learning phase after phase went: ``names``, ``matrix`` (accuracy on the test
            rows of each phase, after each phase), ``validation_matrix``, ``average_accuracy``,
            ``forgetting``, ``forward_transfer``, ``rehearsed_rows`` and ``labels``; see
            `recipes.incremental.phase_scores`. Empty for a run without phases.
        ladder: The forms that were tried for this file, in their order: ``step`` (its name),
            ``student`` (whose), ``form`` (what weights are held in), ``held`` and ``chosen``, the
            ``reason`` why it was left or taken, ``kept_float`` (nodes), ``metrics``, ``agreement``
            and ``size_bytes``, all of it on validation rows.
        decision: Of the bundle, how answers are made of its logits; see `recipes.decide.decide`.
        slices: Of the file that leaves, how it does on parts of the test rows; see
            `recipes.slices.sliced`.
        notes: What a reader should know, capabilities that were missing among it.
    """

    stage: str
    name: str
    path: str = ""
    size_bytes: int = 0
    parameters: int = 0
    trainable_parameters: int = 0
    split: str = "test"
    examples: int = 0
    headline: str = "accuracy"
    problem: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    validation: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, Sequence[float]] = field(default_factory=dict)
    differences: Sequence[Mapping[str, Any]] = ()
    agreement: Mapping[str, Any] = field(default_factory=dict)
    latency_ms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    threads: int = 0
    seconds: float = 0.0
    teacher_seconds: float = 0.0
    tokens_per_second: float = 0.0
    tokens_read: int = 0
    peak_memory_bytes: int = 0
    phases: Mapping[str, Any] = field(default_factory=dict)
    ladder: Sequence[Mapping[str, Any]] = ()
    decision: Mapping[str, Any] = field(default_factory=dict)
    slices: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()

    @property
    def score(self) -> float:
        """The headline metric on the test rows."""
        return self.metrics[self.headline]

    @property
    def validation_score(self) -> float:
        """The headline metric on the validation rows."""
        return self.validation[self.headline]


def held_in(row: Row) -> Form:
    """Return what the weights of a row's file are held in.

    ``student-int8`` is the row of what quantization chose, whatever that is.
    """
    usual: Form = "int8" if row.name == "student-int8" else "float32"
    return next((entry["form"] for entry in row.ladder if entry["chosen"]), usual)


class Ledger:
    """The rows of a run, in the order in which they were made.

    Args:
        path: The file; what it holds already is read.

    Raises:
        RecipeError: The file is not a ledger.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[str, Row] = {}
        if path.exists():
            try:
                entries = json.loads(path.read_text(encoding="utf-8"))
                self._rows = {entry["name"]: Row(**entry) for entry in entries}
            except (ValueError, TypeError, KeyError) as error:
                raise RecipeError(
                    f"{path} is not a ledger ({error}). Put the file back, or start a new run with "
                    "--out."
                ) from error

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows."""
        return iter(self._rows.values())

    def __contains__(self, name: object) -> bool:
        """Tell whether there is a row of this name."""
        return name in self._rows

    def __getitem__(self, name: str) -> Row:
        """Return the row of this name."""
        return self._rows[name]

    def above(self, name: str) -> str | None:
        """Return the name of the row above one, or above the next that is put; None for no row."""
        names = [None, *self._rows]
        return names[names.index(name) - 1] if name in self._rows else names[-1]

    def put(self, *rows: Row) -> None:
        """Add rows, or replace those of the same names, and write the file at once."""
        for row in rows:
            self._rows[row.name] = row
        self.write()

    def update(self, name: str, **changes: Any) -> None:
        """Change fields of one row; `write` has to follow."""
        self._rows[name] = replace(self._rows[name], **changes)

    def drop_stages(self, stages: Sequence[str]) -> None:
        """Forget the rows of some stages."""
        self._rows = {name: row for name, row in self._rows.items() if row.stage not in stages}
        self.write()

    def write(self) -> None:
        """Write the file, whole or not at all."""
        write_json(self.path, self.plain())

    def plain(self) -> list[dict[str, Any]]:
        """Return the rows as plain data."""
        return [asdict(row) for row in self]
