"""Loading a pretrained encoder with a classification head, in float or quantized."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from adapters.errors import AdapterError
from adapters.four_bits import leave_packing, mend_scales

if TYPE_CHECKING:
    from torch import Tensor, nn
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
    kind: str | None = None,
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
        seed: Seed of whatever is newly initialized.
        kind: What the head is for, by transformers' own name (``problem_type``), so that others
            who load the model know; None for exactly one label.

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
        **({} if kind is None else {"problem_type": kind}),
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
            mend_scales()
        torch.manual_seed(seed)
        model: PreTrainedModel = load(path, device_map={"": device}, **arguments)
    except (ValueError, OSError, RuntimeError, KeyError) as error:
        raise AdapterError(
            f"The backbone in {path} does not load as a sequence classifier: {error}. "
            "Check that it is an encoder that transformers supports and that its files are whole."
        ) from error
    model.potstill_head = head
    leave_packing(model)
    put_back_layers(model, path, device)
    return model.eval()


def put_back_layers(model: PreTrainedModel, path: Path, device: str) -> None:
    """Add the layers that the strategy of a finished model left in it, with their weights.

    Args:
        model: Loaded from the folder, without those layers.
        path: The folder.
        device: Where the model goes.

    Raises:
        AdapterError: The strategy is not registered, its fields are not those of today, or it
            refuses the model.
    """
    from safetensors.torch import load_file

    from adapters.strategy import Strategy, call, strategies

    made_by = getattr(model.config, "potstill_strategy", None)
    if made_by is None:
        return
    fields = {key: value for key, value in made_by.items() if key != "name"}
    strategy: Strategy = strategies.get(made_by["name"]).model_validate(fields)
    call(strategy, "prepare", model)
    own = dict(model.named_parameters())
    for file in sorted(path.glob("*.safetensors")):
        for name, tensor in load_file(file).items():
            if name in own and own[name].is_floating_point():
                own[name].data.copy_(tensor)
    model.to(device)


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
    head = tuple(head_modules(model))
    layers = [
        name
        for name, module in model.named_modules()
        if is_linear(module) and not _inside(name, head)
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


def is_linear(module: nn.Module) -> bool:
    """Tell whether a module is a linear layer: torch's, a quantized one, or GPT-2's own."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, (nn.Linear, Conv1D))


def linear_shape(layer: nn.Module) -> tuple[int, int]:
    """Return how many values a linear layer takes and gives."""
    if hasattr(layer, "in_features"):
        return int(layer.in_features), int(layer.out_features)  # type: ignore[arg-type]
    return int(layer.nx), int(layer.nf)  # type: ignore[arg-type]


def encoder_layers(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Return the encoder's layers, first to last, by the names they have in the model.

    Raises:
        AdapterError: The architecture keeps no list of its layers.
    """
    from torch import nn

    count = model.config.num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return {f"{name}.{place}": layer for place, layer in enumerate(module)}
    raise AdapterError(
        f"{type(model).__name__} keeps no list of its {count} layers. Choose a strategy that does "
        "not go by layers, such as lora."
    )


@dataclass(frozen=True)
class Part:
    """The linear layers of one encoder layer, by their full names.

    Attributes:
        attention: All layers of the attention, in their order.
        feed_forward_start: The first layer of the feed-forward part.
        feed_forward_end: The last one.
    """

    attention: tuple[str, ...]
    feed_forward_start: str
    feed_forward_end: str

    @property
    def attention_end(self) -> str:
        """The layer whose output the attention adds to the residual stream."""
        return self.attention[-1]


def encoder_parts(model: PreTrainedModel) -> list[Part]:
    """Return each encoder layer's linear layers, told apart by order and width.

    Two of them give the width of the residual stream last: the one that ends the attention and the
    one that ends the feed-forward part.

    Raises:
        AdapterError: The architecture's layers are not made of these two parts.
    """
    width = model.config.hidden_size
    parts = []
    for name, layer in encoder_layers(model).items():
        inside = [(f"{name}.{n}", m) for n, m in layer.named_modules() if is_linear(m)]
        wide = [i for i, (_, linear) in enumerate(inside) if linear_shape(linear)[1] == width]
        if len(wide) < 2 or wide[-1] - wide[-2] < 2:
            raise AdapterError(
                f"The layer {name} of {type(model).__name__} is not made of attention and a "
                "feed-forward part after it. Choose a strategy that does not need to tell them "
                "apart, such as lora."
            )
        names = [n for n, _ in inside]
        last = wide[-2]
        parts.append(Part(tuple(names[: last + 1]), names[last + 1], names[wide[-1]]))
    return parts


def residual_layers(model: PreTrainedModel) -> list[nn.Module]:
    """Return the linear layers whose outputs are added to the residual stream, first to last.

    Raises:
        AdapterError: The architecture's layers are not made of attention and a feed-forward part.
    """
    ends = [end for p in encoder_parts(model) for end in (p.attention_end, p.feed_forward_end)]
    return [model.get_submodule(name) for name in ends]


def scale_outputs(layer: nn.Module, factors: Tensor) -> None:
    """Multiply what a linear layer gives, by changing its weight and its bias.

    Args:
        layer: A linear layer in float.
        factors: One for each output, ``[outputs]``.
    """
    from torch import nn

    for weight in layer.parameters(recurse=False):
        # The last dimension is that of the outputs, but for the weight of torch's linear layer.
        turned = weight.data.T if isinstance(layer, nn.Linear) and weight.ndim == 2 else weight.data
        turned.mul_(factors.detach())


def depths(model: nn.Module) -> dict[str, int]:
    """Return how far from the input each parameter is: embeddings 0, layer i i + 1, the head most.

    Args:
        model: The backbone, or what a strategy's `prepare` made of it.
    """
    plain = unwrapped(model)
    layers = list(encoder_layers(plain))
    top, found, seen = len(layers) + 1, {}, False
    head = {id(p) for n in head_modules(plain) for p in plain.get_submodule(n).parameters()}
    for name, weight in model.named_parameters():
        here = next((i for i, n in enumerate(layers) if f".{n}." in f".{name}"), None)
        seen = seen or here is not None
        # What comes after the layers, such as a last norm, goes with the last of them.
        inner = here + 1 if here is not None else (len(layers) if seen else 0)
        found[name] = top if id(weight) in head else inner
    return found


def unwrapped(model: Any) -> PreTrainedModel:
    """Return the transformers model inside what a strategy's `prepare` has returned."""
    from transformers import PreTrainedModel

    return next(each for each in model.modules() if isinstance(each, PreTrainedModel))


def in_head(model: PreTrainedModel, name: str) -> bool:
    """Tell whether a parameter belongs to the head."""
    return _inside(name, head_modules(model))


def dequantize_layers(model: PreTrainedModel, names: Iterable[str]) -> None:
    """Turn quantized linear layers into float ones that can learn; float ones stay as they are.

    Args:
        model: The backbone; changed in place.
        names: Layers, from `linear_layers`.
    """
    from torch import nn

    for name in names:
        layer = model.get_submodule(name)
        weight = float_weight(layer)
        if weight is layer.weight:
            continue
        outputs, inputs = weight.shape
        plain = nn.Linear(inputs, outputs, bias=layer.bias is not None, device=weight.device)
        plain.weight.data = weight
        if layer.bias is not None:
            plain.bias = layer.bias
        model.set_submodule(name, plain.requires_grad_(False))


def float_weight(layer: nn.Module) -> Tensor:
    """Return a linear layer's weight, dequantized to float32 if it has to be.

    Args:
        layer: torch's or bitsandbytes' linear layer, or a Conv1D of GPT-2.

    Returns:
        ``[outputs, inputs]``; of a Conv1D ``[inputs, outputs]``. A float weight is the layer's own.
    """
    import torch
    from peft.utils.integrations import dequantize_bnb_weight

    weight: Tensor = layer.weight  # type: ignore[assignment]
    if weight.is_floating_point():
        return weight
    return dequantize_bnb_weight(weight, state=getattr(layer, "state", None)).to(torch.float32)  # type: ignore[no-any-return]


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
