"""A BERT tokenizer as ONNX nodes: texts in, ids and attention mask out.

onnxruntime-extensions' ``BertTokenizer`` takes one text at a time and differs from the tokenizers
library: it keeps the first pieces of a word whose rest is unknown, knows no added tokens in a text,
and lowers, decomposes and drops other characters. So only its search for the longest pieces of
the vocabulary is used. What comes before is a table, because BERT's normalizer and pre-tokenizer
treat each character by itself: the table is read off the tokenizer, character by character. What
comes after is arithmetic: one unknown token for a word with any unknown piece, the cut to the
longest length, the special tokens around, and padding.

Whether the result is equal is not believed but shown, see `export.onefile`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING

from export.errors import ExportError
from export.nodes import CLASSICAL, EXTENSIONS, RUNTIME, Nodes

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from export.bundle import Processing

#: What the parts of a tokenizer.json have to be, for the table to say all that they do.
_KINDS = {"normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer", "model": "WordPiece"}
#: Characters for private use stand for added tokens: BERT's normalizer drops them from a text.
_PRIVATE = range(0xE000, 0xF900)
_CODE_POINTS = [*range(0xD800), *range(0xE000, sys.maxunicode + 1)]  # UTF-8 has no surrogates
#: Parts characters that are looked at together; it must not be changed itself.
_BETWEEN = "|"
#: What is unknown while pieces are counted.
_UNKNOWN = -1
#: onnx.TensorProto.INT64
_INT64 = 7


def check_kind(tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer that works otherwise than BERT's.

    Raises:
        ExportError: It does.
    """
    content = json.loads(tokenizer.to_str())
    for part, kind in _KINDS.items():
        found = (content[part] or {}).get("type")
        if found != kind:
            raise ExportError(
                f"The tokenizer's {part} is {found}, and only a tokenizer of BERT's kind ({kind}) "
                "can be put into the graph. Use the bundle itself, or --to triton."
            )


def add_tokenizer(nodes: Nodes, tokenizer: Tokenizer, processing: Processing, text: str) -> None:
    """Add nodes that make a model's inputs [N, L] of N texts.

    Args:
        nodes: Where to add them; their outputs have the names of the model's inputs.
        tokenizer: A tokenizer of BERT's kind.
        processing: Of the bundle: the longest length, the padding and the names of the inputs.
        text: The name of the texts, strings [N].

    Raises:
        ExportError: The tokenizer is of another kind.
    """
    from tokenizers import Tokenizer

    check_kind(tokenizer)
    tokenizer = Tokenizer.from_str(tokenizer.to_str())  # the caller's keeps its settings
    tokenizer.no_padding()
    tokenizer.no_truncation()
    marks = _marks(tokenizer)
    words = _words(nodes, tokenizer, marks, text)
    pieces, begins = _pieces(nodes, tokenizer, marks, words)
    shape = nodes.add("Shape", words)
    count, width = (nodes.add("Gather", shape, nodes.number(axis)) for axis in (0, 1))
    model = json.loads(tokenizer.to_str())["model"]
    unknown = model["vocab"][model["unk_token"]]
    pieces, row = _whole_words(nodes, pieces, begins, width, unknown)
    _assemble(nodes, tokenizer, processing, pieces, row, count)


# --- From texts to words -----------------------------------------------------------------------


def _marks(tokenizer: Tokenizer) -> dict[int, str]:
    """Return a character for each id of an added token, and one for what is unknown."""
    ids = [_UNKNOWN, *tokenizer.get_added_tokens_decoder()]
    marks = {number: chr(point) for number, point in zip(ids, _PRIVATE, strict=False)}
    if len(marks) < len(ids) or any(tokenizer.normalizer.normalize_str(m) for m in marks.values()):
        raise ExportError(
            "The tokenizer keeps characters for private use (its normalizer does not clean texts), "
            "or has thousands of added tokens. It cannot be put into the graph: use the bundle "
            "itself, or --to triton."
        )
    return marks


def _words(nodes: Nodes, tokenizer: Tokenizer, marks: Mapping[int, str], text: str) -> str:
    """Return the words of each text [N, W], "" where a text has fewer."""
    added = tokenizer.get_added_tokens_decoder()
    normalize = tokenizer.normalizer.normalize_str
    raw = {token.content: f" {marks[n]} " for n, token in added.items() if not token.normalized}
    late = {
        normalize(token.content): f" {marks[n]} " for n, token in added.items() if token.normalized
    }
    normal = _normal_forms(tokenizer)
    apart = _set_apart(tokenizer, {*map(chr, _CODE_POINTS)} - normal.keys() | {*normal.values()})
    if late:  # they are looked for in the normalized text
        text = _replaced(nodes, text, normal | raw)
        text = _replaced(nodes, text, apart | late)
    else:
        both = {old: "".join(apart.get(each, each) for each in new) for old, new in normal.items()}
        text = _replaced(nodes, text, apart | both | raw)
    return nodes.add(
        "Tokenizer", text, domain=RUNTIME, separators=[" "], mark=0, mincharnum=1, pad_value=""
    )


def _normal_forms(tokenizer: Tokenizer) -> dict[str, str]:
    """Return every character that normalizing changes, and what it becomes."""
    characters = [chr(point) for point in _CODE_POINTS if chr(point) != _BETWEEN]
    forms = tokenizer.normalizer.normalize_str(_BETWEEN.join(characters)).split(_BETWEEN)
    pairs = zip(characters, forms, strict=True)
    return {character: form for character, form in pairs if form != character}


def _set_apart(tokenizer: Tokenizer, forms: Iterable[str]) -> dict[str, str]:
    """Return which characters of normal forms divide words, with the spaces that do it."""
    characters = iter(sorted({character for form in forms for character in form}))
    found = {}
    while chunk := list(islice(characters, 1024)):  # splitting takes time by length times parts
        text = "".join(f"a{character}" for character in chunk) + "a"
        ends = {end for _, (_, end) in tokenizer.pre_tokenizer.pre_tokenize_str(text)}
        for place, character in enumerate(chunk):
            start = 2 * place + 1
            if start in ends:  # the word before it ends
                alone = start + 1 in ends
                found[character] = f" {character} " if alone else " "
    return found


def _replaced(nodes: Nodes, text: str, table: Mapping[str, str]) -> str:
    """Replace in each text [N] the table's keys, the longest first, and keep all other characters.

    onnxruntime's ``Tokenizer`` divides the texts into keys of several characters and single
    characters, [N, D] with "" where a text has fewer; what is in the table is looked up. Characters
    that are to go, a million of them, match nothing: that saves keys.
    """
    long = sorted((key for key in table if len(key) > 1), key=len, reverse=True)
    kept = _ranges(point for point in _CODE_POINTS if table.get(chr(point)) != "")
    pattern = "|".join([*map(_quoted, long), f"[{kept}]"])
    parts = nodes.add(
        "Tokenizer", text, domain=RUNTIME, tokenexp=pattern, mark=0, mincharnum=1, pad_value=""
    )
    keys, values = zip(*((key, value) for key, value in table.items() if value), strict=True)
    place = nodes.add(
        "LabelEncoder", parts, domain=CLASSICAL, keys_strings=keys,
        values_int64s=range(len(keys)), default_int64=len(keys),
    )  # fmt: skip
    known = nodes.add("Less", place, nodes.number(len(keys)))
    new = nodes.add("Gather", nodes.words(*values, ""), place)
    parts = nodes.add("Where", known, new, parts)
    return nodes.add("StringJoin", parts, nodes.words(""), nodes.number(1), domain=EXTENSIONS)


def _ranges(points: Iterable[int]) -> str:
    """Return what stands between the brackets of a regular expression for these code points."""
    found: list[list[int]] = []
    for point in points:
        if found and found[-1][1] == point - 1:
            found[-1][1] = point
        else:
            found.append([point, point])
    return "".join(f"\\x{{{first:x}}}-\\x{{{last:x}}}" for first, last in found)


def _quoted(text: str) -> str:
    """Return a regular expression that matches the text alone."""
    return "".join(f"\\x{{{ord(character):x}}}" for character in text)


# --- From words to pieces ----------------------------------------------------------------------


def _pieces(
    nodes: Nodes, tokenizer: Tokenizer, marks: Mapping[int, str], words: str
) -> tuple[str, str]:
    """Return the ids of all words' pieces [P], and where each word begins among them [N * W]."""
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary = model["vocab"] | {m: n for n, m in marks.items() if n != _UNKNOWN}
    flat = nodes.add("Reshape", words, nodes.number(-1))
    attributes = {
        "vocab": json.dumps(vocabulary), "suffix_indicator": model["continuing_subword_prefix"],
        "unknown_token": marks[_UNKNOWN],
        "max_input_chars_per_word": model["max_input_chars_per_word"],
    }  # fmt: skip
    # It writes all four outputs unasked: one that is left out ends the process.
    strings, _, begins, _ = nodes.add_many(
        "WordpieceTokenizer", flat, nodes.number(), outputs=[""] * 4, domain=EXTENSIONS,
        **attributes,
    )  # fmt: skip
    pieces = nodes.add(
        "LabelEncoder", strings, domain=CLASSICAL, keys_strings=list(vocabulary),
        values_int64s=list(vocabulary.values()), default_int64=_UNKNOWN,
    )  # fmt: skip
    return pieces, begins


def _whole_words(
    nodes: Nodes, pieces: str, begins: str, width: str, unknown: int
) -> tuple[str, str]:
    """Leave one unknown token of a word that has an unknown piece.

    Args:
        nodes: Where to add what does it.
        pieces: Ids [P]; the search ends a word at its first unknown piece.
        begins: Where each word begins among them [N * W].
        width: W, words of a text.
        unknown: The id of the unknown token.

    Returns:
        The ids that stay [K], and the row of the text that each belongs to [K].
    """
    later = nodes.add("Slice", begins, nodes.number(1), nodes.number(sys.maxsize))
    total = nodes.add("Shape", pieces)
    longer = nodes.add("Add", total, nodes.number(1))  # the last words may have no piece
    starts = _sums(nodes, longer, later, _ones(nodes, later))
    word = nodes.add("CumSum", starts, nodes.number(0))
    word = nodes.add("Slice", word, nodes.number(0), total)
    lost = nodes.add("Equal", pieces, nodes.number(_UNKNOWN))
    losses = _sums(nodes, nodes.add("Shape", begins), word, nodes.add("Cast", lost, to=_INT64))
    whole = nodes.add("Equal", nodes.add("Gather", losses, word), nodes.number(0))
    kept = nodes.add("Or", whole, lost)
    pieces = nodes.add("Where", lost, nodes.number(unknown), pieces)
    row = nodes.add("Div", word, nodes.add("Max", width, nodes.number(1)))  # maybe no word at all
    return nodes.add("Compress", pieces, kept), nodes.add("Compress", row, kept)


# --- From pieces to the model's inputs ---------------------------------------------------------


def _assemble(
    nodes: Nodes, tokenizer: Tokenizer, processing: Processing, pieces: str, row: str, count: str
) -> None:
    """Make the model's inputs of ids [K], the row of each [K] and the count of rows [1]."""
    before, after = _special_tokens(tokenizer)
    room = processing["max_length"] - len(before) - len(after)

    ones = _ones(nodes, row)
    lengths = _sums(nodes, count, row, ones)
    starts = nodes.add("CumSum", lengths, nodes.number(0), exclusive=1)
    places = nodes.add("Sub", nodes.add("CumSum", ones, nodes.number(0)), ones)
    places = nodes.add("Sub", places, nodes.add("Gather", starts, row))
    fits = nodes.add("Less", places, nodes.number(room))
    pieces, row, places = (nodes.add("Compress", each, fits) for each in (pieces, row, places))
    lengths = nodes.add("Min", lengths, nodes.number(room))

    longest = nodes.add("ReduceMax", lengths, keepdims=1)
    width = nodes.add("Add", longest, nodes.number(len(before) + len(after)))
    column = nodes.add("Add", places, nodes.number(len(before)))
    where = [nodes.add("Unsqueeze", each, nodes.number(1)) for each in (row, column)]
    empty = nodes.add(
        "Expand", nodes.number(processing["pad_token_id"]),
        nodes.add("Concat", count, width, axis=0),
    )  # fmt: skip
    ids = nodes.add("ScatterND", empty, nodes.add("Concat", *where, axis=1), pieces)

    scalar = nodes.scalar(0), nodes.add("Squeeze", width), nodes.scalar(1)
    columns = nodes.add("Range", *scalar)  # [L], against ends [N, 1]
    end = nodes.add("Add", lengths, nodes.number(len(before)))
    end = nodes.add("Unsqueeze", end, nodes.number(1))
    for place, token in enumerate(before):
        here = nodes.add("Equal", columns, nodes.number(place))
        ids = nodes.add("Where", here, nodes.number(token), ids)
    for place, token in enumerate(after):
        here = nodes.add("Equal", columns, nodes.add("Add", end, nodes.number(place)))
        ids = nodes.add("Where", here, nodes.number(token), ids)
    seen = nodes.add("Less", columns, nodes.add("Add", end, nodes.number(len(after))))
    mask = nodes.add("Cast", seen, to=_INT64)
    for name in processing["inputs"]:
        if name == "token_type_ids":
            nodes.add("Mul", mask, nodes.number(0), output=name)
        else:
            nodes.add("Identity", ids if name == "input_ids" else mask, output=name)


def _special_tokens(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Return the ids that are put before and after a text."""
    own = tokenizer.encode("a", add_special_tokens=False).ids
    encoding = tokenizer.encode("a")
    start = encoding.special_tokens_mask.index(0)
    before, after = encoding.ids[:start], encoding.ids[start + len(own) :]
    if encoding.ids != before + own + after or any(encoding.type_ids):
        raise ExportError(
            "The tokenizer puts more than special tokens around a text, or gives it a type other "
            "than 0. It cannot be put into the graph: use the bundle itself, or --to triton."
        )
    return before, after


def _sums(nodes: Nodes, size: str, groups: str, values: str) -> str:
    """Return the sum of the values [K] of each group, given as a place [K] in the result [size]."""
    zeros = nodes.add("Expand", nodes.number(0), size)
    return nodes.add("ScatterElements", zeros, groups, values, axis=0, reduction="add")


def _ones(nodes: Nodes, vector: str) -> str:
    return nodes.add("Expand", nodes.number(1), nodes.add("Shape", vector))
