"""The search over a recipe's keys: its space, its study on disk, and who runs the trials."""
