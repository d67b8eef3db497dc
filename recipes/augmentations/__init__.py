"""New texts made of the texts at hand, for training and for a teacher to label."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict

from adapters import AdapterError, Registry
from adapters.registry import by_name, source_file, told
from export.edge import PAIR
from recipes.console import is_main
from recipes.errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")


class Source:
    """What augmentations may draw from: the training split and the backbone, nothing else.

    Args:
        texts: The texts of the training split. Their order does not matter.
        pairs: Whether they are pairs, with a tab between their texts. Each of both is varied by
            itself then, and may draw from every single one.
        tokenizer: Returns the backbone's tokenizer; called at most once, when it is first needed.
        embeddings: Returns the backbone's input embeddings, floats ``[vocabulary, width]``; called
            at most once, when they are first needed.
    """

    def __init__(
        self,
        texts: Sequence[str],
        tokenizer: Callable[[], PreTrainedTokenizerBase] | None = None,
        embeddings: Callable[[], Tensor] | None = None,
        *,
        pairs: bool = False,
    ) -> None:
        self.pairs = pairs
        # Sorted, so that what is drawn does not depend on the order of the rows.
        self.texts = tuple(sorted({part for text in texts for part in self.parts(text)}))
        self._tokenizer = tokenizer
        self._embeddings = embeddings
        self._derived: dict[Hashable, Any] = {}

    def parts(self, text: str) -> list[str]:
        """Return what of a text is varied by itself: both texts of a pair, or the text."""
        return text.split(PAIR) if self.pairs else [text]

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The backbone's tokenizer.

        Raises:
            RecipeError: There is no backbone.
        """
        if self._tokenizer is None:
            raise RecipeError(_NO_BACKBONE)
        return self._tokenizer()

    @cached_property
    def embeddings(self) -> Tensor:
        """The backbone's input embeddings, ``[vocabulary, width]``.

        Raises:
            RecipeError: There is no backbone.
        """
        if self._embeddings is None:
            raise RecipeError(_NO_BACKBONE)
        return self._embeddings().detach()

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what ``make`` returned when this key was first asked for.

        For tables that an augmentation derives from the source; itself it is frozen.
        """
        if key not in self._derived:
            self._derived[key] = make()
        found: T = self._derived[key]
        return found


_NO_BACKBONE = (
    "An augmentation needs a backbone's tokenizer and input embeddings, and none was given. Give "
    "Source a tokenizer and embeddings, or choose another augmentation."
)


class Augmentation(BaseModel):
    """One way to make a new text of another; its fields are its settings.

    Subclass it, give the fields types and defaults, write `vary` and register the class with
    ``@augmentations.register("name")``. Fields are checked strictly when the recipe is read.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    #: Where the method comes from, for lists and reports: authors, year, arXiv number.
    paper: ClassVar[str] = ""
    #: Whether a new text may go by the label of the text it was made of. One that may not is for
    #: a teacher to label, and refused in fine-tuning.
    keeps_label: ClassVar[bool] = True

    def vary(self, text: str, random: Random, source: Source) -> str:
        """Return a variation of a text, or the text itself where there is nothing to vary.

        Args:
            text: The text.
            random: The only source of chance; it belongs to this text alone.
            source: What may be drawn from.
        """
        raise NotImplementedError


augmentations: Registry[type[Augmentation]] = Registry(
    "augmentation", group="potstill.augmentations", base=Augmentation
)


def _keeping(augmentation: Augmentation) -> Augmentation:
    if not augmentation.keeps_label:
        raise ValueError(
            f"{augmentations.name_of(type(augmentation))!r} makes texts that the label of the "
            "original does not fit, so that only a teacher can label them: move it to "
            "distill.augment"
        )
    return augmentation


#: A field of a recipe that takes ``{name: …, share: …}``, or a bare name.
AnyAugmentation = Annotated[Augmentation, *by_name(augmentations)]
#: The same, where new texts go by the labels of their originals.
AnyLabelKeepingAugmentation = Annotated[AnyAugmentation, AfterValidator(_keeping)]


class Variant(NamedTuple):
    """A new text.

    Attributes:
        text: The text.
        origin: Position of the text that it was made of.
    """

    text: str
    origin: int


def variants(
    texts: Sequence[str],
    augmentations: Sequence[Augmentation],
    copies: int | Sequence[int],
    seed: int,
    source: Source,
) -> list[Variant]:
    """Make new texts, and say what each was made of.

    Every text has a stream of chance of its own, which depends on nothing but the seed and the
    text: what is made of it does not depend on the other texts or their order, and fewer copies
    are the first of more. The augmentations take turns, starting with one drawn for each text.
    A result that is blank, or a pair of which a part is, or that is equal to one of ``texts`` or to
    an earlier result, is left out.

    Args:
        texts: What to make new texts of.
        augmentations: The ways to vary a text, at least one.
        copies: How often each text is varied, and so the most new texts that it can give; or how
            often this one, for each text.
        seed: Seed of all draws.
        source: What the augmentations may draw from.

    Raises:
        RecipeError: An augmentation failed; the message names it.
    """
    seen = set(texts)
    found = []
    each = [copies] * len(texts) if isinstance(copies, int) else copies
    for origin, text in enumerate(_shown(texts)):
        for new in _variations(text, augmentations, each[origin], seed, source):
            if all(part.strip() for part in source.parts(new)) and new not in seen:
                seen.add(new)
                found.append(Variant(new, origin))
    return found


def rows(
    texts: Sequence[str],
    augmentations: Sequence[Augmentation],
    copies: int,
    seed: int,
    source: Source,
) -> list[str]:
    """Return the new texts of `variants` alone."""
    return [variant.text for variant in variants(texts, augmentations, copies, seed, source)]


def _shown(texts: Sequence[str]) -> Iterator[str]:
    """Yield the texts under a bar that appears on a terminal once it takes seconds."""
    from tqdm.auto import tqdm

    disable = None if is_main() else True
    yield from tqdm(
        texts, desc="augment", unit="text", delay=2, leave=False, disable=disable, file=sys.stderr
    )


def _variations(
    text: str, ways: Sequence[Augmentation], copies: int, seed: int, source: Source
) -> Iterator[str]:
    # Bytes, because a lone surrogate cannot be part of a seed that is a string.
    random = Random(f"{seed} ".encode() + text.encode("utf-8", "surrogatepass"))
    first = random.randrange(len(ways))
    for copy in range(copies):
        way = ways[(first + copy) % len(ways)]
        new = [_varied(way, part, random, source) for part in source.parts(text)]
        yield PAIR.join(part.replace(PAIR, " ") for part in new) if source.pairs else new[0]


def _varied(way: Augmentation, text: str, random: Random, source: Source) -> str:
    try:
        new = way.vary(text, random, source)
    except (RecipeError, AdapterError, MemoryError):
        raise
    except Exception as error:
        raise RecipeError(
            f"{_called(way)} failed on the text {text[:60]!r}: {told(error)}. Mend it, or choose "
            "another."
        ) from error
    if not isinstance(new, str):
        raise RecipeError(
            f"{_called(way)} returned {type(new).__name__} from vary(), not a text. Mend it, or "
            "choose another."
        )
    return new


def _called(way: Augmentation) -> str:
    cls = type(way)
    name = next(iter(augmentations.loaded(cls)), cls.__qualname__)
    return f"The augmentation {name!r} ({source_file(cls) or cls.__module__})"


from recipes.augmentations import neighbors, noise, splice, tagged  # noqa: E402, F401
