"""The objectives that come with the project; importing this package registers them."""

from __future__ import annotations

from distill.builtin import prediction, relations, states

__all__ = ["prediction", "relations", "states"]
