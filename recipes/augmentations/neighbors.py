"""Words replaced by their neighbors in the backbone's input embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import ClassVar

from pydantic import Field

from recipes.augmentations import Source, augmentations
from recipes.augmentations.words import Replacement, Share, spans, words

#: Similarities that are held at a time: 64 MiB of them.
_HELD = 2**24
#: How many forms of one word, which differ only in capitals, a vocabulary may have.
_FORMS = 4


@augmentations.register("neighbors")
class Neighbors(Replacement):
    """Words become one of the nearest words in the backbone's input embeddings.

    Only a word that is one token of the backbone has neighbors; one of several pieces stays. The
    paper asks a masked language model for the former and GloVe vectors for the latter; a backbone
    that has lost its language model's head still has its embeddings.

    Attributes:
        neighbors: How many of the nearest words are drawn from.
    """

    paper: ClassVar[str] = "Jiao et al., 2020, arXiv:1909.10351"

    share: Share = 0.4
    neighbors: int = Field(default=15, ge=1)

    def chooser(self, words: list[str], source: Source) -> Callable[[int, Random], str | None]:
        """Return a function that draws a neighbor of a word."""
        table = source.once(("neighbors", self.neighbors), lambda: _Table(source, self.neighbors))

        def choose(place: int, random: Random) -> str | None:
            near = table.near(words[place])
            return random.choice(near) if near else None

        return choose


class _Table:
    """The nearest words of words, by the cosine of their embeddings.

    Those of the training texts are found at once, in blocks; others when they are asked for.
    """

    def __init__(self, source: Source, count: int) -> None:
        self._tokenizer, self._embeddings = source.tokenizer, source.embeddings
        self._count = count
        self._special = set(self._tokenizer.all_special_ids)
        self._read_vocabulary()
        known = sorted({word for text in source.texts for word in words(text)})
        self._ids = dict(zip(known, self._single_tokens(known), strict=True))
        self._near = self._nearest({token for token in self._ids.values() if token is not None})

    def near(self, word: str) -> Sequence[str]:
        """Return the nearest words, nearest first; none for a word of several tokens."""
        if word not in self._ids:
            [self._ids[word]] = self._single_tokens([word])
        token = self._ids[word]
        if token is None:
            return ()
        if token not in self._near:
            self._near |= self._nearest({token})
        return self._near[token]

    def _single_tokens(self, texts: Sequence[str]) -> list[int | None]:
        """Return the token that each word is, None for one of several or an unknown one."""
        if not texts:
            return []
        # After a space, as within a sentence: many tokenizers make another token of it.
        spaced = [f" {text}" for text in texts]
        tokens = self._tokenizer(spaced, add_special_tokens=False)["input_ids"]
        return [
            each[0] if len(each) == 1 and each[0] not in self._special else None for each in tokens
        ]

    def _read_vocabulary(self) -> None:
        """Find the tokens that are words, and their directions, one a row."""
        from torch import long, tensor
        from torch.nn.functional import normalize

        size = min(len(self._tokenizer), len(self._embeddings))
        decoded = self._tokenizer.batch_decode([[token] for token in range(size)])
        texts = [text.strip() for text in decoded]
        again = self._single_tokens(texts)
        # Pieces of words, marks and special tokens do not come back as the token they were.
        tokens = [
            token
            for token, (text, back) in enumerate(zip(texts, again, strict=True))
            if back == token and spans(text) == [(0, len(text))]
        ]
        self._words = [texts[token] for token in tokens]
        chosen = tensor(tokens, dtype=long, device=self._embeddings.device)
        self._directions = normalize(self._embeddings[chosen].float(), dim=-1)

    def _nearest(self, tokens: Iterable[int]) -> dict[int, tuple[str, ...]]:
        """Return the nearest words of tokens, a block of them at a time."""
        from torch import tensor
        from torch.nn.functional import normalize

        ordered = sorted(tokens)
        block = max(1, _HELD // max(1, len(self._words)))
        wanted = min(self._count + _FORMS, len(self._words))
        found: dict[int, tuple[str, ...]] = {}
        for start in range(0, len(ordered), block):
            part = ordered[start : start + block]
            chosen = tensor(part, device=self._embeddings.device)
            own = normalize(self._embeddings[chosen].float(), dim=-1)
            best = (own @ self._directions.T).topk(wanted).indices.tolist()
            for token, places in zip(part, best, strict=True):
                found[token] = self._others(token, places)
        return found

    def _others(self, token: int, places: Iterable[int]) -> tuple[str, ...]:
        own = self._tokenizer.decode([token]).strip().casefold()
        others = [self._words[place] for place in places]
        return tuple(word for word in others if word.casefold() != own)[: self._count]
