"""Words replaced, left out and swapped at random."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import ClassVar

from recipes.augmentations import Source, augmentations
from recipes.augmentations.words import Bag, Replacement, Share, WordChange, replaced, spans, words


@augmentations.register("replace")
class Replace(Replacement):
    """Words become others of the training texts, drawn as often as these have them."""

    paper: ClassVar[str] = "Xie et al., 2017, arXiv:1703.02573"

    share: Share = 0.2

    def chooser(self, words: list[str], source: Source) -> Callable[[int, Random], str | None]:
        """Return a function that draws any other word."""
        bag = source.once("words", lambda: _all_words(source))
        return lambda place, random: bag.other(words[place], random)


def _all_words(source: Source) -> Bag:
    return Bag(word for text in source.texts for word in words(text))


@augmentations.register("delete")
class Delete(WordChange):
    """Words are left out, never all of them."""

    paper: ClassVar[str] = "Wei and Zou, 2019, arXiv:1901.11196"

    def vary(self, text: str, random: Random, source: Source) -> str:
        """Return the text without some words, and without the spaces that went with them."""
        places = spans(text)
        if len(places) < 2:
            return text
        count = min(self.count(len(places)), len(places) - 1)
        for start, end in sorted(random.sample(places, count), reverse=True):
            before, after = text[:start], text[end:]
            if not before or before[-1].isspace():
                # One space of the two around the word, or what is at the text's end.
                after = after[1:] if after[:1].isspace() else after
                before = before if after else before[:-1]
            text = before + after
        return text


@augmentations.register("swap")
class Swap(WordChange):
    """Words change places with each other."""

    paper: ClassVar[str] = "Wei and Zou, 2019, arXiv:1901.11196"

    def vary(self, text: str, random: Random, source: Source) -> str:
        """Return the text with some words, at least two, each in the place of another."""
        places = spans(text)
        if len(places) < 2:
            return text
        chosen = random.sample(places, max(2, self.count(len(places))))
        others = [*chosen[1:], chosen[0]]
        return replaced(
            text, {place: text[slice(*other)] for place, other in zip(chosen, others, strict=True)}
        )
