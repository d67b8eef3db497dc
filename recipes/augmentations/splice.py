"""Halves of two texts joined."""

from __future__ import annotations

from random import Random
from typing import ClassVar

from recipes.augmentations import Augmentation, Source, augmentations
from recipes.augmentations.words import spans


@augmentations.register("splice")
class Splice(Augmentation):
    """The first half of a text with the second half of a training text.

    The paper joins only halves of texts with one label; here any two are joined, and a teacher
    says what came of it.
    """

    paper: ClassVar[str] = "Luque, 2019, arXiv:1909.11241"
    keeps_label: ClassVar[bool] = False

    def vary(self, text: str, random: Random, source: Source) -> str:
        """Return the text's first half and another's second half; a single word is both."""
        if not source.texts:
            return text
        other = random.choice(source.texts)
        first, second = spans(text), spans(other)
        if len(first) > 1:
            text = text[: first[len(first) // 2][0]]
        if len(second) > 1:
            other = other[second[len(second) // 2][0] :]
        return f"{text.rstrip()} {other.lstrip()}"
