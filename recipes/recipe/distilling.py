"""How a student is made, and what it learns from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distill import Objective, objectives
from distill.builtin.prediction import CrossEntropy, KullbackLeibler
from distill.builtin.states import Embeddings, Hidden
from distill.objective import needed
from recipes.augmentations import AnyAugmentation
from recipes.recipe.base import Objectives, Positive, Settings
from recipes.recipe.teaching import OF_LABELS, TrainSettings


class StudentSettings(Settings):
    """The small model.

    Attributes:
        layers: How many layers to keep, or which, counted from 0; null for all.
        model: The backbone that they are taken from, named as `BackboneSettings.model`; null for
            the teacher itself.
        choose: Which layers a number stands for: evenly spread ones, or those without which the
            last states change most on training texts.
        feed_forward: Neurons that each layer's feed-forward part keeps, the most important ones;
            null for all.
        heads: Attention heads that each layer keeps, likewise; only for architectures that write
            down the size of a head, which BERT and its kin do not.
        vocabulary: Tokens to keep besides those of the texts that are learnt from and single
            characters, the most frequent ones; null for all.
        train_embeddings: Whether the student's embeddings learn too.
    """

    layers: Positive | Annotated[tuple[int, ...], Field(strict=False, min_length=1)] | None = None
    model: str | None = None
    choose: Literal["spread", "importance"] = "spread"
    feed_forward: Positive | None = None
    heads: Positive | None = None
    vocabulary: Annotated[int, Field(ge=0)] | None = None
    train_embeddings: bool = False

    @model_validator(mode="after")
    def _something_to_choose(self) -> StudentSettings:
        if self.choose != "spread" and not isinstance(self.layers, int):
            raise ValueError(
                f"choose={self.choose} is for a number of layers; with layers="
                f"{'null' if self.layers is None else list(self.layers)} there is nothing to "
                "choose. Leave it out"
            )
        return self


class ImitateSettings(Settings):
    """A stage before the task: the student learns to compute what a larger encoder computes.

    Its outcome is kept beside the downloaded assets and found again by everything that it depends
    on, so that a second run with the same parent, text and settings starts from it at once.

    Attributes:
        parent: Whom the student imitates: the pretrained backbone that it is cut from, or the
            teacher, which knows the task.
        text: Plain text: a file, or a data set by name.
        rows: How many of its texts are read, drawn by the seed; null for all.
        own: How many times the training texts are read beside them.
        objectives: The terms of the loss; only what can be asked of an encoder.
        train: The training.
    """

    parent: Literal["backbone", "teacher"] = "backbone"
    text: str = "plain-text"
    rows: Positive | None = None
    own: Annotated[int, Field(ge=0)] = 1
    objectives: Objectives = (Hidden(map="last"),)
    train: TrainSettings = TrainSettings(epochs=1, learning_rate=5e-4)

    @model_validator(mode="after")
    def _all_is_read(self) -> ImitateSettings:
        for name in (*OF_LABELS, "augment", "copies", "metric", "patience"):
            if getattr(self.train, name) != TrainSettings.model_fields[name].default:
                raise ValueError(
                    f"train.{name} has no effect in an imitation, which reads its texts as they "
                    "are, without labels, to the end. Leave it out"
                )
        return self

    @model_validator(mode="after")
    def _no_labels(self) -> ImitateSettings:
        for objective in self.objectives:
            if not objective.needs or "logits" in objective.needs:
                raise ValueError(
                    f"objective {objectives.name_of(type(objective))} is about answers, and plain "
                    "text has none: use it in distill.objectives, and here one that compares "
                    "states, such as hidden"
                )
        return self

    @model_validator(mode="after")
    def _something_learns(self) -> ImitateSettings:
        if any(isinstance(objective, Embeddings) for objective in self.objectives):
            raise ValueError(
                "objective embeddings has no effect in an imitation, in which only the layers "
                "learn. Leave it out"
            )
        return self


class RefineSettings(Settings):
    """The student's last training, on the training rows alone.

    Further texts are many, and those that are made are crooked: a student that ends on the rows
    themselves answers such rows better.

    Attributes:
        epochs: Passes over the training rows, at most; the best of them is kept, if it is as good
            on validation rows as what the training before has left.
        learning_rate: Peak of the learning rate.
        batch_size: Rows per step, in each process.
    """

    epochs: Positive = 6
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    batch_size: Positive = 16


class DistillSettings(Settings):
    """How the student learns.

    Attributes:
        student: The small model.
        others: Further small models, of which `ExportSettings.choose` takes the one to ship. All
            learn alike; only `student` has one that learns without a teacher beside it.
        teacher: Whether the teacher's answers are kept on disk or asked for at every step.
        teachers: Further teachers that were trained for the same labels: folders of models, such
            as ``merged`` of other runs, or ``hub:owner/name``.
        combine: How several teachers become one: the mean of their probabilities, the mean
            weighted by their skill on validation rows, or for each text the best of them.
        folds: Into how many parts the training rows are split, so that each part is answered by a
            teacher that learnt from the others only; null to ask the one teacher that saw them all.
        calibrate: Whether the teacher's logits are divided by a temperature that is fitted on
            validation rows.
        text: Further texts without labels, which the teacher answers: a file, or a data set by
            name. What validation or test rows say is taken out of it.
        augment: Ways to make new texts of the training texts, which the teacher answers.
        copies: New texts for each training text.
        imitate: A stage before; null for none.
        objectives: The terms of the loss. Of labels with an order ``ce`` is the loss with soft
            labels, as in `TrainSettings.loss`.
        train: The student's training.
        refine: A training after it, on the training rows alone, by the same objectives, and in all
            else as `train` says; null for none.
        alone: How long the student without a teacher learns: for as many epochs as the student,
            those of `refine` included, or until it has read as much as the student has, earlier
            stages included and whatever `train` says about patience; its best epoch is kept.
    """

    student: StudentSettings = StudentSettings(layers=3)
    others: Annotated[tuple[StudentSettings, ...], Field(strict=False)] = ()
    teacher: Literal["cached", "live"] = "cached"
    teachers: Annotated[tuple[str, ...], Field(strict=False)] = ()
    combine: Literal["mean", "skill", "choice"] = "mean"
    folds: Annotated[int, Field(ge=2)] | None = None
    calibrate: bool = False
    text: str | None = None
    augment: Annotated[tuple[AnyAugmentation, ...], Field(strict=False)] = ()
    copies: Positive = 4
    imitate: ImitateSettings | None = None
    objectives: Objectives = (KullbackLeibler(), Hidden(), CrossEntropy())
    train: TrainSettings = TrainSettings(epochs=5, learning_rate=3e-4)
    refine: RefineSettings | None = None
    alone: Literal["epochs", "reading"] = "epochs"

    @model_validator(mode="after")
    def _all_is_read(self) -> DistillSettings:
        taught = bool(needed(self.objectives))
        without: dict[str, tuple[bool, str]] = {
            "combine": (bool(self.teachers), "distill.teachers names no further teacher"),
            "copies": (bool(self.augment), "distill.augment names no augmentation"),
            "refine": (
                bool(self.augment or self.text),
                "the student has read the training rows alone before: neither distill.text nor "
                "distill.augment adds to them",
            ),
            **dict.fromkeys(
                ("teacher", "teachers", "folds", "calibrate", "text", "augment"),
                (taught, "no objective asks the teacher for anything"),
            ),
        }
        for name, (read, why) in without.items():
            if not read and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} has no effect, because {why}. Leave it out")
        return self

    @model_validator(mode="after")
    def _labels_are_learnt(self) -> DistillSettings:
        if self.train.loss is not None:
            raise ValueError(
                "train.loss has no effect on a student, whose loss is distill.objectives: put "
                f"{{name: {objectives.name_of(type(self.train.loss))}, …}} there"
            )
        about_labels = any(type(o).weighted is not Objective.weighted for o in self.objectives)
        if self.train.class_weights is not None and not about_labels:
            raise ValueError(
                "train.class_weights has no effect, because no objective looks at labels. Add ce "
                "to distill.objectives, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _embeddings_learn(self) -> DistillSettings:
        students = (self.student, *self.others)
        if not all(student.train_embeddings for student in students) and any(
            isinstance(objective, Embeddings) for objective in self.objectives
        ):
            raise ValueError(
                "objective embeddings has no effect on embeddings that do not learn: set "
                "student.train_embeddings=true, or leave it out"
            )
        return self
