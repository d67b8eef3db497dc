"""Bundles behind HTTP: batching, the open inference protocol, a repository of versions."""
