"""What is wrong with the data, what a run does about it, and how to change that."""

from __future__ import annotations

from recipes.look.findings import Finding, Level, Look

__all__ = ["Finding", "Level", "Look"]
