"""Models and data that already lie on this machine."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import yaml

from recipes.assets.asset import Asset
from recipes.errors import RecipeError

_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
SAFETENSORS = ("model.safetensors", "model-*-of-*.safetensors")
PICKLES = ("pytorch_model.bin", "pytorch_model-*-of-*.bin")
_PARTS = (*SAFETENSORS, *PICKLES, "config.json", "tokenizer_config.json", *_TOKENIZERS)


def local_path(uri: str) -> Path:
    """Return ``uri`` as a path, with ``~`` expanded; whether it exists is not looked at."""
    return Path(os.path.expanduser(uri))  # noqa: PTH111 (Path's own raises for an unknown ~user)


def exists(path: Path) -> bool:
    """Tell whether something is there; a name that no file could have is not."""
    try:
        return path.exists()
    except OSError:
        return False


def local_model(uri: str, path: Path) -> Asset:
    """Return a model folder as an asset, once it has all that transformers needs.

    Raises:
        RecipeError: ``path`` is no folder, or ``config.json``, weights or tokenizer files are
            missing from it, broken or unreadable.
    """
    if not path.is_dir():
        raise RecipeError(
            f"{uri} is no folder. A model is a folder with config.json, model.safetensors and "
            "tokenizer.json; name the folder."
        )
    try:
        check_model(path, uri)
        fingerprint = _fingerprint(_found(path, _PARTS))
    except OSError as error:
        raise _unreadable(uri, error) from error
    return Asset(
        uri=uri,
        kind="model",
        path=path.absolute(),
        license=card_license(path),
        source=f"local folder {path.resolve().name}",
        fingerprint=fingerprint,
    )


def local_data(uri: str, path: Path) -> Asset:
    """Return a data file as an asset; what is in it is for the task to read.

    Raises:
        RecipeError: ``path`` is no regular file or unreadable.
    """
    if not path.is_file():
        raise RecipeError(
            f"{uri} is no file. Name one file of labelled rows (.csv, .tsv, .jsonl or .parquet)."
        )
    try:
        fingerprint = _fingerprint([path])
    except OSError as error:
        raise _unreadable(uri, error) from error
    return Asset(
        uri=uri,
        kind="data",
        # Not resolved: a link into a store may have the suffix that its target lacks.
        path=path.absolute(),
        license="unknown",
        source=f"local file {path.name}",
        fingerprint=fingerprint,
    )


def check_model(folder: Path, uri: str) -> None:
    """Check that a folder holds a whole transformers model with its tokenizer.

    Raises:
        RecipeError: Something is missing or broken; the message names ``uri`` and what to do.
    """
    _check_config(folder, uri)
    weights = _found(folder, SAFETENSORS) or _found(folder, PICKLES)
    if not weights:
        raise RecipeError(
            f"{uri} has no weights: neither model.safetensors nor pytorch_model.bin is there. "
            "Save the model with save_pretrained; other formats are not read."
        )
    for file in weights:
        _check_weights(file)
    if not _found(folder, _TOKENIZERS):
        raise RecipeError(
            f"{uri} has no tokenizer: none of {', '.join(_TOKENIZERS)} is there. Put the model's "
            "tokenizer into the same folder with tokenizer.save_pretrained."
        )


def _found(folder: Path, patterns: Iterable[str]) -> list[Path]:
    return sorted({file for pattern in patterns for file in folder.glob(pattern)})


def _check_config(folder: Path, uri: str) -> None:
    config = folder / "config.json"
    if not config.is_file():
        hint = "A model is what save_pretrained writes: config.json, weights, tokenizer files."
        if (folder / "adapter_config.json").is_file():
            hint = "It holds a peft adapter: merge it into its base model and save that."
        raise RecipeError(f"{uri} is no model: it has no config.json. {hint}")
    try:
        json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecipeError(f"{config} is no JSON ({error}). Copy or save it again.") from error


def _check_weights(file: Path) -> None:
    with file.open("rb") as stream:
        pointer = stream.read(23) == b"version https://git-lfs"
    if pointer:
        raise RecipeError(
            f"{file} is only a pointer that Git LFS left. Run `git lfs pull` in that folder."
        )
    if file.suffix != ".safetensors":
        return
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy"):
            pass
    except SafetensorError as error:
        raise RecipeError(
            f"{file} is cut short or no safetensors file ({error}). Copy or download it again."
        ) from error


def card_license(folder: Path) -> str:
    """Return the license that the model or data card in a folder states, else ``"unknown"``."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
        header = yaml.safe_load(text.split("---\n")[1]) if text.startswith("---\n") else {}
    except (OSError, ValueError, IndexError, yaml.YAMLError):
        return "unknown"
    stated = header.get("license", "unknown") if isinstance(header, dict) else "unknown"
    return ", ".join(stated) if isinstance(stated, list) else str(stated)


def _unreadable(uri: str, error: OSError) -> RecipeError:
    return RecipeError(
        f"{error.filename or uri} cannot be read: {error.strerror}. Check its permissions."
    )


def _fingerprint(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
