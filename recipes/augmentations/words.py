"""Words in a text: where they are, how many of them change, and what may take their place.

A word is what stands between spaces, without punctuation and symbols at its ends; emoji alone are
none. In a script without spaces a run of letters counts as one word.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Annotated

from pydantic import Field

from recipes.augmentations import Augmentation, Source

Span = tuple[int, int]
Share = Annotated[float, Field(gt=0, le=1)]
_PIECE = re.compile(r"\S+")


def spans(text: str) -> list[Span]:
    """Return where each word of a text starts and ends."""
    found = []
    for piece in _PIECE.finditer(text):
        start, end = piece.span()
        while start < end and _outside(text[start]):
            start += 1
        while start < end and _outside(text[end - 1]):
            end -= 1
        if any(map(str.isalnum, text[start:end])):
            found.append((start, end))
    return found


def _outside(character: str) -> bool:
    # Not "whatever is no letter": vowel signs of many scripts are none, and end words.
    return not character.isalnum() and unicodedata.category(character)[0] in "PS"


def words(text: str) -> list[str]:
    """Return the words of a text."""
    return [text[start:end] for start, end in spans(text)]


def replaced(text: str, changes: Mapping[Span, str]) -> str:
    """Return a text with other words in some places, and everything between words as it was."""
    for (start, end), word in sorted(changes.items(), reverse=True):
        text = text[:start] + word + text[end:]
    return text


class Bag:
    """Words, each as often as it was put in.

    Args:
        words: The words; their order does not matter.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self._words = sorted(words, key=lambda word: (word.casefold(), word))
        self._keys = [word.casefold() for word in self._words]

    def other(self, word: str, random: Random) -> str | None:
        """Draw a word that is not this one, in capitals or not; None if there is no other."""
        # Equal words lie side by side: they are stepped over.
        start = bisect_left(self._keys, word.casefold())
        end = bisect_right(self._keys, word.casefold())
        others = len(self._words) - (end - start)
        if not others:
            return None
        place = random.randrange(others)
        return self._words[place if place < start else place + end - start]


class WordChange(Augmentation):
    """A change of some of a text's words.

    Attributes:
        share: Share of a text's words that change; at least one does.
    """

    share: Share = 0.1

    def count(self, words: int) -> int:
        """Return how many of so many words change."""
        return max(1, round(self.share * words))


class Replacement(WordChange):
    """A change of words into others; a subclass says into which."""

    def vary(self, text: str, random: Random, source: Source) -> str:
        """Return the text with some words replaced, as far as they have a replacement."""
        places = spans(text)
        choose = self.chooser([text[start:end] for start, end in places], source)
        changes: dict[Span, str] = {}
        for place in random.sample(range(len(places)), len(places)):
            if len(changes) == self.count(len(places)):
                break
            if (word := choose(place, random)) is not None:
                changes[places[place]] = word
        return replaced(text, changes)

    def chooser(self, words: list[str], source: Source) -> Callable[[int, Random], str | None]:
        """Return a function that draws a word for a place among ``words``, None to leave it."""
        raise NotImplementedError
