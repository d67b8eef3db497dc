"""What a person would try first: to know what fine-tuning has to beat."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from recipes.console import say
from recipes.ledger import Row
from recipes.linear import Linear
from recipes.long_text import findings
from recipes.proof import count, measured, size
from recipes.tasks.wording import listed
from recipes.whole_files import write_json
from recipes.workspace import Workspace, by_length

if TYPE_CHECKING:
    import numpy as np


def run(work: Workspace) -> None:
    """Fit the baselines and write their rows: ``majority``, ``tfidf-logreg``, ``frozen-logreg``.

    On the way the data are looked at; what is found lies in ``baseline/data.json``.
    """
    for note in work.rows.notes:
        say(f"  {note}")
    _embed(work)
    _look(work)
    for name, fit in BASELINES.items():
        start = time.perf_counter()
        answer, facts = fit(work)
        logits = {
            split: answer(getattr(work.rows, split).texts) for split in ("validation", "test")
        }
        fields = measured(work, name, logits)
        seconds = time.perf_counter() - start
        work.ledger.put(
            Row(
                stage="baseline",
                name=name,
                threads=work.hardware.threads,
                seconds=seconds,
                **facts,
                **fields,
            )
        )


Fitted = tuple[Callable[[Sequence[str]], "np.ndarray"], dict[str, Any]]


def majority(work: Workspace) -> Fitted:
    """Always answer the most frequent label, or the mean number."""
    import numpy as np

    scores = work.problem.constant()
    return lambda texts: np.tile(scores, (len(texts), 1)), {"parameters": len(scores)}


def tfidf_logreg(work: Workspace) -> Fitted:
    """Fit a linear model on weighted counts of words and pairs of words."""
    vectorizer, features = _weighted_words(work.rows.train.texts)
    model = _linear(work, features)
    words = sum(len(word.encode()) for word in vectorizer.vocabulary_)
    weights = model.weights
    facts = {
        "parameters": weights,
        "trainable_parameters": weights,
        "size_bytes": 4 * weights + 4 * features.shape[1] + words,
    }
    return lambda texts: model.logits(vectorizer.transform(texts)), facts


def _weighted_words(texts: Sequence[str]) -> tuple[Any, Any]:
    """Return a vectorizer and what it makes of texts, sparse ``[texts, terms]``."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2))
    try:
        return vectorizer, vectorizer.fit_transform(texts)
    except ValueError:  # no text has a word of two letters: they are of signs, such as emoji
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]")
        return vectorizer, vectorizer.fit_transform(texts)


def frozen_logreg(work: Workspace) -> Fitted:
    """Fit a linear model on the mean of the frozen backbone's last hidden states.

    Texts of more than one row are looked up where they were embedded before; a text alone is
    always computed, so that its time can be taken.
    """
    import numpy as np

    with np.load(work.folder / "baseline" / "embeddings.npz") as kept:
        embeddings = {split: kept[split] for split in kept.files}
    model = _linear(work, embeddings["train"])
    known = {
        text: row
        for split in ("validation", "test")
        for text, row in zip(getattr(work.rows, split).texts, embeddings[split], strict=True)
    }
    weights = model.weights
    backbone = work.load().base_model
    embed = _embedder(work, backbone)

    def answer(texts: Sequence[str]) -> np.ndarray:
        missing = [text for text in texts if text not in known or len(texts) == 1]
        fresh = dict(zip(missing, embed(missing), strict=True)) if missing else {}
        rows = [fresh[text] if text in fresh else known[text] for text in texts]
        return model.logits(np.stack(rows))

    parameters = count(backbone) + weights
    facts = {
        "parameters": parameters,
        "trainable_parameters": weights,
        "size_bytes": size(work.backbone.path) + 4 * weights,
    }
    return answer, facts


def _linear(work: Workspace, features: Any) -> Linear:
    from threadpoolctl import threadpool_limits

    # The threads of the linear algebra and those of PyTorch wait for each other: one is faster.
    with threadpool_limits(1, "blas"):
        return Linear(work.rows.problem, features, work.rows.train.labels)


BASELINES: dict[str, Callable[[Workspace], Fitted]] = {
    "majority": majority,
    "tfidf-logreg": tfidf_logreg,
    "frozen-logreg": frozen_logreg,
}


def _embed(work: Workspace) -> None:
    """Keep every row's embedding."""
    import numpy as np

    long = work.recipe.data.long
    if long.way != "head":
        for sentence in findings(long, work.max_length, work.examples("train", work.tokenizer)):
            say(f"  {sentence}")
    bf16 = work.hardware.bf16_for(work.recipe.train.precision, work.recipe.allow_fallback)
    embed = _embedder(work, work.load().base_model, bf16)
    folder = work.folder / "baseline"
    folder.mkdir(exist_ok=True)
    np.savez(
        folder / "embeddings.npz",
        train=embed(work.rows.train.texts),
        validation=embed(work.rows.validation.texts),
        test=embed(work.rows.test.texts),
    )


def _look(work: Workspace) -> None:
    """Look at the rows, keep what was found for the report, and say how much it is."""
    import numpy as np

    from recipes.look.looking import look_at_rows

    with np.load(work.folder / "baseline" / "embeddings.npz") as kept:
        look = look_at_rows(work, {split: kept[split] for split in kept.files})
    write_json(work.folder / "baseline" / "data.json", look.plain())
    found = [f.code for f in look.findings if f.level != "note"]
    if found:
        say(f"  the data have {listed(found)}: see the report, or python -m recipes.data")


def _embedder(
    work: Workspace, backbone: Any, bf16: bool = False
) -> Callable[[Sequence[str]], np.ndarray]:
    """Return a function from texts to mean hidden states ``[texts, width]``.

    Of a text in windows it is the mean of theirs.

    Args:
        work: The run.
        backbone: Without a head.
        bf16: Compute in bfloat16, which takes half the time where the device can.
    """
    import torch

    from distill.windows import by_text
    from recipes.tasks import Split

    collate = work.task.collator(work.tokenizer)

    def means(inputs: dict[str, Any]) -> Any:
        states = backbone(**inputs).last_hidden_state
        seen = inputs["attention_mask"].unsqueeze(-1)
        return (states * seen).sum(dim=1) / seen.sum(dim=1)

    def call(batch: Any) -> np.ndarray:
        names, windows = ("input_ids", "attention_mask"), batch.get("windows")
        inputs = {name: batch[name].to(backbone.device) for name in names}
        if windows is not None:
            windows = replace(windows, pool="mean")
        with (
            torch.inference_mode(),
            torch.autocast(backbone.device.type, torch.bfloat16, enabled=bf16),
        ):
            found: np.ndarray = by_text(means, inputs, windows).float().cpu().numpy()
        return found

    def embed(texts: Sequence[str]) -> np.ndarray:
        split = Split(texts, [work.problem.unlabelled] * len(texts))
        return by_length(call, work.task.features(split, work.tokenizer, work.max_length), collate)

    return embed
