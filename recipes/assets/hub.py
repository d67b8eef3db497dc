"""Models and data sets of the Hugging Face Hub, as ``hub:owner/name`` or ``hub:owner/name@rev``.

Nothing but configuration, tokenizer, weights and plain tables is downloaded, no code of a
repository is ever run, and pickled weights are taken only where there are no safetensors.
"""

from __future__ import annotations

import errno
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.assets.asset import Asset, Kind
from recipes.assets.local import PICKLES, SAFETENSORS, card_license, check_model
from recipes.errors import RecipeError

if TYPE_CHECKING:
    from pandas import DataFrame

_URI = re.compile(r"hub:([\w.-]+(?:/[\w.-]+)?)(?:@(\S+))?")
_CARD = ["README.md", "LICENSE*"]
_MODEL = [
    *_CARD,
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "*.model",
]
_INDEX = "*.index.json"  # says which shard holds which tensor
_TABLES = [*_CARD, "*.parquet", "*.csv", "*.tsv", "*.json", "*.jsonl"]


def fetch_hub(uri: str, kind: Kind, *, offline: bool) -> Asset:
    """Download a model or data set of the Hub into the Hugging Face cache, or find it there.

    Args:
        uri: ``hub:owner/name``, with ``@revision`` (branch, tag or commit) if not the newest.
        kind: ``"model"`` or ``"data"``.
        offline: Only look in the cache.

    Raises:
        RecipeError: The name is malformed, unknown, private or gated; the Hub cannot be reached;
            offline and not in the cache; or what is there is no model or holds no tables.
    """
    match = _URI.fullmatch(uri)
    if match is None:
        raise RecipeError(
            f"{uri!r} is not a name on the Hub. Write hub:owner/name, or hub:owner/name@revision."
        )
    repo, revision = match.groups()
    if kind == "model":
        folder = _snapshot(uri, kind, repo, revision, [*_MODEL, *SAFETENSORS, _INDEX], offline)
        if not any(folder.glob("*.safetensors")):
            folder = _snapshot(uri, kind, repo, revision, [*_MODEL, *PICKLES, _INDEX], offline)
        check_model(folder, uri)
    else:
        folder = _snapshot(uri, kind, repo, revision, _TABLES, offline)
    # The snapshot's folder is named after the commit, which pins every byte in it.
    identity = f"{kind} {repo} {folder.name}"
    return Asset(
        uri=uri,
        kind=kind,
        path=folder,
        license=card_license(folder),
        source=f"Hugging Face Hub, {repo}, commit {folder.name[:12]}",
        fingerprint=hashlib.sha256(identity.encode()).hexdigest(),
    )


def hub_rows(asset: Asset) -> dict[str, DataFrame]:
    """Read the tables of a downloaded data set, with every column, one frame for each split.

    Numbers that stand for class names become those names.

    Raises:
        RecipeError: ``datasets`` cannot read the files, or they form several configurations.
    """
    from datasets import load_dataset

    try:
        splits = load_dataset(str(asset.path))
    except Exception as error:
        reason = " ".join(str(error).split("Example of usage")[0].split()).rstrip(".")
        raise RecipeError(
            f"{asset.uri} cannot be read as one data set: {reason}. If there are tables among its "
            f"files in {asset.path}, name the right ones as data.train and data.test."
        ) from error
    return {name: _named_labels(split) for name, split in splits.items()}


def _named_labels(split: Any) -> DataFrame:
    from datasets import ClassLabel

    frame: DataFrame = split.to_pandas()
    for column, feature in split.features.items():
        if isinstance(feature, ClassLabel):
            # Unlabelled rows, common in test splits, carry -1.
            names = dict(enumerate(map(str, feature.names)))
            frame[column] = [names.get(number) for number in frame[column]]
    return frame


def _snapshot(
    uri: str, kind: Kind, repo: str, revision: str | None, patterns: list[str], offline: bool
) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                repo,
                repo_type="dataset" if kind == "data" else "model",
                revision=revision,
                allow_patterns=patterns,
                # A model's subfolders hold the same weights for other runtimes.
                ignore_patterns=["*/*"] if kind == "model" else None,
                local_files_only=offline,
            )
        )
    except Exception as error:  # the boundary: whatever goes wrong there, the download failed
        raise RecipeError(_explain(error, uri, kind, offline)) from error


def _explain(error: Exception, uri: str, kind: Kind, offline: bool) -> str:
    from huggingface_hub import constants, errors

    what = "data set" if kind == "data" else "model"
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{uri} is gated: accept its terms on its page at {constants.ENDPOINT}, then log in "
            "with `hf auth login` or set HF_TOKEN."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"There is no {what} {uri.removeprefix('hub:')!r} on {constants.ENDPOINT}, or it is "
            "private: check the spelling; for a private one log in with `hf auth login`."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{uri}: the repository has no such revision. Name a branch, tag or commit of it."
    if isinstance(error, errors.LocalEntryNotFoundError):
        if offline:
            return (
                f"{uri} is not, or not wholly, in the Hugging Face cache ({constants.HF_HUB_CACHE})"
                " and the network is switched off. Run once without --offline and HF_HUB_OFFLINE."
            )
        return (
            f"Cannot reach {constants.ENDPOINT} for {uri}, which is not in the cache. Check the "
            "network, or name a local folder or a catalogue entry instead."
        )
    if isinstance(error, errors.HFValidationError):
        return f"{uri!r} is not a name on the Hub: {error}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"The disk is full: no room for {uri} in {constants.HF_HUB_CACHE}. Free some space, "
            "or point HF_HOME at a folder on another disk, and try again."
        )
    first = next(iter(str(error).splitlines()), "")
    return f"{uri} could not be downloaded: {type(error).__name__}: {first}"
