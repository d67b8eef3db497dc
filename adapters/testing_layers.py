"""The check of the conformance kit for strategies whose layers stay in the model."""

from __future__ import annotations

import copy

import torch
from torch import nn
from transformers import PreTrainedModel

from adapters.backbone import encoder_layers
from adapters.errors import AdapterError
from adapters.testing_bench import EXACT, Bench, FaultError, same


def copies(bench: Bench) -> None:
    """Layers that stay work in a copy of the model, as a student is one, and with fewer layers."""
    if not bench.strategy.adds_layers:
        return
    student = _copied(bench, bench.finished())
    _shorten(student)
    folder = bench.folder / "student"
    student.save_pretrained(folder)
    remedy = (
        "go by the layers that the model has: prepare() is called again when a student with fewer "
        "of them is loaded, and its file has the weights of these only"
    )
    try:
        again = bench.load(seed=9, path=folder)
    except AdapterError as error:
        raise FaultError(f"a copy with a layer less does not load; {remedy}: {error}") from error
    same(
        bench.logits(again),
        bench.logits(student),
        EXACT,
        "a copy with a layer less, reloaded",
        remedy,
    )


def _copied(bench: Bench, model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy, once it has been found to have added layers of its own that learn."""
    added = dict(model.named_parameters()).keys() - dict(bench.load().named_parameters()).keys()
    student = copy.deepcopy(model).requires_grad_(True)
    before = bench.logits(student)
    for name in added:
        nn.init.normal_(model.get_parameter(name))  # a norm takes away what is equal everywhere
    remedy = (
        "let hooks reach what they need through the module that they are given, not through a "
        "closure: a copy's hook would still call the original's layer"
    )
    same(
        bench.logits(student),
        before,
        EXACT,
        "a copy of the finished model, after a change of the original",
        remedy,
    )
    inputs = {name: bench.batch[name].to(bench.device) for name in ("input_ids", "attention_mask")}
    logits = student(**inputs).logits.cpu()
    torch.autograd.backward(nn.functional.cross_entropy(logits, bench.batch["labels"]))
    idle = sorted(name for name in added if student.get_parameter(name).grad is None)
    if idle:
        raise FaultError(f"in a copy {', '.join(idle[:3])} would not learn; {remedy}")
    return student


def _shorten(model: PreTrainedModel) -> None:
    """Take the last layer out, in place."""
    last = list(encoder_layers(model))[-1]
    del model.get_submodule(last.rpartition(".")[0])[-1]
    model.config.num_hidden_layers -= 1
    if types := getattr(model.config, "layer_types", None):
        model.config.layer_types = types[:-1]
