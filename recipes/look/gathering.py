"""One pass over all rows: what is counted of every one, and a sample for what needs more."""

from __future__ import annotations

import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from recipes.look.characters import problems_in
from recipes.look.examples import Example
from recipes.look.findings import Origin, Tally
from recipes.look.prints import Prints
from recipes.tasks.columns import problem_of
from recipes.tasks.wording import shown

#: Rows of the sample, the characters that they hold together, and those that are kept of one.
SAMPLE, _TOGETHER, KEPT = 20_000, 32_000_000, 20_000
#: Distinct labels from which on no further ones are counted by name.
_LABELS = 100_000


@dataclass
class Gathered:
    """What one pass over all rows leaves.

    Attributes:
        max_characters: Length from which a text is unusable.
        labelled: Whether the rows have a column of labels.
        pairs: Whether texts are pairs with a tab between them.
        limit: Rows of the sample.
        seed: Of the sample.
        rows: Rows of each origin, the unusable ones too.
        used: Usable rows of each origin.
        labels: Usable rows of each label, by origin; a row with several counts for each.
        bare: Of these the ones with none of several labels.
        sets: The labels of a row with several, by their names, joined.
        unusable: Rows that a run refuses or leaves out, by what is wrong with them.
        odd: Texts with characters that speak of a damaged file, by what they hold.
        characters: Characters of all texts.
        prints: Hashes of the usable texts.
        sample: Usable rows, drawn evenly; in their order once `finish` was called.
    """

    max_characters: int
    labelled: bool = True
    pairs: bool = False
    limit: int = SAMPLE
    seed: int = 0
    rows: Counter[Origin] = field(default_factory=Counter)
    used: Counter[Origin] = field(default_factory=Counter)
    labels: defaultdict[Origin, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    bare: Counter[Origin] = field(default_factory=Counter)
    sets: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unusable: dict[str, Tally] = field(default_factory=dict)
    odd: dict[str, Tally] = field(default_factory=dict)
    characters: int = 0
    prints: Prints = field(default_factory=Prints)
    sample: list[Example] = field(default_factory=list)
    _heap: list[tuple[float, int, Example]] = field(default_factory=list, repr=False)
    _held: int = 0

    def __post_init__(self) -> None:
        """Seed the sample."""
        self._chance = random.Random(self.seed)

    @property
    def usable(self) -> int:
        """Return how many rows can be used."""
        return self.used.total()

    @property
    def whole(self) -> bool:
        """Tell whether the sample is all usable rows."""
        return len(self.sample) == self.usable

    def add(self, examples: Iterable[Example]) -> None:
        """Look at some rows."""
        for example in examples:
            origin, number, text = example.origin, example.number, example.text
            self.rows[origin] += 1
            label = example.label if self.labelled else ""
            problem = problem_of(text, label, self.max_characters)
            if problem is not None:
                self.unusable.setdefault(problem, Tally()).add(origin, number)
                continue
            self.used[origin] += 1
            self.characters += len(text)
            for problem, part in problems_in(text):
                self.odd.setdefault(problem, Tally()).add(origin, number, shown(part))
            if self.labelled and example.label is not None:
                self._count(example)
            self.prints.add(origin, number, text, example.label)
            self._draw(example)

    def finish(self) -> None:
        """Put the sample in order."""
        rank = {origin: place for place, origin in enumerate(self.rows)}
        drawn = sorted(self._heap, key=lambda entry: (rank[entry[2].origin], -entry[1]))
        self.sample = [example for _, _, example in drawn]
        self._heap = []

    def _count(self, example: Example) -> None:
        """Count the row's labels by name, as far as these are not too many."""
        counts = self.labels[example.origin]
        for name in example.names:
            if len(counts) < _LABELS or name in counts:
                counts[name] += 1
        self.bare[example.origin] += not example.names
        if example.each is not None and len(self.sets) < _LABELS:
            self.sets[example.label or ""] = example.each

    def _draw(self, example: Example) -> None:
        """Keep the row if its lot is among the smallest (a reservoir that may shrink)."""
        lot, full = self._chance.random(), len(self._heap) >= self.limit
        if full and lot > -self._heap[0][0]:
            return
        if len(example.text) > KEPT:
            example = replace(example, text=example.text[:KEPT])
        heapq.heappush(self._heap, (-lot, -self.rows.total(), example))
        self._held += len(example.text)
        while len(self._heap) > self.limit or self._held > _TOGETHER:
            self._held -= len(heapq.heappop(self._heap)[2].text)
            self.limit = min(self.limit, max(1, len(self._heap)))
