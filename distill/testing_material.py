"""What the conformance kit tries objectives on: random batches, and a tiny school of BERTs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import ValidationError

from distill.live import LiveTeacher
from distill.objective import LabelForm, Objective, Pair, asked
from distill.signals import Answer, Outputs, Signals

if TYPE_CHECKING:
    from torch import Tensor, nn

    from distill.learner import Learner

T = TypeVar("T", bound=Answer)

#: What most checks are made on: 6 rows of up to 5 tokens, 3 classes, 2 student layers.
PLAIN = Pair(
    student_width=24,
    teacher_width=24,
    layer_map=(0, 3),
    same_tokens=True,
    student_heads=2,
    teacher_heads=2,
    teacher_layers=6,
)

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


def words(error: BaseException) -> str:
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

    @property
    def form(self) -> LabelForm:
        """A form of labels that the objective takes: ids, if it takes them."""
        return next((form for form in get_args(LabelForm) if form in self.cls.takes), "id")

    def batch(self, pair: Pair = PLAIN, *, seed: int = 0, longer: int = 0) -> Batch:
        """A random batch with the layers that the objective compares, and labels that it takes."""
        found = batch_of(pair, len(self.objective.layers(pair)), seed=seed, longer=longer)
        return labeled(found, self.form)


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
        return list(tensors(self.student).values())

    @property
    def named(self) -> dict[str, Tensor]:
        """Every tensor of the batch by the name that an author knows it by."""
        found = {"labels": self.labels, "mask": self.mask}
        found |= {f"student.{name}": tensor for name, tensor in tensors(self.student).items()}
        return found | {f"teacher.{name}": tensor for name, tensor in tensors(self.teacher).items()}

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return the batch with every tensor changed."""

        def each(_: str, tensor: Tensor) -> Tensor:
            return change(tensor)

        return Batch(
            changed(self.student, each),
            changed(self.teacher, each),
            change(self.labels),
            change(self.mask),
        )


def tensors(answer: Answer) -> dict[str, Tensor]:
    """Return every tensor of an answer by its name, such as ``hidden[1]``."""
    found: dict[str, Tensor] = {}
    for field in fields(answer):
        value = getattr(answer, field.name)
        if isinstance(value, tuple):
            found |= {f"{field.name}[{layer}]": tensor for layer, tensor in enumerate(value)}
        else:
            found[field.name] = value
    return found


def changed(answer: T, change: Callable[[str, Tensor], Tensor]) -> T:
    """Return an answer with every tensor changed; ``change`` gets the name of the signal too."""
    new: dict[str, Any] = {}
    for field in fields(answer):
        name, value = field.name, getattr(answer, field.name)
        several = isinstance(value, tuple)
        new[name] = tuple(change(name, t) for t in value) if several else change(name, value)
    return type(answer)(**new)


def batch_of(pair: Pair, layers: int, *, seed: int = 0, longer: int = 0) -> Batch:
    """Return a random batch in float32 with every signal.

    Args:
        pair: The widths and heads.
        layers: How many layers are compared.
        seed: Seed of all numbers.
        longer: By how many positions the teacher's signals are longer.
    """
    import torch

    chance = torch.Generator().manual_seed(seed)
    lengths, labels = torch.tensor(LENGTHS), torch.tensor(LABELS)

    def answer(kind: type[T], logits: Tensor, width: int, heads: int, more: int) -> T:
        count, length = len(LABELS), max(LENGTHS) + more
        unseen = torch.arange(length) >= (lengths + more).unsqueeze(1)

        def draw(*shape: int) -> tuple[Tensor, ...]:
            return tuple(torch.randn(count, *shape, generator=chance) for _ in range(layers))

        scores = draw(heads, length, length)
        several = {name: draw(length, width) for name in ("hidden", "queries", "keys", "values")}
        return kind(
            logits + torch.randn(logits.shape, generator=chance),
            **several,
            embeddings=torch.randn(count, length, width, generator=chance),
            attention=tuple(
                one.masked_fill(unseen[:, None, None], -torch.inf).softmax(-1) for one in scores
            ),
            pooled=draw(width),
        )

    # The teacher is right about every row, so imitating it and fitting the labels are no rivals.
    sure = 4.0 * torch.nn.functional.one_hot(labels)
    teacher = answer(Signals, sure, pair.teacher_width, pair.teacher_heads, longer)
    student = answer(Outputs, 0 * sure, pair.student_width, pair.student_heads, 0)
    mask = (torch.arange(max(LENGTHS)) < lengths.unsqueeze(1)).long()
    batch = Batch(student, teacher, labels, mask)
    for leaf in batch.leaves:
        leaf.requires_grad_()
    return batch


def labeled(batch: Batch, form: LabelForm, missing: Sequence[int] = ()) -> Batch:
    """Return a batch whose labels have a form, and whose teacher is right about them.

    Args:
        batch: From `batch_of`.
        form: That of the labels. Of numbers there is one output.
        missing: Rows that have no label.
    """
    import torch

    labels, student, teacher = labels_of(batch.labels, form), batch.student, batch.teacher
    if form == "several":
        labels[0] = 0  # a text may have none of them
        teacher = replace(teacher, logits=8.0 * labels - 4)
    elif form == "number":
        teacher = replace(teacher, logits=labels[:, None].clone())
        student = replace(student, logits=student.logits.detach()[:, :1].requires_grad_())
    labels[list(missing)] = torch.nan if form == "number" else -100
    return Batch(student, teacher, labels, batch.mask)


def labels_of(ids: Tensor, form: LabelForm) -> Tensor:
    """Return labels of a form that go by ids ``[batch]``."""
    import torch

    if form == "several":
        return torch.nn.functional.one_hot(ids)
    return ids / 2 if form == "number" else ids.clone()


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

    Nothing drops out, so that two losses can be compared. There are 4 classes, and not the 3 of
    `batch_of`; or one output for numbers.
    """
    import torch

    from distill.learner import Learner

    pair = replace(PLAIN, layer_map=(0, 2), teacher_layers=3)
    objective, tokenizer = case.objective, _tokenizer()
    live: LiveTeacher | None = None
    outputs = 1 if case.form == "number" else 4
    if objective.needs:
        teacher = _bert(pair.teacher_layers, outputs)
        live = LiveTeacher(
            teacher,
            tokenizer,
            list(teacher.config.id2label.values()),
            max_length=max(LENGTHS),
            wants=asked([objective], pair)[1],
        )
    learner = Learner(_bert(2, outputs), [objective], live, pair).train()
    learner.parts.eval()
    inputs = dict(tokenizer(list(TEXTS), padding=True, return_tensors="pt"))
    inputs |= {"labels": labels_of(torch.tensor([0, 2, 1, 3, 0, 2]), case.form), "texts": TEXTS}
    return learner, inputs, live


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: place for place, word in enumerate(WORDS)}
    raw = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]")


def _bert(layers: int, outputs: int) -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=PLAIN.student_width,
        num_hidden_layers=layers,
        num_attention_heads=PLAIN.student_heads,
        intermediate_size=32,
        max_position_embeddings=16,
        num_labels=outputs,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="eager",  # the only one that gives attention maps
        initializer_range=0.2,  # the usual 0.02 lets so small a model see next to nothing
    )
    return BertForSequenceClassification(config)
