"""What every section of a recipe is, and types of several of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from adapters.registry import by_name
from distill import Objective, objectives

Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Settings(BaseModel):
    """Base of every section: strict types, no unknown keys, no change after reading."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _over_defaults(cls, given: Any) -> Any:
        """Lay what is given of a section over the section's own defaults, not over its class's."""
        if not isinstance(given, Mapping):
            return given
        laid = dict(given)
        for name, field in cls.model_fields.items():
            default, part = field.default, given.get(name)
            if isinstance(default, Settings) and isinstance(part, Mapping):
                own = {key: getattr(default, key) for key in default.model_fields_set}
                laid[name] = {**own, **part}
        return laid


AnyObjective = Annotated[Objective, *by_name(objectives)]
Objectives = Annotated[tuple[AnyObjective, ...], Field(strict=False, min_length=1)]
