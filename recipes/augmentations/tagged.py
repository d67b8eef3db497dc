"""Words replaced by others of the same part of speech."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from random import Random
from typing import ClassVar

from pydantic import model_validator

from recipes.augmentations import Source, augmentations
from recipes.augmentations.words import Bag, Replacement, words


@augmentations.register("tagged")
class Tagged(Replacement):
    """Words become others of the training texts with the same part of speech.

    For English texts. The tagger is TextBlob's, a rule-based one (Brill, 1992), and comes with the
    extra ``tagger``.
    """

    paper: ClassVar[str] = "Tang et al., 2019, arXiv:1903.12136"

    @model_validator(mode="after")
    def _has_tagger(self) -> Tagged:
        from importlib.util import find_spec

        if find_spec("textblob") is None:
            raise ValueError(
                "it needs TextBlob's tagger, which is not installed: pip install 'potstill[tagger]'"
            )
        return self

    def chooser(self, words: list[str], source: Source) -> Callable[[int, Random], str | None]:
        """Return a function that draws another word of the same tag."""
        bags = source.once("tagged", lambda: _bags(source))
        tags = _tags(words)

        def choose(place: int, random: Random) -> str | None:
            bag = bags.get(tags[place])
            return None if bag is None else bag.other(words[place], random)

        return choose


def _bags(source: Source) -> dict[str, Bag]:
    """Return the words of the training texts by their tags."""
    found: dict[str, list[str]] = defaultdict(list)
    for text in source.texts:
        own = words(text)
        for word, tag in zip(own, _tags(own), strict=True):
            found[tag].append(word)
    return {tag: Bag(group) for tag, group in found.items()}


def _tags(words: Sequence[str]) -> list[str]:
    """Return a Penn Treebank tag for each word."""
    from textblob.en import parser

    return [tag for _, tag in parser.find_tags(words)]
