"""A strategy and an objective for Potstill."""
