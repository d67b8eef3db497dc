"""Tiny random backbones, a tokenizer and a learnable table, built in the test."""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from adapters.tiny import save_tiny_backbone

LABELS = ["animal", "food", "place"]
WORDS = {
    "animal": ["cat", "dog", "horse", "bird", "fish"],
    "food": ["bread", "soup", "apple", "rice", "cake"],
    "place": ["city", "river", "house", "park", "road"],
}
FILLERS = ["the", "a", "big", "old", "is", "was", "here", "there", "and", "?", "red", "new"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = [*SPECIAL, *(word for words in WORDS.values() for word in words), *FILLERS]

#: The architectures that most tests go through; the conformance kit knows more.
ARCHITECTURES = ("bert", "distilbert", "roberta", "mpnet", "electra")


def tokenizer(extra: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Build a word-level tokenizer with BERT's special tokens."""
    words = {word: place for place, word in enumerate([*VOCABULARY, *extra])}
    raw = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer()
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=32,
    )


def backbone(
    folder: Path, architecture: str = "bert", *, layers: int = 4, width: int = 32, extra: int = 0
) -> Path:
    """Save a random encoder without a classification head, and its tokenizer."""
    save_tiny_backbone(
        folder, architecture, vocabulary=len(VOCABULARY) + extra, layers=layers, width=width
    )
    tokenizer([f"extra{i}" for i in range(extra)]).save_pretrained(folder)
    return folder


def rows(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Return distinct texts with a label that one of their words gives away."""
    chance = random.Random(seed)
    found: dict[str, str] = {}
    while len(found) < count:
        label = LABELS[len(found) % len(LABELS)]
        words = chance.choices(FILLERS, k=chance.randint(1, 5))
        words.insert(chance.randrange(len(words) + 1), chance.choice(WORDS[label]))
        found.setdefault(" ".join(words), label)
    return list(found.items())


def table(path: Path, count: int = 240, seed: int = 0) -> Path:
    """Write such rows as a CSV file with the columns ``text`` and ``label``."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(rows(count, seed))
    return path


def batch(texts: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return ``input_ids`` and ``attention_mask`` of texts, padded to the longest."""
    encoded = tokenizer()(list(texts), padding=True, return_tensors="pt")
    return {name: encoded[name] for name in ("input_ids", "attention_mask")}
