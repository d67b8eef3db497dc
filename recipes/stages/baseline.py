"""What a person would try first: to know what fine-tuning has to beat."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from recipes.console import say
from recipes.ledger import Row
from recipes.long_text import findings
from recipes.proof import count, measured, size
from recipes.workspace import Workspace, by_length

if TYPE_CHECKING:
    import numpy as np
    from sklearn.linear_model import LogisticRegression

#: Inverse strength of the regularization of both logistic regressions.
_C = 10.0


def run(work: Workspace) -> None:
    """Fit the baselines and write their rows: ``majority``, ``tfidf-logreg``, ``frozen-logreg``."""
    for note in work.rows.notes:
        say(f"  {note}")
    _embed(work)
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
    """Always answer the most frequent label."""
    import numpy as np

    counts = np.bincount(work.rows.train.labels, minlength=len(work.rows.labels))
    scores = np.log((counts + 1) / (counts + 1).sum())
    return lambda texts: np.tile(scores, (len(texts), 1)), {"parameters": len(counts)}


def tfidf_logreg(work: Workspace) -> Fitted:
    """Fit a logistic regression on weighted counts of words and pairs of words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2))
    features = vectorizer.fit_transform(work.rows.train.texts)
    model = _logistic_regression(features, work.rows.train.labels)
    words = sum(len(word.encode()) for word in vectorizer.vocabulary_)
    weights = model.coef_.size + model.intercept_.size
    facts = {
        "parameters": weights,
        "trainable_parameters": weights,
        "size_bytes": 4 * weights + 4 * features.shape[1] + words,
    }
    return lambda texts: model.predict_log_proba(vectorizer.transform(texts)), facts


def frozen_logreg(work: Workspace) -> Fitted:
    """Fit a logistic regression on the mean of the frozen backbone's last hidden states.

    Texts of more than one row are looked up where they were embedded before; a text alone is
    always computed, so that its time can be taken.
    """
    import numpy as np

    with np.load(work.folder / "baseline" / "embeddings.npz") as kept:
        embeddings = {split: kept[split] for split in kept.files}
    model = _logistic_regression(embeddings["train"], work.rows.train.labels)
    known = {
        text: row
        for split in ("validation", "test")
        for text, row in zip(getattr(work.rows, split).texts, embeddings[split], strict=True)
    }
    weights = model.coef_.size + model.intercept_.size
    backbone = work.load().base_model
    embed = _embedder(work, backbone)

    def answer(texts: Sequence[str]) -> np.ndarray:
        missing = [text for text in texts if text not in known or len(texts) == 1]
        fresh = dict(zip(missing, embed(missing), strict=True)) if missing else {}
        rows = [fresh[text] if text in fresh else known[text] for text in texts]
        scores: np.ndarray = model.predict_log_proba(np.stack(rows))
        return scores

    parameters = count(backbone) + weights
    facts = {
        "parameters": parameters,
        "trainable_parameters": weights,
        "size_bytes": size(work.backbone.path) + 4 * weights,
    }
    return answer, facts


def _logistic_regression(features: Any, labels: Sequence[int]) -> LogisticRegression:
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    # The threads of the linear algebra and those of PyTorch wait for each other: one is faster.
    with threadpool_limits(1, "blas"):
        return LogisticRegression(C=_C, max_iter=1000).fit(features, labels)


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
    embed = _embedder(work, work.load().base_model)
    folder = work.folder / "baseline"
    folder.mkdir(exist_ok=True)
    np.savez(
        folder / "embeddings.npz",
        train=embed(work.rows.train.texts),
        validation=embed(work.rows.validation.texts),
        test=embed(work.rows.test.texts),
    )


def _embedder(work: Workspace, backbone: Any) -> Callable[[Sequence[str]], np.ndarray]:
    """Return a function from texts to mean hidden states ``[texts, width]``.

    Of a text in windows it is the mean of theirs.
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
        with torch.inference_mode():
            found: np.ndarray = by_text(means, inputs, windows).float().cpu().numpy()
        return found

    def embed(texts: Sequence[str]) -> np.ndarray:
        split = Split(texts, [0] * len(texts))
        return by_length(call, work.task.features(split, work.tokenizer, work.max_length), collate)

    return embed
