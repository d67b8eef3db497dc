"""Loading a pretrained encoder with a classification head, in float or quantized."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from adapters.errors import AdapterError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Quantization = Literal["nf4", "int8", "none"]

#: Parts of an encoder that only feed a head and were trained for another one.
_POOLERS = ("pooler",)


def load_backbone(
    path: Path,
    labels: Sequence[str],
    *,
    quantization: Quantization = "none",
    double_quantization: bool = True,
    bf16: bool = False,
    device: str = "cpu",
    seed: int = 0,
) -> PreTrainedModel:
    """Load an encoder with a sequence-classification head.

    The head and everything that the checkpoint does not hold is drawn anew from ``seed`` and is
    never quantized.

    Args:
        path: Folder with ``config.json`` and the weights.
        labels: Label names in the order of their ids.
        quantization: 4-bit normal floats (Dettmers et al., 2023, arXiv:2305.14314), 8-bit integers
            (Dettmers et al., 2022, arXiv:2208.07339), or plain float32.
        double_quantization: Whether the 4-bit scales are quantized in turn.
        bf16: Whether quantized layers compute in bfloat16 rather than float32.
        device: Where to put the model.
        seed: Seed of whatever is newly initialised.

    Returns:
        The model, in evaluation mode.

    Raises:
        AdapterError: transformers has no sequence classification for this architecture, or the
            weights do not load.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    arguments: dict[str, Any] = {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
        "num_labels": len(labels),
        # Eager attention is as fast on a processor, and the only kind that gives attention maps
        # and the faster graph in onnxruntime.
        "attn_implementation": "eager",
        "dtype": torch.float32,
        "ignore_mismatched_sizes": True,
        "use_safetensors": True if any(path.glob("*.safetensors")) else None,
        "local_files_only": True,
    }
    load = AutoModelForSequenceClassification.from_pretrained
    try:
        outline, info = load(path, device_map="meta", output_loading_info=True, **arguments)
        fresh = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
        head = _head_names(outline, fresh)
        if quantization != "none":
            arguments["quantization_config"] = _bitsandbytes(
                quantization, double_quantization, bf16, head
            )
        torch.manual_seed(seed)
        model: PreTrainedModel = load(path, device_map={"": device}, **arguments)
    except (ValueError, OSError, RuntimeError, KeyError) as error:
        raise AdapterError(
            f"The backbone in {path} does not load as a sequence classifier: {error}. "
            "Check that it is an encoder that transformers supports and that its files are whole."
        ) from error
    model.potstill_head = head
    return model.eval()


def head_modules(model: PreTrainedModel) -> list[str]:
    """Return the names of the modules that are never quantized and always learn.

    These are the modules outside the encoder, the encoder's pooler, and whatever the checkpoint
    did not hold.
    """
    known: list[str] | None = getattr(model, "potstill_head", None)
    return known if known is not None else _head_names(model, fresh=())


def linear_layers(model: PreTrainedModel, endings: Iterable[str] = ()) -> list[str]:
    """Return the names of the encoder's linear layers, quantized ones too; never the head's.

    Args:
        model: The backbone.
        endings: Keep only layers whose name ends with one of these parts; empty for all.

    Raises:
        AdapterError: No layer is left.
    """
    from torch import nn

    head = tuple(head_modules(model))
    layers = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not _inside(name, head)
    ]
    wanted = tuple(endings)
    chosen = [n for n in layers if not wanted or any(f".{n}".endswith(f".{e}") for e in wanted)]
    if not chosen:
        there = sorted({name.rsplit(".", 1)[-1] for name in layers})
        raise AdapterError(
            f"No linear layer of the backbone is called {', '.join(wanted)}. "
            f"It has: {', '.join(there)}. Name some of these in strategy.targets, or leave it out."
        )
    return chosen


def _head_names(model: PreTrainedModel, fresh: Iterable[str]) -> list[str]:
    base = model.base_model_prefix
    names = [name for name, _ in model.named_children() if name != base]
    names += [f"{base}.{name}" for name, _ in model.base_model.named_children() if name in _POOLERS]
    names += sorted({key.rsplit(".", 1)[0] for key in fresh})
    with_weights = [n for n in names if any(True for _ in model.get_submodule(n).parameters())]
    return [n for i, n in enumerate(with_weights) if not _inside(n, with_weights[:i])]


def _inside(name: str, modules: Iterable[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _bitsandbytes(kind: str, double: bool, bf16: bool, skip: list[str]) -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=torch.bfloat16 if bf16 else torch.float32,
        llm_int8_skip_modules=skip,
    )
