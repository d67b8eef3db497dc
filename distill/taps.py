"""Asking a transformers model for more than its logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

from distill.errors import DistillError
from distill.signals import Answer, Need, Wants
from distill.students import layer_stack

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

T = TypeVar("T", bound=Answer)

#: What architectures call the projections that attention compares and mixes.
_PROJECTIONS: Mapping[Need, tuple[str, ...]] = {
    "queries": ("query", "q", "q_lin", "query_proj", "q_proj"),
    "keys": ("key", "k", "k_lin", "key_proj", "k_proj"),
    "values": ("value", "v", "v_lin", "value_proj", "v_proj"),
}
#: What they call one layer that makes all three, in this order.
_FUSED = ("Wqkv", "c_attn")


def ask(model: PreTrainedModel, inputs: Mapping[str, Tensor], wants: Wants, kind: type[T]) -> T:
    """Run a model and return what is wanted of it.

    The output of the last layer is what the head is given, after the final norm of architectures
    that have one. Queries and keys are those before positions are rotated into them, and keys and
    values that several heads share are repeated for each. In training mode attention
    probabilities have gone through the model's own dropout.

    Args:
        model: A plain classifier. Attention maps need ``attn_implementation="eager"``.
        inputs: Its inputs, ``[batch, length]`` each, ``attention_mask`` among them.
        wants: What is wanted besides the logits, and of which layers.
        kind: What to return it as.

    Raises:
        DistillError: The architecture does not offer what is wanted.
    """
    with ExitStack() as stack:
        caught = {
            need: [_catch(stack, *_projection(model, layer, need)) for layer in wants[need]]
            for need in _PROJECTIONS
            if need in wants
        }
        answer = model(
            **inputs,
            output_hidden_states=not wants.keys().isdisjoint(("hidden", "embeddings", "pooled")),
            output_attentions="attention" in wants,
        )
    found: dict[str, Any] = {need: tuple(box[0] for box in boxes) for need, boxes in caught.items()}
    # hidden_states starts with the embeddings, so the output of layer i is entry i + 1.
    if "hidden" in wants:
        found["hidden"] = tuple(answer.hidden_states[layer + 1] for layer in wants["hidden"])
    if "embeddings" in wants:
        found["embeddings"] = answer.hidden_states[0]
    if "pooled" in wants:
        mask = inputs["attention_mask"]
        states = [answer.hidden_states[layer + 1] for layer in wants["pooled"]]
        found["pooled"] = tuple(_mean(state, mask) for state in states)
    if "attention" in wants:
        found["attention"] = tuple(_maps(model, answer)[layer] for layer in wants["attention"])
    return kind(answer.logits, **found)


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    seen = mask.unsqueeze(-1).to(states.dtype)
    return (states * seen).sum(dim=1) / seen.sum(dim=1).clamp(min=1)


def _maps(model: PreTrainedModel, answer: Any) -> tuple[Tensor, ...]:
    """Return the attention maps of all layers."""
    maps = answer.attentions or ()
    if not maps or any(one is None for one in maps):
        raise _without(
            model, 'attention maps unless it was loaded with attn_implementation="eager"'
        )
    return tuple(maps)


def _projection(
    model: PreTrainedModel, layer: int, need: Need
) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """Return the module that makes a layer's queries, keys or values, and how to take them."""
    try:
        stack = layer_stack(model)
    except DistillError:
        raise _without(model, f"layers to take {need} from") from None
    for name, module in stack[layer].named_modules():
        last = name.rpartition(".")[2]
        if last in _PROJECTIONS[need]:
            return module, lambda output: _for_each_head(model, output)
        if last in _FUSED:
            return module, lambda output: _third(need, output)
    raise _without(model, f"projection of {need} that is known here")


def _third(need: Need, output: Tensor) -> Tensor:
    return output.chunk(3, dim=-1)[list(_PROJECTIONS).index(need)]


def _for_each_head(model: PreTrainedModel, output: Tensor) -> Tensor:
    """Repeat keys and values that groups of heads share (Ainslie et al., 2023, arXiv:2305.13245).

    Queries, which are as wide as all heads together, stay as they are.
    """
    heads = model.config.num_attention_heads
    shared = getattr(model.config, "num_key_value_heads", None) or heads
    size = getattr(model.config, "head_dim", None) or model.config.hidden_size // heads
    if shared == heads or output.shape[-1] != shared * size:
        return output
    single = output.reshape(*output.shape[:-1], shared, size)
    return single.repeat_interleave(heads // shared, dim=-2).flatten(-2)


def _catch(stack: ExitStack, module: nn.Module, take: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Keep a module's next output in the list that is returned, until the stack is left.

    Only the first one: DeBERTa sends its relative positions through the same module afterwards.
    """
    box: list[Tensor] = []

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if not box:
            box.append(take(output))

    stack.callback(module.register_forward_hook(hook).remove)
    return box


def _without(model: PreTrainedModel, missing: str) -> DistillError:
    return DistillError(
        f"{type(model).__name__} has no {missing}. Leave the objectives that compare them out of "
        "distill.objectives, or choose another backbone."
    )
