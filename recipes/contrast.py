"""A stage before fine-tuning: texts of one label come together, texts of others apart.

With few labelled rows there are many more pairs of rows than rows. What learns is what the strategy
lets learn, on the vector that the output layer reads; the output layer then begins as a logistic
regression on these vectors. The two steps are SetFit's (Tunstall et al., 2022, arXiv:2209.11055);
the loss is the supervised contrastive one (Khosla et al., 2020, arXiv:2004.11362), which compares
each row of a batch with all others at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler

from adapters.backbone import unwrapped
from adapters.classifier import output_layer
from adapters.strategy import copy_state, learned_state
from recipes.console import is_main, say
from recipes.distributed import wait
from recipes.errors import RecipeError
from recipes.linear import Linear
from recipes.recipe import ContrastSettings, TrainSettings
from recipes.tasks import Split
from recipes.training import fit
from recipes.workspace import Workspace, by_length

#: What the stage has made, kept until the training after it is over.
KEPT = "contrast.safetensors"


class Contrast(nn.Module):
    """A classifier, trained for the vectors from which it makes its logits.

    Args:
        model: What `adapters.strategy.prepare` has returned.
        temperature: By which similarities are divided: the smaller, the more the nearest count.
    """

    accepts_loss_kwargs = False

    def __init__(self, model: nn.Module, temperature: float) -> None:
        super().__init__()
        self.model = model
        self._temperature = temperature

    def forward(
        self, labels: Tensor, texts: Sequence[str] | None = None, **inputs: Tensor
    ) -> dict[str, Tensor]:
        """Return ``loss`` and ``logits`` of a batch; the texts are not looked at."""
        vectors, logits = represent(self.model, inputs)
        return {"loss": contrast(vectors, labels, self._temperature), "logits": logits}


def contrast(vectors: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return the supervised contrastive loss, in nats.

    For each row: minus the logarithm of the share that a row of the same label has in the
    similarities (cosines) to all other rows, the mean over the rows of its label; then the mean
    over all rows that have such company (equation 2 of Khosla et al., 2020).

    Args:
        vectors: Of the rows, ``[batch, width]``.
        labels: Label ids, ``[batch]``.
        temperature: By which cosines are divided.

    Returns:
        A scalar; 0 if no two rows share a label.
    """
    itself = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    # In bfloat16, three digits of a cosine would be left.
    with torch.autocast(vectors.device.type, enabled=False):
        unit = nn.functional.normalize(vectors.float(), dim=1)
        scores = (unit @ unit.T / temperature).masked_fill(itself, torch.finfo(unit.dtype).min)
        shares = scores.log_softmax(dim=1)
    alike = (labels[:, None] == labels[None, :]) & ~itself
    company = alike.sum(dim=1)
    means = shares.masked_fill(~alike, 0.0).sum(dim=1) / company.clamp(min=1)
    return -means.sum() / (company > 0).sum().clamp(min=1)


def represent(model: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the vectors that the output layer reads, ``[batch, width]``, and the logits.

    Args:
        model: A classifier, or what a strategy's `prepare` made of it.
        inputs: ``input_ids`` and ``attention_mask``.
    """
    read: list[Tensor] = []
    layer = output_layer(unwrapped(model))
    handle = layer.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    try:
        logits = model(**inputs).logits
    finally:
        handle.remove()
    vectors = read[-1]
    if vectors.ndim == 3:  # a decoder makes logits of every token, and takes those of the last
        mask = inputs["attention_mask"]
        last = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).argmax(dim=1)
        vectors = vectors[torch.arange(len(vectors), device=vectors.device), last]
    return vectors, logits


class Couples(Sampler[int]):
    """Yields every row once, two of a label after each other, so that no row of a batch is alone.

    Args:
        labels: Label id of each row.
        seed: Seed of the order.
    """

    def __init__(self, labels: Sequence[int], seed: int) -> None:
        self.labels = labels
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.labels)

    def __iter__(self) -> Iterator[int]:
        """Yield the rows; those that a label has left over come last."""
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        groups: dict[int, list[int]] = defaultdict(list)
        for row in torch.randperm(len(self.labels), generator=generator).tolist():
            groups[self.labels[row]].append(row)
        couples = [g[i : i + 2] for g in groups.values() for i in range(0, len(g) - 1, 2)]
        for place in torch.randperm(len(couples), generator=generator).tolist():
            yield from couples[place]
        yield from (group[-1] for group in groups.values() if len(group) % 2)


def bring_together(work: Workspace, model: nn.Module, rows: Split, title: str, path: Path) -> None:
    """Do the stage as the recipe says, or nothing if it does not ask for it.

    What was finished before the run was cut off is loaded.

    Args:
        work: The run.
        model: From `adapters.strategy.prepare`; changed in place.
        rows: Rows to learn from.
        title: What the training after it is called.
        path: That training's folder.

    Raises:
        RecipeError: The strategy leaves nothing to learn in front of the output layer.
    """
    from safetensors.torch import load_file, save_file

    settings = work.recipe.contrast
    if settings is None:
        return
    whole = (path / KEPT).exists()
    wait()
    if not whole:
        _train(work, model, rows, settings, f"{title}, contrast", path)
        _begin_head(work, model, rows)
        if is_main():
            state = {name: weight.contiguous() for name, weight in learned_state(model).items()}
            save_file(state, path / f".{KEPT}")
            (path / f".{KEPT}").replace(path / KEPT)
        wait()
    copy_state(learned_state(model), load_file(path / KEPT))


def check_contrast(work: Workspace) -> None:
    """Check that the recipe's contrast has something to go by.

    Raises:
        RecipeError: The rows have no classes, or hardly two of them share one.
    """
    if work.recipe.contrast is None:
        return
    if not work.problem.exclusive:
        raise RecipeError(
            "contrast brings texts of the same label together, and these rows have no label of "
            f"their own ({work.rows.problem}). Leave it out (contrast=null)."
        )
    if work.recipe.data.long.way == "windows":
        raise RecipeError(
            "contrast compares texts as one vector each, and data.long.way=windows makes several "
            "of a text. Leave one of them out."
        )
    labels = work.rows.train.labels
    if len(labels) == len(set(labels)):
        raise RecipeError(
            "contrast brings texts of the same label together, and no two training rows share "
            "one. Add rows, or leave it out (contrast=null)."
        )


def _train(
    work: Workspace,
    model: nn.Module,
    rows: Split,
    settings: ContrastSettings,
    title: str,
    path: Path,
) -> None:
    layer = output_layer(unwrapped(model))
    layer.requires_grad_(False)  # the loss does not depend on it
    if not any(weight.requires_grad for weight in model.parameters()):
        raise RecipeError(
            "contrast trains what is in front of the output layer, and the strategy leaves "
            "nothing there to learn. Choose another one, such as lora, or leave contrast out."
        )
    train = work.recipe.train
    try:
        fit(
            Contrast(model, settings.temperature),
            work.task.features(rows, work.tokenizer, work.max_length),
            (),
            title=title,
            folder=path / "contrast",
            settings=TrainSettings(
                epochs=settings.epochs,
                learning_rate=settings.learning_rate,
                batch_size=settings.batch_size,
                warmup=train.warmup,
                weight_decay=train.weight_decay,
                max_grad_norm=train.max_grad_norm,
                precision=train.precision,
            ),
            problem=work.problem,
            collate=work.task.collator(work.tokenizer),
            hardware=work.hardware,
            allow_fallback=work.recipe.allow_fallback,
            seed=work.recipe.seed,
            sampler=Couples(rows.labels, work.recipe.seed),
        )
    finally:
        layer.requires_grad_(True)


def _begin_head(work: Workspace, model: nn.Module, rows: Split) -> None:
    """Make the output layer a logistic regression on what it reads."""
    model.eval()
    layer = output_layer(unwrapped(model))

    def vectors(batch: Mapping[str, Any]) -> Any:
        names = ("input_ids", "attention_mask")
        inputs = {name: batch[name].to(layer.weight.device) for name in names}
        with torch.inference_mode():
            return represent(model, inputs)[0].float().cpu().numpy()

    examples = work.task.features(rows, work.tokenizer, work.max_length)
    features = by_length(vectors, examples, work.task.collator(work.tokenizer))
    weight, bias = Linear(work.rows.problem, features, rows.labels).layer()
    layer.weight.data.copy_(torch.as_tensor(weight))
    if layer.bias is not None:
        layer.bias.data.copy_(torch.as_tensor(bias))
    say(f"  the output layer begins as a logistic regression on {len(rows):,} rows")
