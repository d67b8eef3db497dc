"""What a student starts from, and the same without a teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.classifier import draw_head
from distill.estimate import estimate
from distill.objective import Pair
from distill.pruning import prune_feed_forward, prune_heads
from distill.students import chosen_layers, cut, kept_layers, layer_stack, spread
from distill.vocabulary import trim_embeddings, trimmed_tokenizer
from recipes import assets
from recipes.recipe import DistillSettings
from recipes.tasks import Split
from recipes.workspace import Workspace, load_tokenizer

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: Training rows that layers, neurons and heads are measured on, and how many at a time.
_MEASURED_ROWS, _MEASURED_BATCH = 64, 32
#: Training rows by which two tokenizers are compared.
_PROBES = 256


@dataclass(frozen=True)
class Start:
    """Two students that have learnt nothing yet.

    Attributes:
        student: What learns from the teacher: layers of the teacher, or of another backbone.
        alone: What learns without: the same layers as they were pretrained. Where a finished
            classifier is both teacher and backbone, no other layers are known: then they are the
            teacher's, under a new head.
        tokenizer: The tokenizer of both.
        origin: The folder of the pretrained backbone that both have their layers from.
        kept: Which layers of it they have, counted from 0.
        pair: Facts about student and teacher.
    """

    student: PreTrainedModel
    alone: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    origin: Path
    kept: tuple[int, ...]
    pair: Pair


def make(work: Workspace, teacher: PreTrainedModel) -> Start:
    """Make both students as the recipe says, with all of their tokens yet.

    Args:
        work: The run.
        teacher: The teacher as plain weights.

    Raises:
        RecipeError: The student's backbone cannot be used.
        DistillError: It cannot be cut so.
    """
    settings = work.recipe.distill.student
    if settings.model is None:
        origin, tokenizer, whole = work.backbone.path, work.tokenizer, teacher
    else:
        origin = assets.resolve(settings.model, "model", offline=work.offline).path
        tokenizer, whole = load_tokenizer(origin), work.load(path=origin)
    kept = _kept(work, whole, tokenizer)
    pretrained = work.load() if settings.model is None else whole
    if work.recipe.strategy is None and settings.model is None:
        draw_head(pretrained, work.recipe.seed)  # the backbone's own knows the task
    student, alone = (_narrowed(work, cut(model, kept), tokenizer) for model in (whole, pretrained))
    depth = len(layer_stack(teacher))
    pair = pair_of(
        student,
        teacher,
        kept if settings.model is None else spread(len(kept), depth),
        same_tokens=same_tokens(work, tokenizer, work.tokenizer),
    )
    return Start(student, alone, tokenizer, origin, kept, pair)


def same_tokens(
    work: Workspace, one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase
) -> bool:
    """Tell whether two tokenizers have the same tokens and read training texts alike."""
    texts = list(work.rows.train.texts[:_PROBES])
    first, second = ([own.get_vocab(), own(texts)["input_ids"]] for own in (one, other))
    return first == second


def trimmed(work: Workspace, start: Start, texts: Sequence[str]) -> Start:
    """Return the students with the tokens that the recipe keeps.

    Args:
        work: The run.
        start: From `make`.
        texts: All texts that they will learn from.
    """
    extra = work.recipe.distill.student.vocabulary
    if extra is None:
        return start
    tokenizer, kept = trimmed_tokenizer(start.tokenizer, texts, extra)
    student, alone = (trim_embeddings(model, kept) for model in (start.student, start.alone))
    return replace(start, student=student, alone=alone, tokenizer=tokenizer)


def pair_of(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    layers: tuple[int, ...],
    *,
    same_tokens: bool,
) -> Pair:
    """Return the facts about a student and a teacher.

    Args:
        student: The one.
        teacher: The other.
        layers: The teacher layer that each student layer answers to.
        same_tokens: Whether both see a text as the same tokens.
    """
    return Pair(
        student_width=student.config.hidden_size,
        teacher_width=teacher.config.hidden_size,
        layer_map=layers,
        same_tokens=same_tokens,
        student_heads=student.config.num_attention_heads,
        teacher_heads=teacher.config.num_attention_heads,
        teacher_layers=len(layer_stack(teacher)),
    )


def is_cut_from_teacher(settings: DistillSettings) -> bool:
    """Return whether the student starts from the teacher's own layers.

    It does not if it comes from another backbone, nor if it first imitates the teacher's backbone:
    then it has that one's layers.
    """
    imitate = settings.imitate
    return settings.student.model is None and (imitate is None or imitate.parent == "teacher")


def _whose(settings: DistillSettings) -> str:
    """Name the model that the student's layers come from."""
    own = "the teacher" if is_cut_from_teacher(settings) else "the teacher's backbone"
    return settings.student.model or own


def described(distill: DistillSettings) -> str:
    """Say in a few words what a student is made of."""
    settings, whose = distill.student, _whose(distill)
    if settings.layers is None:
        said = whose
    elif isinstance(settings.layers, int):
        said = f"{settings.layers} layers of {whose}"
    else:
        said = f"layers {', '.join(map(str, settings.layers))} of {whose}"
    cuts = {
        "feed-forward neurons": settings.feed_forward,
        "heads": settings.heads,
        "further tokens": settings.vocabulary,
    }
    return ", ".join([said, *(f"{n:,} {what}" for what, n in cuts.items() if n is not None)])


def foretold(work: Workspace, start: Start) -> list[str]:
    """Return what is known of the student before it learns, a sentence each."""
    bits = {"int8": 8, "int4": 4}[work.recipe.export.embeddings]
    found = estimate(start.student, embedding_bits=bits)
    layers = ", ".join(map(str, start.kept))
    settings = work.recipe.distill
    said = [
        f"the student keeps layers {layers} of {_whose(settings)}",
        f"{found.parameters / 1e6:.1f} M parameters; about {found.float_bytes / 1e6:.0f} MB as "
        f"float32, {found.int8_bytes / 1e6:.0f} MB as int8; {found.latency_ms:.1f} ms for a text "
        "in PyTorch",
    ]
    if settings.student.vocabulary is not None:
        said.append(f"{len(start.tokenizer):,} tokens stay")
    return said


def _kept(
    work: Workspace, whole: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> tuple[int, ...]:
    settings, depth = work.recipe.distill.student, len(layer_stack(whole))
    wanted = depth if settings.layers is None else settings.layers
    if settings.choose == "importance" and isinstance(wanted, int):
        return chosen_layers(whole, wanted, _batches(work, tokenizer, whole))
    return kept_layers(wanted, depth)


def _narrowed(
    work: Workspace, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel:
    settings = work.recipe.distill.student
    cuts: tuple[tuple[int | None, Callable[..., PreTrainedModel]], ...] = (
        (settings.feed_forward, prune_feed_forward),
        (settings.heads, prune_heads),
    )
    for wanted, prune in cuts:
        if wanted is not None:
            model = prune(model, wanted, _batches(work, tokenizer, model))
    return model


def _batches(
    work: Workspace, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel
) -> list[Mapping[str, Tensor]]:
    """Return inputs of some training rows, as they come, on the model's device."""
    train = work.rows.train
    few = Split(train.texts[:_MEASURED_ROWS], train.labels[:_MEASURED_ROWS])
    examples = work.task.features(few, tokenizer, work.max_length)
    collate = work.task.collator(tokenizer)
    batches: list[Mapping[str, Any]] = [
        collate(examples[first : first + _MEASURED_BATCH])
        for first in range(0, len(examples), _MEASURED_BATCH)
    ]
    names = ("input_ids", "attention_mask")
    # Of texts in many windows, as many rows as else.
    return [
        {name: batch[name][:_MEASURED_BATCH].to(model.device) for name in names}
        for batch in batches
    ]
