"""What the conformance kit tries objectives on: random batches, and a tiny school of BERTs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from distill.objectives import Objective, Outputs, Pair
from distill.signals import LiveTeacher, Signals

if TYPE_CHECKING:
    from torch import Tensor, nn

    from distill.learner import Learner

#: What most checks are made on: 6 rows of up to 5 tokens, 3 classes, 2 student layers.
PLAIN = Pair(student_width=8, teacher_width=8, layer_map=(0, 3), same_tokens=True)

LABELS = (0, 2, 1, 1, 0, 2)
LENGTHS = (5, 3, 2, 4, 5, 2)
TEXTS = ("a b c d e", "c a b", "d f", "e g b a", "f b c g a", "g d")
WORDS = ("[PAD]", "[UNK]", *"abcdefg")


class Fault(Exception):  # noqa: N818
    """What a check found and what to do; `check_objective` puts the names to it."""


def hold(condition: bool, otherwise: str) -> None:
    """Raise `Fault` with these words unless the condition holds."""
    if not condition:
        raise Fault(otherwise)


def words(error: Exception) -> str:
    """Return an error on one line, without its full stop."""
    text = str(error).rstrip(".")
    if isinstance(error, ValidationError):
        faults = ((".".join(map(str, one["loc"])), one["msg"]) for one in error.errors())
        text = "; ".join(f"{where}: {what}" for where, what in faults)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@dataclass(frozen=True)
class Case:
    """An objective on trial: its class and the settings to make it with."""

    cls: type[Objective]
    fields: Mapping[str, Any]

    @property
    def objective(self) -> Objective:
        """A new instance."""
        return self.cls(**self.fields)

    def parts(self, pair: Pair = PLAIN) -> nn.Module | None:
        """What the objective has to learn for a pair, without dropout."""
        parts = self.objective.parts(pair)
        return parts if parts is None else parts.eval()


@dataclass(frozen=True)
class Batch:
    """One batch: the student's answer as leaves that take gradients, the teacher's, the labels."""

    student: Outputs
    teacher: Signals
    labels: Tensor
    mask: Tensor

    @property
    def leaves(self) -> list[Tensor]:
        """Every tensor of the student's answer."""
        return [self.student.logits, *self.student.hidden]

    @property
    def named(self) -> dict[str, Tensor]:
        """Every tensor of the batch by the name that an author knows it by."""
        found = {"labels": self.labels, "mask": self.mask}
        answers: tuple[tuple[str, Outputs | Signals], ...] = (
            ("student", self.student),
            ("teacher", self.teacher),
        )
        for whose, answer in answers:
            found[f"{whose}.logits"] = answer.logits
            for layer, states in enumerate(answer.hidden):
                found[f"{whose}.hidden[{layer}]"] = states
        return found

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return the batch with every tensor changed."""
        return Batch(
            Outputs(change(self.student.logits), tuple(map(change, self.student.hidden))),
            Signals(change(self.teacher.logits), tuple(map(change, self.teacher.hidden))),
            change(self.labels),
            change(self.mask),
        )


def batch_of(pair: Pair = PLAIN, *, seed: int = 0, longer: int = 0) -> Batch:
    """Return a random batch in float32; the teacher's states are `longer` tokens longer."""
    import torch

    chance = torch.Generator().manual_seed(seed)

    def states(length: int, width: int) -> tuple[Tensor, ...]:
        shape = (len(LABELS), length, width)
        return tuple(torch.randn(shape, generator=chance) for _ in pair.layer_map)

    def logits() -> Tensor:
        return torch.randn(len(LABELS), 3, generator=chance)

    labels = torch.tensor(LABELS)
    # The teacher is right about every row, so imitating it and fitting the labels are no rivals.
    sure = 4.0 * torch.nn.functional.one_hot(labels)
    teacher = Signals(logits() + sure, states(max(LENGTHS) + longer, pair.teacher_width))
    student = Outputs(logits(), states(max(LENGTHS), pair.student_width))
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS).unsqueeze(1)).long()
    batch = Batch(student, teacher, labels, mask)
    for leaf in batch.leaves:
        leaf.requires_grad_()
    return batch


def call(objective: Objective, batch: Batch, parts: nn.Module | None, *, seed: int = 0) -> Tensor:
    """Return the loss of a copy of the batch, so that only one check sees changes in place."""
    import torch

    torch.default_generator.manual_seed(seed)
    own = batch.map(torch.clone)
    return objective.loss(own.student, own.teacher, own.labels, own.mask, parts)


def gradients(loss: Tensor, to: Sequence[Tensor]) -> list[Tensor | None]:
    """Return the gradient for each tensor, None where none arrives."""
    import torch

    if not to or not loss.requires_grad:
        return [None] * len(to)
    return list(torch.autograd.grad(loss, to, allow_unused=True))


def school(case: Case) -> tuple[Learner, dict[str, Any], LiveTeacher | None]:
    """Return a learner with a tiny random BERT, its inputs, and the teacher if one is needed.

    Nothing drops out, so that two losses can be compared. The sizes are others than those of
    `batch_of`: 4 classes and a width of 16.
    """
    import torch

    from distill.learner import Learner

    pair = Pair(student_width=16, teacher_width=16, layer_map=(0, 2), same_tokens=True)
    objective, tokenizer = case.objective, _tokenizer()
    live: LiveTeacher | None = None
    if objective.needs:
        teacher = _bert(3)
        live = LiveTeacher(
            teacher,
            tokenizer,
            list(teacher.config.id2label.values()),
            max_length=max(LENGTHS),
            layers=pair.layer_map if "hidden" in objective.needs else (),
        )
    learner = Learner(_bert(2), [objective], live, pair).train()
    learner.parts.eval()
    inputs = dict(tokenizer(list(TEXTS), padding=True, return_tensors="pt"))
    inputs |= {"labels": torch.tensor([0, 2, 1, 3, 0, 2]), "texts": TEXTS}
    return learner, inputs, live


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: place for place, word in enumerate(WORDS)}
    raw = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]")


def _bert(layers: int) -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        num_labels=4,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.2,  # the usual 0.02 lets so small a model see next to nothing
    )
    return BertForSequenceClassification(config)
