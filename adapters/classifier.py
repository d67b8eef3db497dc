"""Loading a classifier that was fine-tuned elsewhere, with its labels put into the data's order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.backbone import head_modules, put_back_layers
from adapters.errors import AdapterError

if TYPE_CHECKING:
    import numpy as np
    from torch import nn
    from transformers import PreTrainedModel


#: What a classifier is for that does not say so, by transformers' own name.
ONE_LABEL = "single_label_classification"


def load_classifier(
    path: Path, labels: Sequence[str], *, device: str = "cpu", kind: str | None = None
) -> PreTrainedModel:
    """Load a finished sequence classifier in float32.

    Args:
        path: Folder with ``config.json``, which names the labels, and the weights.
        labels: The same labels in the order that the logits ``[batch, classes]`` are to have.
        device: Where to put the model.
        kind: What it has to be for, as of `adapters.backbone.load_backbone`.

    Returns:
        The model, in evaluation mode.

    Raises:
        AdapterError: It is no sequence classifier, lacks the weights of its head, or was trained
            for other labels or for another kind of problem.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            path,
            attn_implementation="eager",
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
        )
    except (ValueError, OSError, RuntimeError, KeyError) as error:
        raise AdapterError(
            f"The model in {path} does not load as a sequence classifier: {error}. Check that its "
            "files are whole."
        ) from error
    if info["missing_keys"]:
        raise AdapterError(
            f"The model in {path} is no finished classifier: it lacks the weights of "
            f"{', '.join(sorted(info['missing_keys'])[:3])}. Fine-tune it first (a recipe with a "
            "strategy, such as lora_cls), or name one that was."
        )
    taught, wanted = model.config.problem_type or ONE_LABEL, kind or ONE_LABEL
    if taught != wanted:
        raise AdapterError(
            f"The classifier in {path} was trained for {taught.replace('_', ' ')}, and this is "
            f"{wanted.replace('_', ' ')}. Name one that was trained for that."
        )
    own = [str(model.config.id2label[index]) for index in range(model.config.num_labels)]
    if sorted(own) != sorted(labels):
        raise AdapterError(
            f"The classifier in {path} knows the labels {', '.join(own)}, and the data have "
            f"{', '.join(labels)}. Name the labels alike: in the data, or in id2label and label2id "
            "of its config.json."
        )
    put_back_layers(model, path, device)
    _reorder(output_layer(model), [own.index(label) for label in labels])
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: index for index, label in enumerate(labels)}
    classifier: PreTrainedModel = model.to(device).eval()
    return classifier


def draw_head(model: PreTrainedModel, seed: int) -> None:
    """Give a classifier a head that has learnt nothing.

    Args:
        model: A plain classifier; everything outside its encoder, and its pooler, is drawn anew.
        seed: Seed of the draw.
    """
    import torch

    torch.manual_seed(seed)
    for name in head_modules(model):
        for module in model.get_submodule(name).modules():
            for weight in module.parameters(recurse=False):
                # transformers' own initialization passes over what was loaded.
                weight._is_hf_initialized = False
            model._init_weights(module)


def begin_with(model: PreTrainedModel, logits: np.ndarray) -> None:
    """Let a classifier with a new head begin with some logits, whatever the text.

    Args:
        model: The classifier; one whose output layer has no bias is left as it is.
        logits: ``[labels]``.
    """
    import torch

    bias = output_layer(model).bias
    if bias is not None:
        with torch.no_grad():
            bias.copy_(torch.as_tensor(logits))


def output_layer(model: PreTrainedModel) -> nn.Linear:
    """Return the layer that makes the logits: the last one outside the encoder.

    Args:
        model: A classifier of transformers, in which a strategy may have put layers of its own.

    Raises:
        AdapterError: It makes its logits in another way.
    """
    from torch import nn

    inside = set(model.base_model.modules())
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and m not in inside]
    if not layers or layers[-1].out_features != model.config.num_labels:
        raise AdapterError(
            f"{type(model).__name__} makes its logits in a way that is not known here: no linear "
            "layer after its encoder gives one for each label. Choose another backbone."
        )
    return layers[-1]


def _reorder(layer: nn.Linear, rows: Sequence[int]) -> None:
    layer.weight.data = layer.weight.data[list(rows)]
    if layer.bias is not None:
        layer.bias.data = layer.bias.data[list(rows)]
