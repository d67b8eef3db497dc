"""What differs between kinds of rows, behind one contract."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from adapters import Registry

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from recipes.recipe import DataSettings, LongSettings, PhasesSettings


@dataclass(frozen=True)
class Split:
    """The rows of one split.

    Attributes:
        texts: The texts.
        labels: What the rows say: label ids, positions in `Rows.labels`; of several labels a
            tuple of 0 and 1 for each of `Rows.labels`; or numbers, see
            `recipes.problems.regression`.
        phases: Phase of each row, a position in `Rows.phases`; empty where there are none.
        slices: Column to its value in each row, for those that results are told apart by.
    """

    texts: Sequence[str]
    labels: Sequence[Any]
    phases: Sequence[int] = ()
    slices: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.texts)

    @property
    def fingerprint(self) -> str:
        """Changes with the rows, their labels or their order."""
        digest = hashlib.sha256()
        for value in (*self.texts, *self.labels, *self.phases):
            data = str(value).encode("utf-8", "surrogatepass")
            digest.update(b"%d:%b" % (len(data), data))
        return digest.hexdigest()


@dataclass(frozen=True)
class Rows:
    """All rows of a run.

    Attributes:
        train: Rows to learn from.
        validation: Rows to choose on.
        test: Rows to report on.
        labels: Label names; a label's id is its position. With phases, those that are new in a
            phase come after all that were known before it.
        notes: What was guessed, removed and counted on the way.
        license: License of the data.
        source: Where the data come from.
        fingerprint: Changes with the rows, their labels, their splits or their phases.
        phases: Names of the phases in which the rows arrive; empty if they arrive all at once.
        problem: What kind of answer a row has: a name from `recipes.problems`.
        facts: What the edge runtime has to know to give such answers, besides the labels.
    """

    train: Split
    validation: Split
    test: Split
    labels: Sequence[str]
    notes: Sequence[str]
    license: str
    source: str
    fingerprint: str
    phases: Sequence[str] = ()
    problem: str = "single_label"
    facts: Mapping[str, Any] = field(default_factory=dict)


class Task(ABC):
    """What the rows of a run are, and how they become inputs of a model.

    Rows are texts: baselines, embeddings and the edge runtime read them, too.

    Attributes:
        long: How what is too long for the model is read; None cuts it on the right. Set by the run
            before `features` is called.
        pairs: Whether texts are pairs with a tab between them; known once `read` has returned.
    """

    long: LongSettings | None = None
    pairs: bool = False

    @abstractmethod
    def read(
        self, settings: DataSettings, phases: PhasesSettings | None = None, *, offline: bool
    ) -> Rows:
        """Read and split the rows.

        Args:
            settings: Which rows, and how they are split.
            phases: How they part into phases, if they do.
            offline: Never touch the network.

        Raises:
            RecipeError: The data cannot be used as they are.
        """

    @abstractmethod
    def features(
        self, split: Split, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> list[dict[str, Any]]:
        """Tokenize rows.

        Args:
            split: The rows.
            tokenizer: The backbone's.
            max_length: Tokens that the model reads of a text, special ones included.

        Returns:
            An example per row, in their order: ``input_ids``, a list of token ids (batches are
            made of examples of similar length); ``labels``, what `Split.labels` has; ``texts``, the
            text; and, where `long` reads windows, what `recipes.long_text.marks` says of them.
        """

    @abstractmethod
    def collator(
        self, tokenizer: PreTrainedTokenizerBase
    ) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        """Return what makes a batch of examples.

        Returns:
            A function from examples of `features` to a dict with ``labels`` (a tensor, and first:
            by it the Trainer counts rows; ``[batch]`` int64, ``[batch, labels]`` or float32 for
            numbers), ``texts`` (a list), ``input_ids`` and ``attention_mask`` (int64
            ``[batch, length]``, padded to the longest), and ``windows``
            (`distill.windows.Windows`) where a text may have several rows of the inputs.
        """

    @abstractmethod
    def processing(
        self, tokenizer: PreTrainedTokenizerBase, max_length: int, inputs: Sequence[str]
    ) -> dict[str, Any]:
        """Return what the edge runtime has to repeat to make the model's inputs of a text.

        Args:
            tokenizer: The backbone's; the bundle holds its ``tokenizer.json``.
            max_length: As in `features`.
            inputs: Names of the graph's inputs.

        Returns:
            Plain data with the keys of `export.bundle.Processing`.
        """


tasks: Registry[type[Task]] = Registry("task", group="potstill.tasks", base=Task)

from recipes.tasks import text_classification  # noqa: E402, F401  (registers itself)
