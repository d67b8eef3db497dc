"""The recipe: everything that a run depends on, typed and frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from adapters import AnyStrategy, strategies
from adapters.registry import by_name
from distill import Objective, objectives
from distill.builtin.prediction import CrossEntropy, KullbackLeibler
from distill.builtin.states import Embeddings, Hidden
from distill.objective import needed
from recipes.augmentations import AnyAugmentation, AnyLabelKeepingAugmentation
from recipes.tasks.columns import label_name

Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Settings(BaseModel):
    """Base of every section: strict types, no unknown keys, no change after reading."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _over_defaults(cls, given: Any) -> Any:
        """Lay what is given of a section over the section's own defaults, not over its class's."""
        if not isinstance(given, Mapping):
            return given
        laid = dict(given)
        for name, field in cls.model_fields.items():
            default, part = field.default, given.get(name)
            if isinstance(default, Settings) and isinstance(part, Mapping):
                own = {key: getattr(default, key) for key in default.model_fields_set}
                laid[name] = {**own, **part}
        return laid


AnyObjective = Annotated[Objective, *by_name(objectives)]
Objectives = Annotated[tuple[AnyObjective, ...], Field(strict=False, min_length=1)]


class LongSettings(Settings):
    """How a text longer than `DataSettings.max_length` is read, in training and at the edge.

    Attributes:
        way: ``head`` cuts it on the right; ``head_tail`` keeps a quarter of the room for its
            beginning and the rest for its end; ``windows`` reads it in overlapping windows, each
            of `DataSettings.max_length` tokens.
        stride: How many tokens neighboring windows share.
        pool: How the logits of the windows become those of the text: their mean, the highest of
            each label, or the mean weighted by attention, which learns without a weight of its own
            (see `export.edge.pooled`) and is for one of several labels only.
        most: With more windows than this, so many are read, spread evenly over the text; null for
            all of them.
        train_windows: How many windows of a text a step of training reads, drawn anew in each
            epoch; null for all of them.
    """

    way: Literal["head", "head_tail", "windows"] = "head"
    stride: Annotated[int, Field(ge=0)] = 64
    pool: Literal["mean", "max", "attention"] = "mean"
    most: Positive | None = 16
    train_windows: Positive | None = 2

    @model_validator(mode="after")
    def _windows_are_read(self) -> LongSettings:
        for name, field in type(self).model_fields.items() if self.way != "windows" else ():
            if name != "way" and getattr(self, name) != field.default:
                raise ValueError(
                    f"{name} has no effect with way={self.way}. Set way=windows, or leave it out"
                )
        return self


class DataSettings(Settings):
    """Which rows to learn from, and how they are split.

    Attributes:
        source: Name of a data set: from the catalogue, or ``hub:owner/name``.
        train: File to learn from (CSV, TSV, JSONL or Parquet), instead of `source`.
        validation: File to choose models on; without it a part of the training rows.
        test: File to report on; without it a part of the rows.
        text: Column with the text; guessed where it is obvious.
        pair: Column with a second text, where rows are pairs of texts (does one follow from the
            other, do they say the same); guessed from well-known couples of names.
        label: Column with the label, guessed where it is obvious; or several columns that say with
            0 and 1 which labels a text has.
        problem: What kind of answer a row has: one of several labels, any number of them, one of
            several that have an order, or a number. By default it is found from the labels.
        separator: What parts the labels of a text that has several in one column.
        order: The labels from low to high, where they have an order and are no numbers.
        min_rows: Rows that a label needs, before splits are drawn; null for what the splits need.
        rare: What becomes of rows whose label has fewer: they are left out, or their labels become
            one, called ``other``.
        test_fraction: Share of all rows that becomes the test split, stratified by label.
        validation_fraction: Share of the remaining rows that becomes the validation split.
        fraction: Share of the training rows that is learnt from, of each class alike and at least
            one row; a smaller share is a part of a larger one. Validation and test split stay.
        per_class: So many labelled rows of each class are there for a training, as if nobody had
            labelled more: of them `validation_fraction`, at least one, becomes the validation
            split, the others are learnt from. The test split stays.
        draw_seed: Seed of what `fraction` and `per_class` draw; null for `Recipe.seed`, so that
            runs with several seeds learn from other rows.
        split_seed: Seed of the splits; kept apart from `Recipe.seed`, so that runs with several
            seeds are compared on the same test rows.
        overlap: What to do with texts of the test split that also occur in a file to learn from.
        invalid_rows: What to do with rows without text or label, or with too long a text.
        max_characters: Length from which a text counts as broken (an unclosed quote, usually).
        max_length: Length in tokens that is read at once; by default the backbone's own limit, at
            most 256.
        long: How longer texts are read.
        slices: Columns by whose values the results are shown too: the language of a text, say, or
            where it is from. Numbers are cut into quarters.
    """

    source: str | None = None
    train: str | None = None
    validation: str | None = None
    test: str | None = None
    text: str | None = None
    pair: str | None = None
    label: str | Annotated[tuple[str, ...], Field(strict=False, min_length=1)] | None = None
    problem: Literal["auto", "single_label", "multi_label", "ordinal", "regression"] = "auto"
    separator: Annotated[str, Field(min_length=1)] | None = None
    order: Annotated[tuple[str | int | float, ...], Field(strict=False, min_length=2)] | None = None
    min_rows: Annotated[int, Field(ge=2)] | None = None
    rare: Literal["drop", "merge"] = "drop"
    test_fraction: Fraction = 0.2
    validation_fraction: Fraction = 0.1
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    per_class: Annotated[int, Field(ge=2)] | None = None
    draw_seed: Seed | None = None
    split_seed: Seed = 0
    overlap: Literal["remove", "refuse"] = "remove"
    invalid_rows: Literal["refuse", "drop"] = "refuse"
    max_characters: Positive = 100_000
    max_length: Annotated[int, Field(ge=4)] | None = None
    slices: Annotated[tuple[str, ...], Field(strict=False)] = ()
    long: LongSettings = LongSettings()

    @model_validator(mode="after")
    def _one_origin(self) -> DataSettings:
        if (self.source is None) == (self.train is None):
            raise ValueError("give either source (a data set by name) or train (a file)")
        if self.source is not None and (self.validation or self.test):
            raise ValueError("validation and test files go with train, not with source")
        return self

    @model_validator(mode="after")
    def _drawn_once(self) -> DataSettings:
        if self.per_class is not None:
            if self.fraction != 1:
                raise ValueError("give either fraction or per_class (so many rows of each class)")
            if self.validation is not None:
                raise ValueError(
                    "per_class takes the validation rows out of the few that it leaves, so that "
                    "a validation file has no effect. Leave one of them out"
                )
        elif self.draw_seed is not None and self.fraction == 1:
            raise ValueError(
                "draw_seed has no effect where all rows are learnt from: set fraction or "
                "per_class, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _one_kind(self) -> DataSettings:
        several, ordered = self.problem in ("auto", "multi_label"), self.problem in (
            "auto", "ordinal",
        )  # fmt: skip
        if not several and (self.separator is not None or isinstance(self.label, tuple)):
            raise ValueError(
                f"separator and a list of label columns are for texts with several labels, and "
                f"problem={self.problem}. Leave one of them out"
            )
        if self.order is not None and (not ordered or self.separator is not None):
            raise ValueError("order is for problem=ordinal, in which a text has one label")
        if self.min_rows is None and self.rare != "drop":
            raise ValueError("rare has no effect without min_rows. Leave it out, or set min_rows=5")
        if self.min_rows is not None and self.problem in ("ordinal", "regression"):
            raise ValueError(
                f"min_rows is for labels without an order, and problem={self.problem}. Leave it out"
            )
        if self.separator is not None and isinstance(self.label, tuple):
            raise ValueError("separator is for one column of labels, and label names several")
        return self


_Labels = Annotated[tuple[str | int | float | bool, ...], Field(strict=False, min_length=1)]


def _in_one_sentence(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except ValidationError:
        raise ValueError(
            f"{value!r} is neither a number of phases, at least 2, nor two or more groups of "
            "labels, such as [[red, green], [blue]]"
        ) from None


#: How many phases of new classes, or the labels of each.
NewClasses = Annotated[
    Annotated[int, Field(ge=2)] | Annotated[tuple[_Labels, ...], Field(strict=False, min_length=2)],
    WrapValidator(_in_one_sentence),
]


class PhasesSettings(Settings):
    """How the rows part into phases that are learned one after another.

    Attributes:
        classes: New classes in each phase: the labels in this many groups of like size, or the
            groups themselves.
        column: Column of the data of which each value is a phase, in natural order: months, for
            example.
        files: Files to learn from after `DataSettings.train`, each of them a phase.
    """

    classes: NewClasses | None = None
    column: str | None = None
    files: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> PhasesSettings:
        if [self.classes, self.column, self.files].count(None) != 2:
            raise ValueError(
                "give exactly one of classes (a number or groups of labels), column (each value "
                "is a phase) and files (further files to learn from)"
            )
        return self


class BackboneSettings(Settings):
    """The pretrained encoder.

    Attributes:
        model: Name from the catalogue, a local folder, or ``hub:owner/name``.
        quantization: How the frozen weights are held while the strategy learns.
        double_quantization: Whether the scales of 4-bit weights are quantized in turn.
    """

    model: str = "minilm-l6"
    quantization: Literal["nf4", "int8", "none"] = "nf4"
    double_quantization: bool = True


def _of_labels(loss: Objective) -> Objective:
    name = objectives.name_of(type(loss))
    if loss.needs or type(loss).parts is not Objective.parts:
        raise ValueError(
            f"objective {name} is about more than labels, and a teacher learns from these alone: "
            "choose one that needs no teacher, such as ce or focal"
        )
    for field in ("weight", "since", "until", "schedule"):
        if getattr(loss, field) != Objective.model_fields[field].default:
            raise ValueError(f"{field} has no effect on a loss of one term. Leave it out")
    return loss


def _by_label(value: Any) -> Any:
    if isinstance(value, Mapping) and value:
        return {label_name(label) or "": weight for label, weight in value.items()}
    if value is None or value == "balanced":
        return value
    raise ValueError(
        f"{value!r} is neither null nor balanced nor a weight for each label, such as "
        "{common: 1, rare: 5}"
    )


#: An objective that looks at the labels alone.
AnyLabelLoss = Annotated[AnyObjective, AfterValidator(_of_labels)]
#: Weights of the loss by label name.
ClassWeights = Annotated[
    Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None,
    BeforeValidator(_by_label),
]
#: How often classes are drawn.
Resample = Literal["balanced", "sqrt"]


class TrainSettings(Settings):
    """One training: used for the teacher, and again for the student.

    Attributes:
        epochs: Passes over the training rows, at most.
        learning_rate: Peak of the learning rate, after warm-up and before the linear decay.
        batch_size: Rows a step and process.
        warmup: Share of all steps in which the learning rate rises.
        weight_decay: Decoupled weight decay (AdamW).
        max_grad_norm: Gradients are clipped to this norm.
        dropout: Probability of the model's dropout layers; null keeps the model's own. A short
            training does well without, and drawing random numbers costs a processor a tenth of it.
        precision: bfloat16 autocast where the device computes in it (``auto``), always, or never;
            for training, and for the embeddings of a whole data set.
        loss: What is minimized: an objective that looks at the labels alone, such as ``ce`` (with
            ``smoothing``) or ``focal`` (with ``gamma``); null for the problem's own loss. Of labels
            with an order ``ce`` is the problem's own, cross-entropy with soft labels that let a
            near miss cost less than a far one, and takes no ``smoothing``, just as it is among the
            objectives of a student; ``{name: focal, gamma: 0}`` is plain cross-entropy. A student
            minimizes `DistillSettings.objectives`.
        class_weights: How much a row of each label counts in the loss: ``balanced`` lets all labels
            count the same in sum; or a weight by label name, 1 where none is given. They are scaled
            to 1 on the average of the rows. In distillation those terms have them that look at
            labels.
        resample: How often rows of each label are drawn in an epoch, which stays as long as it is:
            all labels alike (``balanced``), or by the square roots of their numbers of rows
            (``sqrt``), half-way there; null to read every row once.
        augment: Ways to make new texts of the training texts, which go by the same labels.
        augment_classes: Of which labels: all, or those with fewer rows than the mean label, which
            get as many as they lack.
        copies: New texts for each training text, if `augment` names any; with
            ``augment_classes: rare`` the most of them.
        metric: Validation metric that picks the best epoch, by name; null for the problem's own
            (accuracy, where a row has one label). `recipes.compare` marks the best cell by it, and
            `GateSettings.max_drop` guards it.
        patience: Stop after this many epochs without a better metric; null to run them all.
    """

    epochs: Positive = 4
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    batch_size: Positive = 32
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    precision: Literal["auto", "bf16", "float32"] = "auto"
    loss: AnyLabelLoss | None = None
    class_weights: ClassWeights = None
    resample: Resample | None = None
    augment: Annotated[tuple[AnyLabelKeepingAugmentation, ...], Field(strict=False)] = ()
    augment_classes: Literal["all", "rare"] = "all"
    copies: Positive = 1
    metric: str | None = None
    patience: Positive | None = 2

    @model_validator(mode="after")
    def _all_is_read(self) -> TrainSettings:
        if self.augment_classes != "all" and not self.augment:
            raise ValueError(
                f"augment_classes={self.augment_classes} has no effect, because augment names no "
                "augmentation. Name one, such as augment=[swap], or leave it out"
            )
        if self.class_weights == self.resample == "balanced":
            raise ValueError(
                "class_weights=balanced has no effect with resample=balanced, which draws all "
                "labels alike already. Leave one of them out"
            )
        return self


#: Fields of a training that go by the labels of the rows.
_OF_LABELS = ("loss", "class_weights", "resample", "augment_classes")


class ContrastSettings(Settings):
    """A stage before fine-tuning, for few labelled rows (Tunstall et al., 2022, arXiv:2209.11055).

    All that the strategy lets learn is trained to bring texts of one label together and those of
    others apart; the output layer then begins as a logistic regression. Warm-up, weight decay,
    clipping and precision are those of `Recipe.train`.

    Attributes:
        epochs: Passes over the training rows.
        learning_rate: Peak of the learning rate.
        batch_size: Rows a step and process, each compared with all others of them.
        temperature: By which similarities are divided: the smaller, the more the nearest count.
    """

    epochs: Positive = 20
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    batch_size: Annotated[int, Field(ge=4)] = 16
    temperature: Annotated[float, Field(gt=0)] = 0.1


class MergeSettings(Settings):
    """How the adapter is folded into plain weights.

    Attributes:
        into: The checkpoint's own float weights, or the quantized ones turned back to float.
    """

    into: Literal["original", "dequantized"] = "original"


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
        for name in (*_OF_LABELS, "augment", "copies", "metric", "patience"):
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
        alone: How long the student without a teacher learns: for as many epochs as the student, or
            until it has read as much as the student has, earlier stages included.
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
    alone: Literal["epochs", "reading"] = "epochs"

    @model_validator(mode="after")
    def _all_is_read(self) -> DistillSettings:
        taught = bool(needed(self.objectives))
        without: dict[str, tuple[bool, str]] = {
            "combine": (bool(self.teachers), "distill.teachers names no further teacher"),
            "copies": (bool(self.augment), "distill.augment names no augmentation"),
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


class ExportSettings(Settings):
    """How the student leaves.

    Attributes:
        quantization: ``int8`` tries forms with 8-bit integers, the fastest first, until one holds
            what the gate asks; ``auto`` goes on to float16 and float32 where none does; ``none``
            ships float32.
        choose: The first form that holds; or ``pareto``: all of them are measured, and of those
            that hold and are within `GateSettings.max_drop` of the most accurate, the smallest
            file is taken.
        embeddings: Bits of the tables of tokens in a quantized file. Four of them make it smaller,
            by a third with three layers of MiniLM, and cost a few hundredths of a millisecond.
        optimize: How far the graph is rewritten before it is quantized: not at all; by
            onnxruntime's tools, which fuse layer norms and activations; or fully, with
            fused attention and without what the head does not read.
    """

    quantization: Literal["int8", "auto", "none"] = "int8"
    choose: Literal["first", "pareto"] = "first"
    embeddings: Literal["int8", "int4"] = "int8"
    optimize: Literal["none", "basic", "full"] = "full"

    @model_validator(mode="after")
    def _quantized(self) -> ExportSettings:
        for name in ("embeddings", "choose") if self.quantization == "none" else ():
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} has no effect with quantization=none, which ships float32. Leave it "
                    "out, or set quantization=auto"
                )
        return self


class DecideSettings(Settings):
    """How the bundle makes answers of logits; all of it is fitted on validation rows.

    Attributes:
        calibrate: Whether logits are divided by a temperature that makes probabilities as certain
            as they are right; no label changes, but those of ordered labels.
        offsets: The metric for which each label's log-probability gets an offset before the highest
            is taken; of several labels at a time, each label's log-odds, which moves its threshold.
            Kept only if that gains on validation rows that it was not fitted on. Null for no
            offsets.
        precision: Share of right labels that is wished: a label less probable than it takes for
            that is not given. Null to give all.
        confidence: How sure to be that the precision is reached on other rows; null to go by the
            share on the validation rows.
    """

    calibrate: bool = True
    offsets: Literal["accuracy", "macro_f1", "micro_f1", "balanced_accuracy"] | None = None
    precision: Fraction | None = None
    confidence: Fraction | None = None

    @model_validator(mode="after")
    def _sure_of_something(self) -> DecideSettings:
        if self.confidence is not None and self.precision is None:
            raise ValueError(
                "confidence has no effect without a precision to be sure of. Leave it out, or set "
                "decide.precision"
            )
        return self


class GateSettings(Settings):
    """What the shipped file has to hold; the first two against the float ONNX file.

    All of it is measured on validation rows.

    Attributes:
        max_drop: What quantization may cost, as a fraction: of the metric that the student is
            chosen by (``distill.train.metric``), else of the teacher's (``train.metric``), else of
            the problem's own, which is the accuracy where a row has one label. A metric of which
            less is better is passed over.
        min_label_agreement: Share of rows on which both must give the same answer: the same label,
            the same labels, or numbers apart by less than a tenth of their deviation.
        max_latency_ms: Median milliseconds that one text may take on this machine, from its tokens
            on; null for no such goal. What holds it narrowly today may not tomorrow.
        max_size_mb: Size that the ONNX file may have, in millions of bytes; null for no such goal.
    """

    max_drop: Annotated[float, Field(ge=0, le=1)] = 0.01
    min_label_agreement: Annotated[float, Field(ge=0, le=1)] = 0.98
    max_latency_ms: Annotated[float, Field(gt=0)] | None = None
    max_size_mb: Annotated[float, Field(gt=0)] | None = None


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
