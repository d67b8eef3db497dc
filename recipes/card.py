"""The words that go with a model: the run's model card and the bundle's own README."""

from __future__ import annotations

from recipes.workspace import Workspace


def bundle_card(work: Workspace, shipped: str) -> str:
    """Return the README of the bundle."""
    row = work.ledger[shipped]
    labels = ", ".join(work.rows.labels)
    return f"""# {work.folder.name}

A text classifier with the labels {labels}.

    pip install -r requirements.txt
    python edge.py --self-test
    python edge.py "some text"
    cat lines.txt | python edge.py

On {row.examples:,} test rows it reached an accuracy of {row.metrics["accuracy"]:.4f} and a macro-F1
of {row.metrics["macro_f1"]:.4f}. `python edge.py --about` prints how it was made.

Weights: {work.backbone.source} (license: {work.backbone.license}).
Data: {work.rows.source} (license: {work.rows.license}).
"""
