"""Backbones and data sets by name: from the catalogue, the disk or the Hugging Face Hub.

A recipe names an asset by a URI; `resolve` brings it to this machine and says where it lies.
"""

from __future__ import annotations

from recipes.assets.asset import Asset
from recipes.assets.catalogue import Entry, catalogue
from recipes.assets.uri import resolve, rows

__all__ = ["Asset", "Entry", "catalogue", "resolve", "rows"]
