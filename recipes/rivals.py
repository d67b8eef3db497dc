"""What installed plug-ins offer beside what a recipe uses."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from adapters import Registry, strategies
from distill import objectives
from recipes.augmentations import augmentations
from recipes.console import say

if TYPE_CHECKING:
    from recipes.recipe import Recipe


def note_rivals(recipe: Recipe) -> None:
    """Say where an installed plug-in offers a name that the recipe uses and another class has."""
    distill, imitate = recipe.distill, recipe.distill.imitate
    terms = [*distill.objectives, *(imitate.objectives if imitate is not None else ())]
    named: list[tuple[Registry[Any], Any]] = [(strategies, recipe.strategy)]
    named += [(objectives, objective) for objective in terms]
    trainings = recipe.trainings.values()
    named += [(objectives, each.loss) for each in trainings if each.loss is not None]
    ways = [way for each in trainings for way in each.augment]
    named += [(augmentations, way) for way in (*distill.augment, *ways)]
    for registry, instance in named:
        for name in registry.loaded(type(instance)):
            if message := registry.rivals(name):
                _say_once(message)


@cache
def _say_once(message: str) -> None:
    say(f"note: {message}")
