"""Students that know fewer tokens than their teacher: a trimmed tokenizer and its embeddings.

What is left of a vocabulary still encodes every text: the characters stay, so that a word whose
token went is spelled with shorter ones. Texts whose tokens all stay are read as before.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

from distill.errors import DistillError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

#: How a tokenizer with byte fallback writes a byte.
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
#: How many texts are encoded at a time.
_CHUNK = 1000


def trimmed_tokenizer(
    tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], extra: int
) -> tuple[PreTrainedTokenizerFast, tuple[int, ...]]:
    """Return a tokenizer with a part of the vocabulary, and which ids it kept.

    It keeps every token of the texts, added and special tokens, bytes, single characters (those
    that begin a word and those that continue one, as far as they can), tokens that cannot be
    spelled with those, and the ``extra`` most frequent others. How frequent they are is not known;
    the lowest ids are taken for it, since WordPiece vocabularies, BERT's too, are listed by
    frequency, BPE's in the order in which merges were learnt, and Unigram's by likelihood. Of BPE
    those tokens stay as well that the others are built of.

    The texts become the same tokens as before, under new ids.

    Args:
        tokenizer: A fast tokenizer of kind WordPiece, BPE or Unigram; it stays as it is.
        texts: All texts whose tokens have to stay; the training texts, not those of validation or
            test.
        extra: How many other tokens to keep.

    Returns:
        The smaller tokenizer, and the old id of each of its tokens, by new id.

    Raises:
        DistillError: The tokenizer is of another kind.
    """
    from tokenizers import Tokenizer

    if not getattr(tokenizer, "is_fast", False):
        raise DistillError(
            f"distill.student.vocabulary: {type(tokenizer).__name__} has no fast form "
            "(tokenizer.json), so its vocabulary cannot be trimmed. Leave it out."
        )
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    whole = Tokenizer.from_str(json.dumps(state))
    vocabulary = _model_vocabulary(state["model"])
    kept = _tokens_of(whole, texts) | _always(state, vocabulary, whole)
    merges = state["model"].get("merges", ())
    kept |= _building_blocks(kept, merges)
    others = [t for t in _by_id(vocabulary) if t not in kept and _can_occur(t, state, whole)]
    kept.update(others[:extra])
    kept |= _building_blocks(kept, merges)
    added = {token["content"]: token["id"] for token in state["added_tokens"]}
    order = [t for t in _by_id(vocabulary) if t in kept]
    order += [t for t in _by_id(added) if t not in vocabulary]
    ids = {token: place for place, token in enumerate(order)}
    trimmed = Tokenizer.from_str(json.dumps(_renumbered(state, ids)))
    if trimmed.get_vocab(with_added_tokens=True) != ids:
        raise DistillError(
            f"distill.student.vocabulary: {type(tokenizer).__name__} numbers its added tokens in a "
            "way that does not survive trimming. Leave it out."
        )
    old = vocabulary | added
    return _wrapped(trimmed, tokenizer), tuple(old[token] for token in order)


def trim_embeddings(model: PreTrainedModel, kept_ids: Sequence[int]) -> PreTrainedModel:
    """Return a copy of the model that knows only some tokens, for a tokenizer that was trimmed.

    Args:
        model: A plain float classifier; it stays as it is.
        kept_ids: The old id of each token that stays, by new id, from `trimmed_tokenizer`.

    Raises:
        DistillError: The model has no embedding for one of them, or counts positions from the id
            of its padding token and that changes.
    """
    from torch import nn

    student = copy.deepcopy(model)
    table = student.get_input_embeddings()
    ids = {old: new for new, old in enumerate(kept_ids)}
    beyond = [old for old in kept_ids if not 0 <= old < table.num_embeddings]
    if beyond:
        raise DistillError(
            f"distill.student.vocabulary: the tokenizer has the id {beyond[0]}, but "
            f"{type(model).__name__} has {table.num_embeddings} embeddings; they do not belong "
            "together. Leave it out."
        )
    _check_positions(student, ids)
    weight = nn.Parameter(table.weight.data[list(kept_ids)], table.weight.requires_grad)
    # The class is kept, because some architectures scale what they look up.
    table.weight, table.num_embeddings = weight, len(kept_ids)
    table.padding_idx = ids.get(table.padding_idx)
    for key, value in student.config.to_dict().items():
        if key.endswith("_token_id") and value is not None:
            setattr(student.config, key, _mapped(value, ids))
    student.config.vocab_size = len(kept_ids)
    return student


def _check_positions(model: PreTrainedModel, ids: Mapping[int, int]) -> None:
    """Refuse to move the padding token of a model that counts positions from its id."""
    from torch import nn

    for module in model.modules():
        # RoBERTa and its relatives keep the id beside their tables, and count from it.
        padding = None if isinstance(module, nn.Embedding) else getattr(module, "padding_idx", None)
        if padding is not None and ids.get(padding) != padding:
            raise DistillError(
                f"distill.student.vocabulary: {type(model).__name__} counts positions from the id "
                f"of its padding token, {padding}, and the trimmed tokenizer has another token "
                "there. Leave it out."
            )


def _mapped(value: int | list[int], ids: Mapping[int, int]) -> int | list[int] | None:
    """Return the new id, or ids, of a special token; None for one that no text can hold."""
    if isinstance(value, list):
        return [ids[one] for one in value if one in ids]
    return ids.get(value)


def _model_vocabulary(model: Mapping[str, Any]) -> dict[str, int]:
    """Return token to id of a tokenizer.json's model, added tokens left out."""
    kind = model["type"]
    if kind == "Unigram":
        return {piece: place for place, (piece, _) in enumerate(model["vocab"])}
    affixes = model.get("end_of_word_suffix") or model.get("continuing_subword_prefix")
    if kind == "WordPiece" or (kind == "BPE" and not affixes):
        vocabulary: dict[str, int] = model["vocab"]
        return vocabulary
    raise DistillError(
        f"distill.student.vocabulary: the tokenizer is of kind {kind}"
        f"{' with prefixes or suffixes' if kind == 'BPE' else ''}; only WordPiece, BPE and Unigram "
        "can be trimmed. Leave it out."
    )


def _tokens_of(tokenizer: Tokenizer, texts: Iterable[str]) -> set[str]:
    """Return the tokens that texts become, whole texts at that."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    found: set[str] = set()
    rest = iter(texts)
    while chunk := list(islice(rest, _CHUNK)):
        for encoding in tokenizer.encode_batch(chunk, add_special_tokens=False):
            # An unknown character's token is its text, so names are looked up by id.
            found.update(name for i in set(encoding.ids) if (name := tokenizer.id_to_token(i)))
    return found


def _always(
    state: Mapping[str, Any], vocabulary: Mapping[str, int], tokenizer: Tokenizer
) -> set[str]:
    """Return the tokens without which the tokenizer would not work on every text."""
    model = state["model"]
    kept = {token["content"] for token in state["added_tokens"]}
    kept.update(_placed(state["post_processor"]))
    if model["type"] == "Unigram":
        kept |= {model["vocab"][model["unk_id"]][0]} if model["unk_id"] is not None else set()
        # The least likely piece sets what an unknown character costs.
        kept.add(min(model["vocab"], key=lambda entry: entry[1])[0])
    else:
        kept |= {model["unk_token"]} if model["unk_token"] is not None else set()
    for token in vocabulary:
        pieces = list(_spelled(token, model))
        unspelled = model["type"] != "BPE" and any(p not in vocabulary for p in pieces)
        if _BYTE.fullmatch(token) or (
            (unspelled or pieces == [token]) and _can_occur(token, state, tokenizer)
        ):
            kept.add(token)
    return kept & vocabulary.keys()


def _spelled(token: str, model: Mapping[str, Any]) -> Iterator[str]:
    """Yield the pieces of one character each that a token is made of."""
    prefix = model.get("continuing_subword_prefix") or ""
    continues = bool(prefix) and token.startswith(prefix) and token != prefix
    for place, character in enumerate(token[len(prefix) :] if continues else token):
        yield prefix + character if continues or place else character


def _can_occur(token: str, state: Mapping[str, Any], tokenizer: Tokenizer) -> bool:
    """Tell whether a word may hold a token.

    In a WordPiece vocabulary, whose tokens are written as texts are, some cannot: BERT takes
    ``[unused0]`` apart before it is looked up, and never joins a punctuation mark to a word.
    """
    model = state["model"]
    if model["type"] != "WordPiece":
        return True
    text = token.removeprefix(model["continuing_subword_prefix"])
    words = [text] if text == token else ["a" + text, text[:1] + text]
    return any(_words(tokenizer, word) == 1 for word in words)


def _words(tokenizer: Tokenizer, text: str) -> int:
    """Return into how many words a text is taken apart before any is looked up."""
    if tokenizer.normalizer is not None:
        text = tokenizer.normalizer.normalize_str(text)
    if tokenizer.pre_tokenizer is None:
        return 1
    return len(tokenizer.pre_tokenizer.pre_tokenize_str(text))


def _building_blocks(tokens: Iterable[str], merges: Sequence[Sequence[str]]) -> set[str]:
    """Return all that BPE makes on the way to each token; nothing where there are no merges.

    A token inside a word is made of the same merges as the token alone, because no merge that
    happened reached over its ends.
    """
    ranks = {(left, right): rank for rank, (left, right) in enumerate(merges)}
    made: set[str] = set()
    for token in tokens:
        parts = list(token)
        while pairs := [p for p in pairwise(parts) if p in ranks]:
            best = min(pairs, key=ranks.__getitem__)
            place = next(i for i in range(len(parts)) if tuple(parts[i : i + 2]) == best)
            parts[place : place + 2] = ["".join(best)]
            made.add(parts[place])
    return made


def _renumbered(state: dict[str, Any], ids: Mapping[str, int]) -> dict[str, Any]:
    """Return a tokenizer.json with the tokens of ``ids`` alone, under these ids."""
    model, vocabulary = dict(state["model"]), _model_vocabulary(state["model"])
    if model["type"] == "Unigram":
        unknown = model["unk_id"]
        model["unk_id"] = None if unknown is None else ids[model["vocab"][unknown][0]]
        model["vocab"] = [entry for entry in model["vocab"] if entry[0] in ids]
    else:
        model["vocab"] = {token: ids[token] for token in vocabulary if token in ids}
    if model["type"] == "BPE":
        model["merges"] = [
            [left, right]
            for left, right in model["merges"]
            if left in ids and right in ids and left + right in ids
        ]
    added = [token | {"id": ids[token["content"]]} for token in state["added_tokens"]]
    # They are read in this order, and the ones beyond the model's vocabulary numbered by it.
    added.sort(key=lambda token: token["id"])
    changed = state | {"model": model, "added_tokens": added, "truncation": None, "padding": None}
    return changed | {"post_processor": _post_processor(state["post_processor"], ids)}


def _post_processor(processor: Any, ids: Mapping[str, int]) -> Any:
    """Return a post-processor that puts the same tokens around a text, under new ids."""
    if processor is None:
        return None
    changed = dict(processor)
    if processor["type"] == "Sequence":
        changed["processors"] = [_post_processor(p, ids) for p in processor["processors"]]
    for key in {"cls", "sep"} & processor.keys():
        changed[key] = [processor[key][0], ids[processor[key][0]]]
    if "special_tokens" in processor:
        changed["special_tokens"] = {
            name: special | {"ids": [ids[token] for token in special["tokens"]]}
            for name, special in processor["special_tokens"].items()
        }
    return changed


def _placed(processor: Any) -> Iterator[str]:
    """Yield the tokens that a post-processor puts around a text."""
    if processor is None:
        return
    for inner in processor.get("processors", ()):
        yield from _placed(inner)
    for key in {"cls", "sep"} & processor.keys():
        yield processor[key][0]
    for special in processor.get("special_tokens", {}).values():
        yield from special["tokens"]


def _by_id(tokens: Mapping[str, int]) -> list[str]:
    return sorted(tokens, key=tokens.__getitem__)


def _wrapped(trimmed: Tokenizer, like: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Return a tokenizer for transformers with the settings of another one."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=trimmed,
        model_max_length=like.model_max_length,
        padding_side=like.padding_side,
        truncation_side=like.truncation_side,
        model_input_names=like.model_input_names,
        extra_special_tokens=like.extra_special_tokens,
        **like.special_tokens_map,
    )
