"""How a backbone learns from the rows, and becomes plain weights again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from adapters.backbone import Quantization
from adapters.hardware import Precision
from adapters.merge import MergeInto
from distill import Objective, objectives
from recipes.augmentations import AnyLabelKeepingAugmentation
from recipes.recipe.base import AnyObjective, Positive, Settings
from recipes.tasks.columns import label_name


class BackboneSettings(Settings):
    """The pretrained encoder.

    Attributes:
        model: Name from the catalogue, a local folder, or ``hub:owner/name``.
        quantization: How the frozen weights are held while the strategy learns.
        double_quantization: Whether the scales of 4-bit weights are quantized in turn.
    """

    model: str = "minilm-l6"
    quantization: Quantization = "nf4"
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
        batch_size: Rows per step, in each process.
        warmup: Share of all steps in which the learning rate rises.
        weight_decay: Decoupled weight decay (AdamW).
        max_grad_norm: Gradients are clipped to this norm.
        dropout: Probability of the model's dropout layers; null keeps the model's own. A short
            training does well without, and drawing random numbers costs a processor a tenth of it.
        precision: bfloat16 autocast where the device computes in it (``auto``), always, or never;
            for training, for the embeddings of a whole data set, and for a teacher's answers.
        loss: What is minimized: an objective that looks at the labels alone, such as ``ce`` (with
            ``smoothing``) or ``focal`` (with ``gamma``); null for the problem's own loss. Of labels
            with an order ``ce`` is the problem's own, cross-entropy with soft labels that let a
            near miss cost less than a far one, and takes no ``smoothing``, just as it is among the
            objectives of a student; ``{name: focal, gamma: 0}`` is plain cross-entropy. A student
            minimizes `DistillSettings.objectives`.
        class_weights: How much a row of each label counts in the loss: ``balanced`` lets all labels
            count the same in sum; or a weight by label name, 1 where none is given. They are scaled
            to 1 on the average of the rows. Where a row may have several labels, it is how much a
            row that has the label counts against one that has not, and ``balanced`` lets both
            count the same in sum, label by label. In distillation those terms have them that look
            at labels.
        resample: How often rows of each label are drawn in an epoch, which stays as long as it is:
            all labels alike (``balanced``), or by the square roots of their numbers of rows
            (``sqrt``), half-way there; null to read every row once. A row with several labels is
            drawn as its rarest one.
        augment: Ways to make new texts of the training texts, which go by the same labels.
        augment_classes: Of which labels: all, or those with fewer rows than the mean label, which
            get as many as they lack; a row with several labels counts as its rarest one.
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
    precision: Precision = "auto"
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
        if self.copies != type(self).model_fields["copies"].default and not self.augment:
            raise ValueError(
                f"copies={self.copies} has no effect, because augment names no augmentation. Name "
                "one, such as augment=[swap], or leave it out"
            )
        return self


#: Fields of a training that go by the labels of the rows.
OF_LABELS = ("loss", "class_weights", "resample", "augment_classes")


class ContrastSettings(Settings):
    """A stage before fine-tuning, for few labelled rows (Tunstall et al., 2022, arXiv:2209.11055).

    All that the strategy lets learn is trained to bring texts of one label together and those of
    others apart; the output layer then begins as a logistic regression. Warm-up, weight decay,
    clipping and precision are those of `Recipe.train`.

    Attributes:
        epochs: Passes over the training rows.
        learning_rate: Peak of the learning rate.
        batch_size: Rows per step, in each process, each compared with all others of them.
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

    into: MergeInto = "original"
