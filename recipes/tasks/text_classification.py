"""Texts, or pairs of texts, and what they are about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.errors import RecipeError
from recipes.tasks import Rows, Split, Task, tasks
from recipes.tasks.wording import counted

if TYPE_CHECKING:
    from pandas import DataFrame
    from transformers import PreTrainedTokenizerBase

    from recipes.recipe import DataSettings, PhasesSettings


@tasks.register("text_classification")
class TextClassification(Task):
    """Labels, or a number, for each text or pair of texts."""

    def read(
        self, settings: DataSettings, phases: PhasesSettings | None = None, *, offline: bool
    ) -> Rows:
        """Read, check, deduplicate and split the rows; see `Task.read`."""
        from recipes.tasks.cleaning import cleaned
        from recipes.tasks.phases import assign
        from recipes.tasks.slices import PREFIX, check_slices
        from recipes.tasks.splits import fingerprint, split
        from recipes.tasks.targets import encoder, output_names

        files = (phases and phases.files) or ()
        column = phases.column if phases else None
        frames, names, facts = _frames(settings, files, offline)
        table = cleaned(frames, names, settings, column)
        parts, notes = table.frames, table.notes
        arriving: Sequence[str] = ()
        if phases is not None:
            if table.problem != "single_label":
                raise RecipeError(
                    f"phases are for texts with one of several labels, and this is a problem of "
                    f"the type {table.problem}. Leave phases out."
                )
            parts, names, arriving = assign(parts, names, phases)
        splits = split(
            parts,
            test_fraction=settings.test_fraction,
            validation_fraction=settings.validation_fraction,
            seed=settings.split_seed,
            overlap=settings.overlap,
            names=names,
            phases=arriving,
            problem=table.problem,
        )
        train = splits.train["label"]
        labels = splits.labels or output_names(table.problem, train, settings, table.label)
        encode, known = encoder(table.problem, labels, train)
        self.pairs = table.pairs
        held_out = (splits.validation, splits.test)
        check_slices(
            [{c: frame[PREFIX + c].tolist() for c in settings.slices} for frame in held_out]
        )

        def part(frame: DataFrame) -> Split:
            return Split(
                frame["text"].tolist(),
                [encode(label) for label in frame["label"]],
                frame["phase"].tolist() if arriving else (),
                {column: frame[PREFIX + column].tolist() for column in settings.slices},
            )

        sizes = " / ".join(f"{len(f):,}" for f in (splits.train, splits.validation, splits.test))
        what = "numbers" if table.problem == "regression" else counted(len(labels), "label")
        return Rows(
            train=part(splits.train),
            validation=part(splits.validation),
            test=part(splits.test),
            labels=labels,
            notes=[
                f"{sizes} rows to train, validate, test; {what}",
                *notes,
                *splits.notes,
            ],
            fingerprint=fingerprint(splits),
            phases=arriving,
            problem=table.problem,
            facts=known,
            **facts,
        )

    def features(
        self, split: Split, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> list[dict[str, Any]]:
        """Return token ids, label id and text of each row.

        Where long texts are read in windows, these follow one another in the token ids, and
        ``window`` is their size; see `recipes.long_text`.
        """
        from recipes.long_text import marks, tokens

        encoded = tokens(tokenizer, split.texts, max_length, self.long, self.pairs)
        more = marks(self.long, max_length)
        return [
            {"input_ids": ids, "labels": label, "texts": text, **more}
            for ids, label, text in zip(encoded, split.labels, split.texts, strict=True)
        ]

    def collator(
        self, tokenizer: PreTrainedTokenizerBase
    ) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        """Return a collator: ``labels``, ``texts``, ``input_ids`` and ``attention_mask``.

        Where long texts are read in windows, the inputs have a row for each, and ``windows`` says
        which is whose; see `distill.windows.Windows`.
        """
        import torch

        from recipes.long_text import batch

        padding = tokenizer.pad_token_id
        pool = self.long.pool if self.long is not None else "mean"

        def collate(examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
            # The labels first: by the first tensor the Trainer counts the rows of a batch.
            return {
                "labels": torch.tensor([example["labels"] for example in examples]),
                "texts": [example["texts"] for example in examples],
                **batch(examples, padding, pool),
            }

        return collate

    def processing(
        self, tokenizer: PreTrainedTokenizerBase, max_length: int, inputs: Sequence[str]
    ) -> dict[str, Any]:
        """Return the facts that the edge needs besides ``tokenizer.json``."""
        from recipes.long_text import told_edge

        return {
            "max_length": max_length,
            "pad_token_id": tokenizer.pad_token_id,
            "inputs": list(inputs),
            **({"pairs": True} if self.pairs else {}),
            **told_edge(self.long),
        }


def _frames(
    settings: DataSettings, later: Sequence[str], offline: bool
) -> tuple[dict[str, DataFrame], dict[str, str], dict[str, str]]:
    """Return the raw frames by split, what each is called, and license and source of the data.

    The files to learn from after the first follow as frames of their own, in their order.
    """
    from recipes import assets
    from recipes.tasks.tables import read_table

    if settings.source is not None:
        asset = assets.resolve(settings.source, "data", offline=offline)
        facts = {"license": asset.license, "source": asset.source}
        if asset.path.is_file():
            return {"all": read_table(asset.path)}, {"all": asset.path.name}, facts
        known = ("all", "train", "validation", "test")
        frames = {key: frame for key, frame in assets.rows(asset).items() if key in known}
        return frames, {key: f"{settings.source} ({key})" for key in frames}, facts
    files = {"train": settings.train, "validation": settings.validation, "test": settings.test}
    paths = {key: Path(name) for key, name in files.items() if name is not None}
    paths |= {f"phase {number}": Path(name) for number, name in enumerate(later, start=2)}
    frames = {key: read_table(path) for key, path in paths.items()}
    names = {key: path.name for key, path in paths.items()}
    if later and len(set(names.values())) < len(names):
        names = {key: "/".join(path.parts[-2:]) for key, path in paths.items()}
    return frames, names, {"license": "unknown", "source": ", ".join(names.values())}
