"""Lengths in the backbone's tokens, and what its vocabulary does not know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from export.edge import PAIR
from recipes.long_text import pieces
from recipes.look.findings import Finding
from recipes.look.gathering import KEPT, Gathered
from recipes.tasks.wording import agree, counted, listed, shown

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

#: Characters that are tokenized, about a second's worth.
_COUNTED = 1_000_000
_BATCH = 256
#: Shares of texts that are cut and of tokens that are unknown from which on that is a warning.
_CUT, _UNKNOWN = 0.05, 0.01
_WAYS = "data.long.way=windows reads all of them, head_tail their end too; "


def token_findings(
    gathered: Gathered,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    way: str,
    facts: dict[str, str],
) -> Iterator[Finding]:
    """Tell how long the texts are, how many are cut, and which words are unknown.

    Args:
        gathered: The rows.
        tokenizer: The backbone's.
        max_length: Tokens that are read at once.
        way: How longer texts are read.
        facts: Where to tell what was counted.
    """
    import numpy as np

    texts, pairs = [example.text for example in gathered.sample], gathered.pairs
    step = -(-sum(map(len, texts)) // _COUNTED) or 1
    read = texts[::step]
    lengths, unknown = _counted(read, tokenizer, pairs)
    special = tokenizer.num_special_tokens_to_add(pair=pairs)
    total = int(lengths.sum()) - special * len(lengths)
    half, most = np.percentile(lengths, (50, 95))
    # Of a text with more characters than are kept its beginning was counted.
    longest = f"{'more than ' * any(len(text) == KEPT for text in read)}{lengths.max()}"
    among = "" if step == 1 else f" (of {len(read):,} texts, drawn evenly)"
    facts["tokens"] = (
        f"half of the {'pairs' if pairs else 'texts'} have at most {half:.0f}, 95% at most "
        f"{most:.0f}, the longest {longest}; the limit is {max_length}{among}"
    )
    facts["unknown tokens"] = f"{unknown.total() / max(1, total):.2%}{among}"
    cut = int((lengths > max_length).sum())
    if cut:
        share = cut / len(lengths)
        yield Finding(
            "long-texts",
            "warning" if share >= _CUT else "note",
            f"{counted(cut, 'pair' if pairs else 'text')} ({share:.1%}) {agree(cut, 'have')} more "
            f"than {max_length} tokens{among}.",
            does=f"A run reads them so: {way}" + (", the longer text first." if pairs else "."),
            change=("" if pairs else _WAYS) + "data.max_length=N reads more at once, up to the "
            "backbone's own limit. More tokens cost more time.",
        )
    if unknown:
        share = unknown.total() / max(1, total)
        yield Finding(
            "unknown-tokens",
            "warning" if share >= _UNKNOWN else "note",
            f"{share:.2%} of the tokens are unknown to the backbone{among}, most often "
            f"{listed(f'{shown(word)} ({n:,})' for word, n in unknown.most_common(8))}.",
            does="A run reads all of them as one and the same token.",
            change="Choose a backbone that knows them: backbone.model=…",
        )


def _counted(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, pairs: bool
) -> tuple[np.ndarray, Counter[str]]:
    """Return the tokens of each text, special ones too, and what stands where one is unknown."""
    import numpy as np

    lengths: list[int] = []
    unknown: Counter[str] = Counter()
    for start in range(0, len(texts), _BATCH):
        batch = list(texts[start : start + _BATCH])
        if pairs:  # what is kept of a long one may end before its second text
            batch = [text if PAIR in text else text + PAIR for text in batch]
        encoded: Any = tokenizer(
            *pieces(batch, pairs), return_offsets_mapping=True, truncation=False, verbose=False
        )
        for place, (text, ids, spans) in enumerate(
            zip(batch, encoded["input_ids"], encoded["offset_mapping"], strict=True)
        ):
            lengths.append(len(ids))
            if tokenizer.unk_token_id in ids:
                parts = text.split(PAIR, 1) if pairs else [text]
                unknown.update(
                    parts[part][first:last]
                    for token, (first, last), part in zip(
                        ids, spans, encoded.sequence_ids(place), strict=True
                    )
                    if token == tokenizer.unk_token_id and part is not None
                )
    return np.array(lengths), unknown
