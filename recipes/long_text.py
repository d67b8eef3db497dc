"""Texts that are longer than a model takes at once: how they become examples and batches.

What is read of a text is chosen by `export.edge.seen`, here and at the edge alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from distill.windows import Reading, laid_out, picked
from export.edge import PAIR, seen, starts
from recipes.errors import RecipeError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from recipes.problems import Problem
    from recipes.recipe import LongSettings

Example = Mapping[str, Any]


def tokens(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    max_length: int,
    long: LongSettings | None,
    pairs: bool = False,
) -> list[list[int]]:
    """Return the token ids that are read of each text; windows follow one another.

    Args:
        tokenizer: A fast one.
        texts: The texts.
        max_length: Tokens that are read at once.
        long: How longer texts are read; None cuts them on the right.
        pairs: Whether texts are pairs with a tab between them, which are always cut. Plain texts
            among them, as an imitation reads, stay single.
    """
    import numpy as np

    rows: list[list[int]]
    if not texts:  # which tokenizers refuse
        return []
    paired = [PAIR in text for text in texts] if pairs else []
    if any(paired) and not all(paired):  # a tokenizer takes either
        rows = [[] for _ in texts]
        for kind in (True, False):
            places = [place for place, there in enumerate(paired) if there is kind]
            part = tokens(tokenizer, [texts[place] for place in places], max_length, long, kind)
            for place, row in zip(places, part, strict=True):
                rows[place] = row
        return rows
    whole = long is not None and long.way != "head"
    encoded = tokenizer(
        *pieces(texts, pairs),
        truncation=not whole,
        max_length=None if whole else max_length,
        return_special_tokens_mask=whole,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # that a text is longer than the model is known
    )
    rows = encoded["input_ids"]
    if not whole:
        return rows
    ways = told_edge(long)["long"]
    ways.pop("pool", None)
    marked = zip(rows, encoded["special_tokens_mask"], strict=True)
    return [
        row if len(row) <= max_length else np.array(row)[seen(mask, max_length, **ways)].tolist()
        for row, mask in marked
    ]


def pieces(texts: Sequence[str], pairs: bool) -> tuple[list[str], ...]:
    """Return what a tokenizer is given: the texts, or of pairs all first and all second ones."""
    if not pairs or PAIR not in texts[0]:
        return (list(texts),)
    parts = [text.split(PAIR, 1) for text in texts]
    return [first for first, _ in parts], [second for _, second in parts]


def told_edge(long: LongSettings | None) -> dict[str, Any]:
    """Return what the bundle's ``processing`` says besides its length; nothing if texts are cut."""
    if long is None or long.way == "head":
        return {}
    if long.way == "head_tail":
        return {"long": {"way": long.way}}
    return {"long": long.model_dump(include={"way", "stride", "most", "pool"})}


def reading(long: LongSettings, max_length: int, pairs: bool = False) -> Reading:
    """Return how a teacher turns texts into rows."""
    return Reading(
        partial(tokens, max_length=max_length, long=long, pairs=pairs),
        max_length,
        long.pool if long.way == "windows" else None,
        told_edge(long).get("long"),
    )


def marks(long: LongSettings | None, max_length: int) -> dict[str, Any]:
    """Return what an example in windows says of them: their size, and how many a step reads."""
    if long is None or long.way != "windows":
        return {}
    return {"window": max_length, "drawn": long.train_windows}


def batch(examples: Sequence[Example], padding: int, pool: str) -> dict[str, Any]:
    """Return the inputs of some examples, and ``windows`` if they are read in such.

    Args:
        examples: All in windows, or none.
        padding: The id of the padding.
        pool: How logits of windows become those of texts.
    """
    rows = [example["input_ids"] for example in examples]
    if not examples or "window" not in examples[0]:
        return laid_out(rows, padding)[0]
    size = examples[0]["window"]
    numbers = [example.get("numbers") or _all(example) for example in examples]
    inputs, windows = laid_out(rows, padding, size=size, pool=pool, numbers=numbers)
    return {**inputs, "windows": windows}


def _all(example: Example) -> range:
    return range(len(starts(len(example["input_ids"]), example["window"])))


class Drawn(Sequence[Example]):
    """Examples to learn from: of a text in many windows, some that each epoch draws anew.

    Which they are depends on seed, epoch and row alone. An example then has ``numbers``, the
    places of its windows among all of the text.

    Args:
        examples: From `recipes.tasks.Task.features`.
        seed: Seed of the draws.

    Attributes:
        epoch: Whose draws come next.
        lengths: Tokens that are read of each row in an epoch, all windows taken as full.
    """

    def __init__(self, examples: Sequence[Example], seed: int) -> None:
        self.examples = examples
        self.seed = seed
        self.epoch = 0
        self.lengths = [drawn_tokens(example) for example in examples]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.examples)

    def __iter__(self) -> Iterator[Example]:
        """Yield each row."""
        return (self[row] for row in range(len(self)))

    def __getitem__(self, row: Any) -> Any:
        """Return a row with the windows that this epoch draws."""
        example = self.examples[row]
        most, size = example.get("drawn"), example.get("window")
        if most is None or len(_all(example)) <= most:
            return example
        chance = Random(f"{self.seed} {self.epoch} {row}")
        numbers = sorted(chance.sample(_all(example), most))
        return {
            **example,
            "input_ids": picked(example["input_ids"], numbers, size),
            "numbers": numbers,
        }


def drawn_tokens(example: Example) -> int:
    """Return how many tokens of an example an epoch of training reads, at most."""
    length, most = len(example["input_ids"]), example.get("drawn")
    return length if most is None else min(length, int(most * example["window"]))


def check_room(long: LongSettings, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    """Check that a window has room for more than it shares with the next.

    Raises:
        RecipeError: It has none.
    """
    room = max_length - tokenizer.num_special_tokens_to_add()
    if long.way == "windows" and long.stride >= room:
        raise RecipeError(
            f"data.long.stride={long.stride}, but a window of {max_length} tokens has room for "
            f"{room} of a text: set data.long.stride={room // 4} or less than {room}, or a larger "
            "data.max_length."
        )


def check_pool(long: LongSettings, problem: Problem, pairs: bool) -> None:
    """Check that texts can be read so: pairs are cut, and attention needs logits of a free mean.

    Raises:
        RecipeError: They cannot.
    """
    if pairs and long.way != "head":
        raise RecipeError(
            f"data.long.way={long.way} is for single texts, and rows are pairs of texts, of which "
            "the longer is cut. Leave it out."
        )
    if long.way == "windows" and long.pool == "attention" and not problem.shift_free:
        raise RecipeError(
            "data.long.pool=attention weighs windows by the mean of their logits, which is free to "
            "learn only where a text has exactly one of several labels: here it is part of the "
            "answer. Set data.long.pool=mean or data.long.pool=max."
        )


def told(long: LongSettings, max_length: int) -> str:
    """Say how texts that are longer than ``max_length`` tokens are read."""
    if long.way == "head":
        return f"cut at {max_length} tokens"
    if long.way == "head_tail":
        return f"of longer texts the beginning and the end, {max_length} tokens together"
    most = "" if long.most is None else f", at most {long.most} of a text"
    return (
        f"longer texts in windows of {max_length} tokens that share {long.stride}{most}; their "
        f"logits are pooled ({long.pool})"
    )


def findings(long: LongSettings, max_length: int, examples: Sequence[Example]) -> list[str]:
    """Say how many texts are longer than is read at once, and what limits do to them.

    Args:
        long: How these are read.
        max_length: Tokens that are read at once.
        examples: The rows to learn from; those that were cut are told by being full.
    """
    counts = [len(_all(example)) if "window" in example else 1 for example in examples]
    said = [f"reads {told(long, max_length)}"]
    if long.way != "windows":
        return said
    several = sum(count > 1 for count in counts)
    said.append(
        f"{several:,} of {len(counts):,} training texts have several windows, "
        f"{sum(counts) / max(1, len(counts)):.2f} on average"
    )
    if long.most is not None and (full := sum(count == long.most for count in counts)):
        said.append(
            f"{full:,} fill the limit of {long.most} windows (data.long.most): if they are longer, "
            "the windows are spread evenly over them"
        )
    if long.train_windows is not None and (more := sum(n > long.train_windows for n in counts)):
        said.append(
            f"{more:,} have more than the {long.train_windows} that a step of training reads, "
            "drawn anew in each epoch (data.long.train_windows)"
        )
    return said
