"""Where the conformance kit tries a strategy: tiny models, a few texts, the real Trainer."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback, TrainingArguments

from adapters.backbone import Quantization, load_backbone
from adapters.errors import UnsuitableBackboneError
from adapters.files import save_adapter
from adapters.merge import merge_adapter
from adapters.strategy import Strategy, prepare
from adapters.strategy_methods import callbacks_of, check_signatures, groups_of, penalty_of
from adapters.tiny import save_tiny_backbone
from adapters.training import PartTrainer, last_checkpoint

LABELS = ("first", "second", "third")
#: Token ids of six texts of unequal length, and their labels; 0 is padding.
TEXTS = (
    ([2, 11, 21, 12, 3], 0),
    ([2, 13, 22, 3], 1),
    ([2, 23, 14, 15, 16, 17, 3], 2),
    ([2, 18, 11, 21, 19, 3], 0),
    ([2, 22, 12, 14, 3], 1),
    ([2, 15, 13, 12, 11, 19, 18, 23, 3], 2),
)
#: With these a random head alone learns on all architectures, and LoRA does not run away.
STEPS, RATE = 50, 1.5e-2
#: How far apart logits may be: after the same operations, and after others that come to the same.
EXACT, CLOSE = 1e-6, 1e-4


class FaultError(Exception):
    """What a check has found."""


def same(found: Tensor, expected: Tensor, tolerance: float, what: str, remedy: str) -> None:
    """Compare logits.

    Raises:
        FaultError: They are further apart than the tolerance; the message has the other arguments.
    """
    largest = float((found - expected).abs().max())
    if not largest <= tolerance:
        raise FaultError(f"{what}: logits differ by {largest:.3g}; {remedy}")


@contextmanager
def quiet() -> Iterator[None]:
    """Let transformers and the exporter say nothing, and torch use one thread, for a while."""
    from transformers.utils import logging

    threads, level = torch.get_num_threads(), logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    torch.set_num_threads(1)  # a tiny model is slower on several
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(threads)
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


class Model(nn.Module):
    """A prepared model with loss and penalty, as the Trainer wants it."""

    accepts_loss_kwargs = False

    def __init__(self, model: nn.Module, strategy: Strategy) -> None:
        super().__init__()
        self.model = model
        self._strategy = strategy

    def forward(self, labels: Tensor, **inputs: Tensor) -> dict[str, Tensor]:
        """Return ``loss`` and ``logits``."""
        logits = self.model(**inputs).logits
        loss = nn.functional.cross_entropy(logits, labels)
        penalty = penalty_of(self._strategy, self.model, {}) if self.training else None
        return {"loss": loss if penalty is None else loss + penalty, "logits": logits}


class Run(NamedTuple):
    """A training.

    Attributes:
        model: The model after it.
        before: All parameters before it, by name.
        declared: Names of those that `prepare` has declared to learn.
        loss: The loss before it.
    """

    model: nn.Module
    before: dict[str, Tensor]
    declared: set[str]
    loss: float


class Bench:
    """One strategy on one tiny random architecture.

    Args:
        folder: A place for files.
        architecture: One of `adapters.tiny.ARCHITECTURES`.
        strategy: The strategy.
        device: Where the models are, ``"cpu"`` or ``"cuda"``.
    """

    def __init__(
        self, folder: Path, architecture: str, strategy: Strategy, device: str = "cpu"
    ) -> None:
        self.folder = folder
        self.architecture = architecture
        self._strategy = strategy
        self.device = device
        self.backbone = save_tiny_backbone(folder / "backbone", architecture)
        self.batch = collate([{"input_ids": ids, "labels": label} for ids, label in TEXTS])

    def loss(self, model: nn.Module) -> float:
        """Return the loss over the texts."""
        return float(nn.functional.cross_entropy(self.logits(model), self.batch["labels"]))

    @property
    def strategy(self) -> Strategy:
        """The strategy, made anew each time, as every process makes it: it carries nothing over."""
        return type(self._strategy).model_validate(self._strategy.model_dump(mode="json"))

    def load(
        self,
        quantization: Quantization = "none",
        seed: int = 0,
        labels: Sequence[str] = LABELS,
        path: Path | None = None,
    ) -> PreTrainedModel:
        """Return the backbone, or the model of another folder, with a fresh head if it has none."""
        return load_backbone(
            path or self.backbone, labels, quantization=quantization, seed=seed, device=self.device
        )

    def logits(self, model: nn.Module, rows: slice = slice(None)) -> Tensor:
        """Return the answers to the texts, or some of them as a batch, ``[texts, labels]``."""
        mask = self.batch["attention_mask"][rows]
        length = int(mask.sum(1).max())
        inputs = {
            name: self.batch[name][rows, :length].to(self.device)
            for name in ("input_ids", "attention_mask")
        }
        model.eval()
        with torch.inference_mode():
            return model(**inputs).logits.cpu()  # type: ignore[no-any-return]

    @cached_property
    def refusal(self) -> str:
        """Why the method makes no sense on this architecture; nothing if it does."""
        try:
            self.prepared(self.strategy)
        except UnsuitableBackboneError as error:
            return str(error)
        return ""

    def prepared(self, strategy: Strategy, quantization: Quantization = "none") -> nn.Module:
        """Return a freshly prepared model."""
        check_signatures(strategy)
        torch.manual_seed(0)
        return prepare(self.load(quantization), strategy)

    def train(
        self,
        quantization: Quantization = "none",
        folder: str = "training",
        stop_after: int | None = None,
    ) -> Run:
        """Train a model with the real Trainer; one batch is an epoch."""
        strategy = self.strategy
        model = self.prepared(strategy, quantization)
        before = {name: p.data.clone() for name, p in model.named_parameters()}
        declared = {name for name, p in model.named_parameters() if p.requires_grad}
        loss = self.loss(model)
        place = self.folder / folder
        arguments = TrainingArguments(
            output_dir=str(place),
            num_train_epochs=STEPS,
            learning_rate=RATE,
            per_device_train_batch_size=len(TEXTS),
            use_cpu=self.device == "cpu",
            seed=0,
            save_strategy="steps",
            save_steps=10,
            logging_strategy="no",
            label_names=["labels"],
            max_grad_norm=1.0,
            remove_unused_columns=False,
            disable_tqdm=True,
            report_to=[],
            dataloader_pin_memory=False,
            weight_decay=0.01,
        )
        trainer = PartTrainer(
            Model(model, strategy),
            args=arguments,
            train_dataset=[{"input_ids": ids, "labels": label} for ids, label in TEXTS],
            data_collator=collate,
            groups=partial(groups_of, strategy, model),
            strategy_callbacks=callbacks_of(strategy, model),
            callbacks=[] if stop_after is None else [_StopAfter(stop_after)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=last_checkpoint(place))
        return Run(model.eval(), before, declared, loss)

    @cached_property
    def run(self) -> Run:
        """A training in float."""
        return self.train()

    @property
    def learnt(self) -> nn.Module:
        """The model that it gave; checks leave it as it is."""
        return self.run.model

    @cached_property
    def adapter(self) -> Path:
        """The folder in which that model's adapter is saved."""
        save_adapter(self.folder / "adapter", self.learnt, self.strategy, LABELS)
        return self.folder / "adapter"

    def finished(self) -> PreTrainedModel:
        """Return that model merged, by way of the disk."""
        return merge_adapter(
            self.adapter, self.load, self.strategy, LABELS, into="original", quantization="none"
        )


class _StopAfter(TrainerCallback):  # type: ignore[misc, unused-ignore]
    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = state.global_step >= self._steps


def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Return a batch padded to its longest row."""
    ids = [torch.tensor(row["input_ids"]) for row in rows]
    padded = nn.utils.rnn.pad_sequence(ids, batch_first=True)
    labels = torch.tensor([row["labels"] for row in rows])
    return {"input_ids": padded, "attention_mask": (padded != 0).long(), "labels": labels}
