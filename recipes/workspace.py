"""One run's folder and everything that its stages share."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.backbone import Quantization, load_backbone
from adapters.classifier import begin_with, load_classifier
from adapters.hardware import Hardware, inspect_hardware
from adapters.strategy import Strategy
from export.machine import cores
from recipes import assets
from recipes.console import is_main
from recipes.errors import RecipeError
from recipes.ledger import Ledger
from recipes.long_text import check_room
from recipes.problems import Problem, problems
from recipes.problems.decision import AS_IT_IS, Decision
from recipes.recipe import Recipe
from recipes.tasks import Rows, Task, tasks
from recipes.tasks.fewer import fewer

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: Length in tokens that is read at once unless the recipe says otherwise.
_USUAL_LENGTH = 256
SPLITS = ("validation", "test")
#: Seconds after which a bar is shown.
_SOON = 4


def machine(recipe: Recipe) -> Hardware:
    """Look at the machine and take as much of it as a recipe says.

    Without a number of threads in the recipe or the environment (a `torchrun` sets OMP_NUM_THREADS
    for each process) that is every core that the process may use, a container's share.
    """
    free = None if "OMP_NUM_THREADS" in os.environ else cores()
    return inspect_hardware(recipe.device, recipe.threads or free)


class Workspace:
    """What a stage is given: the recipe, the folder with the earlier artefacts, and the machine.

    Args:
        recipe: The resolved recipe.
        folder: The run's folder.
        hardware: The machine.
        offline: Never touch the network.
    """

    def __init__(self, recipe: Recipe, folder: Path, hardware: Hardware, offline: bool) -> None:
        self.recipe = recipe
        self.folder = folder
        self.hardware = hardware
        self.offline = offline

    @cached_property
    def ledger(self) -> Ledger:
        """The rows that finished stages have written."""
        return Ledger(self.folder / "ledger.json")

    @cached_property
    def task(self) -> Task:
        """The task that the recipe names."""
        task: Task = tasks.get(self.recipe.task)()
        task.long = self.recipe.data.long
        return task

    @cached_property
    def all_rows(self) -> Rows:
        """The rows, split, before some of those to learn from are left out."""
        return self.task.read(self.recipe.data, self.recipe.phases, offline=self.offline)

    @cached_property
    def rows(self) -> Rows:
        """The rows, split, and of those to learn from what the recipe leaves."""
        return fewer(self.all_rows, self.recipe.data, self.recipe.seed)

    @cached_property
    def problem(self) -> Problem:
        """What kind of answer the rows have."""
        problem: Problem = problems.get(self.rows.problem)(
            self.rows.labels, self.rows.train.labels, self.rows.facts
        )
        return problem

    @property
    def strategy(self) -> Strategy:
        """How the backbone learns; for runs in which it does."""
        assert self.recipe.strategy is not None
        return self.recipe.strategy

    @cached_property
    def backbone(self) -> assets.Asset:
        """The backbone's files."""
        return assets.resolve(self.recipe.backbone.model, "model", offline=self.offline)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The backbone's tokenizer."""
        return load_tokenizer(self.backbone.path)

    @cached_property
    def max_length(self) -> int:
        """Length in tokens that is read at once, by teacher and student alike.

        Raises:
            RecipeError: The recipe asks for more than the backbone, the student or a further
                teacher can take, or for windows that share all of it.
        """
        distill = self.recipe.distill
        folders = {self.recipe.backbone.model: self.backbone.path}
        models = [student.model for student in (distill.student, *distill.others)]
        for name in filter(None, (*models, *distill.teachers)):
            folders[name] = assets.resolve(name, "model", offline=self.offline).path
        limits = {name: _length_limit(path) for name, path in folders.items()}
        tightest = min(limits, key=lambda name: limits[name])
        wanted, limit = self.recipe.data.max_length, limits[tightest]
        if wanted is not None and wanted > limit:
            raise RecipeError(
                f"data.max_length={wanted}, but {tightest} takes at most {limit} tokens. Set "
                f"data.max_length={limit} or less, or choose another model."
            )
        length = wanted or min(limit, _USUAL_LENGTH)
        check_room(self.recipe.data.long, self.tokenizer, length)
        return length

    @property
    def quantization(self) -> Quantization:
        """How the backbone is held while it learns, on this machine."""
        return self.hardware.quantization_for(
            self.recipe.backbone.quantization, self.recipe.allow_fallback
        )

    def load(
        self,
        quantization: Quantization = "none",
        path: Path | None = None,
        labels: Sequence[str] | None = None,
    ) -> PreTrainedModel:
        """Load the backbone, or the model of another folder, with a head for the data's labels.

        Args:
            quantization: How the encoder's weights are held.
            path: Another folder than the backbone's.
            labels: The first of the data's labels only, as long as no others are known.

        Raises:
            FileNotFoundError: An earlier stage's model was removed from the run.
            AdapterError: The model does not load.
        """
        recipe = self.recipe
        if path is not None:
            (path / "config.json").stat()
        model = load_backbone(
            path or self.backbone.path,
            self.rows.labels if labels is None else labels,
            quantization=quantization,
            double_quantization=recipe.backbone.double_quantization,
            bf16=self.hardware.bf16_for(recipe.train.precision, recipe.allow_fallback),
            device=self.hardware.device,
            seed=recipe.seed,
            # Some of the labels only are known where each text has one of them.
            kind=self.problem.kind if labels is None else None,
        )
        if path is None and labels is None and self.rows.problem == "multi_label":
            # Of many labels a text has few. A new head that begins with their odds need not learn
            # first to say no (Lin et al., 2017, arXiv:1708.02002, section 4.1).
            begin_with(model, self.problem.constant())
        return model

    def load_taught(self) -> PreTrainedModel:
        """Load the backbone as the finished classifier that it is in a run without a strategy.

        Raises:
            AdapterError: It is none, or was trained for other labels.
        """
        return load_classifier(
            self.backbone.path,
            self.rows.labels,
            device=self.hardware.device,
            kind=self.problem.kind,
        )

    def examples(self, split: str, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
        """Return a split's rows as examples, in their order."""
        rows = getattr(self.rows, split)
        return self.task.features(rows, tokenizer, self.max_length)

    def missing_capabilities(self) -> list[str]:
        """Return what the recipe asks for and the machine does not have, a sentence each."""
        recipe, hardware = self.recipe, self.hardware
        missing = []
        asked = {settings.precision for settings in recipe.trainings.values()}
        if "bf16" in asked and not hardware.bf16:
            missing.append(f"{hardware.name} has no bfloat16 arithmetic: computed in float32")
        if self.quantization != recipe.backbone.quantization:
            missing.append(
                f"bitsandbytes does not load: {recipe.backbone.quantization} left out, the "
                "backbone was held in float32"
            )
        return missing

    def save_logits(self, name: str, logits: Mapping[str, np.ndarray]) -> None:
        """Keep an artefact's logits by split, ``[rows, classes]``, for what is compared with it.

        What the rows say lies beside them (``test_labels``), the labels' names (``labels``), and
        what else their problem knows of them (``facts``, as JSON): with the ledger's row the file
        can be judged without the data.
        """
        import numpy as np

        folder = self.folder / "predictions"
        folder.mkdir(exist_ok=True)
        labels = {f"{split}_labels": np.array(getattr(self.rows, split).labels) for split in logits}
        labels["labels"] = np.array(self.rows.labels)
        labels["facts"] = np.array(json.dumps(self.rows.facts))
        # A dict whose keys are only known here does not fit numpy's stub, which also has keywords.
        np.savez(folder / f"{name}.npz", **logits, **labels)  # type: ignore[arg-type, unused-ignore]

    def save_classes(self, name: str, figures: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep what is known of single labels by split, if there is anything; see `by_class`."""
        if any(figures.values()):
            text = json.dumps(figures, ensure_ascii=False)
            (self.folder / "predictions" / f"{name}.json").write_text(text + "\n", "utf-8")

    def logits(self, name: str) -> dict[str, np.ndarray]:
        """Return what `save_logits` kept."""
        import numpy as np

        with np.load(self.folder / "predictions" / f"{name}.npz") as kept:
            return {split: kept[split] for split in SPLITS}

    def moved(self, name: str) -> dict[str, np.ndarray]:
        """Return what an artefact's answers are chosen by: logits, moved by its row's decision."""
        decision = Decision.of(self.ledger[name].decision) if name in self.ledger else AS_IT_IS
        labels = self.problem.labels
        return {split: decision.moved(found, labels) for split, found in self.logits(name).items()}

    def save_history(self, name: str, history: Sequence[Mapping[str, float]]) -> None:
        """Keep a training's curve for the report."""
        folder = self.folder / "curves"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(list(history)), encoding="utf-8")

    def history(self, name: str) -> list[dict[str, float]]:
        """Return what `save_history` kept."""
        text = (self.folder / "curves" / f"{name}.json").read_text(encoding="utf-8")
        curve: list[dict[str, float]] = json.loads(text)
        return curve


#: Architectures that count positions from the padding id on.
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet")


def _length_limit(path: Path) -> int:
    """Return how many tokens a model can take."""
    config = load_config(path)
    positions = getattr(config, "max_position_embeddings", None) or _USUAL_LENGTH
    offset = (config.pad_token_id or 0) + 1 if config.model_type in _OFFSET_POSITIONS else 0
    return min(positions - offset, int(load_tokenizer(path).model_max_length))


def load_config(path: Path) -> Any:
    """Load a model's configuration.

    Raises:
        RecipeError: transformers does not know the architecture, or the file is broken.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        first = str(error).partition("\n")[0]
        raise RecipeError(
            f"The model in {path} cannot be used: {first} Check its config.json, or choose "
            "another model."
        ) from error


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer that can be shipped.

    Raises:
        RecipeError: It has no ``tokenizer.json`` form, or no padding token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            path, local_files_only=True
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise RecipeError(
            f"The tokenizer in {path} does not load: {error}. Check that tokenizer.json is there."
        ) from error
    if not tokenizer.is_fast or tokenizer.pad_token_id is None:
        raise RecipeError(
            f"The tokenizer in {path} has no fast form (tokenizer.json) or no padding token; the "
            "edge runtime needs both. Choose another backbone."
        )
    # Some were saved to keep the end of a text; data.long says what is kept, here and at the edge.
    tokenizer.truncation_side = "right"
    return tokenizer


def by_length(
    call: Callable[[Mapping[str, Any]], np.ndarray],
    examples: Sequence[Mapping[str, Any]],
    collate: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]],
    batch_size: int = 64,
) -> np.ndarray:
    """Return the answers to all examples, in their order, computed in batches of like length.

    On a terminal a bar shows how far it is, if it takes more than a few seconds.

    Args:
        call: Answers a collated batch, ``[batch, …]``.
        examples: From `Workspace.examples`.
        collate: From the task.
        batch_size: Rows a call.
    """
    import numpy as np
    from tqdm import tqdm

    lengths = [len(example["input_ids"]) for example in examples]
    order = sorted(range(len(examples)), key=lengths.__getitem__)
    parts = []
    with tqdm(
        total=sum(lengths), desc="  reading", unit=" tokens", unit_scale=True, delay=_SOON,
        leave=False, disable=None if is_main() else True,
    ) as bar:  # fmt: skip
        for first in range(0, len(order), batch_size):
            rows = order[first : first + batch_size]
            parts.append(call(collate([examples[row] for row in rows])))
            bar.update(sum(lengths[row] for row in rows))
    answers = np.concatenate(parts)
    back = np.empty_like(answers)
    back[order] = answers
    return back


def torch_call(model: Any) -> Callable[[Mapping[str, Any]], np.ndarray]:
    """Return a function from a collated batch to a PyTorch classifier's logits, float32."""
    import torch

    from distill.windows import answers

    device = next(model.parameters()).device
    model.eval()

    def call(batch: Mapping[str, Any]) -> np.ndarray:
        inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            logits = answers(model, inputs, batch.get("windows"))
        found: np.ndarray = logits.float().cpu().numpy()
        return found

    return call
