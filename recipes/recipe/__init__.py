"""The recipe: everything that a run depends on, typed and frozen."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from adapters import AnyStrategy, strategies
from recipes.recipe.base import Positive, Seed, Settings
from recipes.recipe.data import DataSettings, LongSettings, PhasesSettings
from recipes.recipe.distilling import DistillSettings
from recipes.recipe.shipping import DecideSettings, ExportSettings, GateSettings
from recipes.recipe.teaching import (
    BackboneSettings,
    ContrastSettings,
    MergeSettings,
    Resample,
    TrainSettings,
)

__all__ = [
    "BackboneSettings",
    "ContrastSettings",
    "DataSettings",
    "DecideSettings",
    "DistillSettings",
    "ExportSettings",
    "GateSettings",
    "LongSettings",
    "MergeSettings",
    "PhasesSettings",
    "Recipe",
    "Resample",
    "TrainSettings",
]


class Recipe(Settings):
    """Everything that a run depends on.

    Attributes:
        task: What kind of problem it is.
        data: The rows.
        phases: How the rows part into phases that are learned one after another; null to learn
            all at once.
        backbone: The pretrained encoder.
        strategy: How the encoder learns; null if the backbone is a classifier that has learnt
            the task already.
        contrast: A stage before the teacher's training, for few rows; null for none.
        train: The teacher's training.
        merge: How the adapter becomes plain weights.
        distill: How the student learns.
        export: How the student leaves.
        gate: What it has to hold.
        decide: How answers are made of its logits.
        seed: Seed of everything drawn at random in training.
        device: Where to train.
        threads: Threads on the processor; null for all of them.
        allow_fallback: Whether to go on where the machine lacks something that was asked for; it
            is noted in ``environment.json`` and in the ledger.
        plugins: Modules or files to import first, for what they register.
    """

    task: str = "text_classification"
    data: DataSettings
    phases: PhasesSettings | None = None
    backbone: BackboneSettings = BackboneSettings()
    strategy: AnyStrategy | None
    contrast: ContrastSettings | None = None
    train: TrainSettings = TrainSettings()
    merge: MergeSettings = MergeSettings()
    distill: DistillSettings = DistillSettings()
    export: ExportSettings = ExportSettings()
    gate: GateSettings = GateSettings()
    decide: DecideSettings = DecideSettings()
    seed: Seed = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Positive | None = None
    allow_fallback: bool = True
    plugins: Annotated[tuple[str, ...], Field(strict=False)] = ()

    @property
    def trainings(self) -> dict[str, TrainSettings]:
        """Every training by its key."""
        imitate = self.distill.imitate
        found = {"train": self.train, "distill.train": self.distill.train}
        return found | ({"distill.imitate.train": imitate.train} if imitate is not None else {})

    @model_validator(mode="after")
    def _possible(self) -> Recipe:
        if self.strategy is None:
            if self.backbone.quantization != "none" or self.phases is not None:
                raise ValueError(
                    "strategy: null takes the classifier backbone.model as it is; set "
                    "backbone.quantization=none and leave phases out"
                )
        elif self.strategy.needs_float_weights and self.backbone.quantization != "none":
            name = strategies.name_of(type(self.strategy))
            raise ValueError(
                f"strategy {name} trains the weights themselves, which "
                f"backbone.quantization={self.backbone.quantization} freezes; set "
                "backbone.quantization=none, or choose a strategy such as lora"
            )
        return self

    @model_validator(mode="after")
    def _taught_already(self) -> Recipe:
        for name in ("contrast", "train", "merge") if self.strategy is None else ():
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} has no effect with strategy: null, which takes the teacher as it is; "
                    "the student's training is distill.train. Leave it out (extend distill_only)"
                )
        return self

    @model_validator(mode="after")
    def _others_are_compared(self) -> Recipe:
        if self.distill.others and self.export.choose != "pareto":
            raise ValueError(
                "distill.others has no effect unless all are compared: set export.choose=pareto, "
                "or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _folds_learn(self) -> Recipe:
        if self.distill.folds is not None and (self.strategy is None or self.phases is not None):
            raise ValueError(
                "distill.folds trains a teacher for each fold as the recipe's own is trained, all "
                "rows at once: it needs a strategy, and no phases. Leave it out"
            )
        return self

    @model_validator(mode="after")
    def _phases_have_rows(self) -> Recipe:
        if self.phases is not None and (self.contrast is not None or self.data.per_class):
            what = "contrast" if self.contrast is not None else "data.per_class"
            raise ValueError(
                f"{what} is for few rows that are learnt all at once. Leave it out, or leave "
                "phases out"
            )
        return self

    @model_validator(mode="after")
    def _phases_as_they_are(self) -> Recipe:
        if self.phases is not None and self.train.augment:
            raise ValueError(
                "train.augment is for rows that are learnt all at once: what is made of the rows "
                "of a phase would not count as kept. Leave it out, or leave phases out"
            )
        return self

    @model_validator(mode="after")
    def _phases_have_classes(self) -> Recipe:
        if self.phases is not None and self.data.problem not in ("auto", "single_label"):
            raise ValueError(
                f"phases are for texts with one of several labels, and data.problem="
                f"{self.data.problem}. Leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _nothing_for_absent_labels(self) -> Recipe:
        smoothed = bool(getattr(self.train.loss, "smoothing", 0))
        if smoothed and self.phases and self.strategy and self.strategy.isolates_tasks:
            raise ValueError(
                "train.loss.smoothing gives every label a share, and strategy "
                f"{strategies.name_of(type(self.strategy))} leaves those out that a phase does not "
                "have. Leave it out, or choose another strategy"
            )
        return self

    @model_validator(mode="after")
    def _phases_have_files(self) -> Recipe:
        if self.phases is None or self.phases.files is None:
            return self
        if self.data.train is None:
            raise ValueError("phases.files go with data.train (the first phase), not with a source")
        if self.data.validation or self.data.test:
            raise ValueError(
                "phases.files go without data.validation and data.test: each phase has its own "
                "part of both, drawn from its file; with files of your own, mark the phases in a "
                "column of all of them and set phases.column"
            )
        files = [self.data.train, *self.phases.files]
        if twice := [file for number, file in enumerate(files) if file in files[:number]]:
            raise ValueError(f"data.train and phases.files name {twice[0]} twice")
        return self
