"""What every strategy, backbone and quantization has to keep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from pydantic import ValidationError
from torch import nn

from adapters import AdapterError, Strategy, strategies
from adapters.backbone import depths, head_modules, linear_layers, load_backbone, unwrapped
from adapters.files import continue_adapter, load_adapter, save_adapter
from adapters.four_bits import by_definition, mend_scales
from adapters.hardware import Hardware, inspect_hardware
from adapters.merge import merge_adapter
from adapters.strategy import learned_state, prepare

Make = Callable[[str], Path]
BATCH = tiny.batch(["the cat is here", "a big old red house ? was there and", "soup"])
#: Strategy, its fields, and the quantizations that it can learn beside.
STRATEGIES: list[tuple[str, dict[str, Any], str]] = [
    ("lora", {"rank": 4}, "nf4"),
    ("lora", {"rank": 4}, "int8"),
    ("lora", {"rank": 2, "alpha": 4.0, "dropout": 0.1}, "none"),
    ("full", {}, "none"),
    ("head", {}, "nf4"),
    ("head", {}, "none"),
]
HEADS = {
    "bert": {"classifier", "bert.pooler"},
    "distilbert": {"pre_classifier", "classifier"},
    "roberta": {"classifier"},
    "mpnet": {"classifier"},
    "electra": {"classifier"},
}


def load(folder: Path, quantization: str = "none", seed: int = 0) -> Any:
    return load_backbone(folder, tiny.LABELS, quantization=quantization, seed=seed)  # type: ignore[arg-type]


def logits(model: nn.Module) -> torch.Tensor:
    model.eval()
    with torch.inference_mode():
        return model(**BATCH).logits  # type: ignore[no-any-return]


@pytest.fixture
def bf16_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let bitsandbytes believe in a processor for which it packs 4-bit weights anew."""
    import bitsandbytes

    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: True)


def trained(model: nn.Module, steps: int = 8) -> nn.Module:
    """Take a few real steps, so that nothing that learns keeps its first value."""
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=2e-2)
    torch.manual_seed(0)
    model.train()
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(**BATCH).logits, torch.tensor([0, 2, 1]))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_the_head_is_never_quantized(
    tiny_backbone: Make, architecture: str, quantization: str
) -> None:
    import bitsandbytes

    model = load(tiny_backbone(architecture), quantization)
    assert set(head_modules(model)) == HEADS[architecture]
    quantized = {
        name
        for name, module in model.named_modules()
        if isinstance(module, (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt))
    }
    assert quantized == set(linear_layers(model))
    for name in head_modules(model):
        for parameter in model.get_submodule(name).parameters():
            assert parameter.dtype == torch.float32


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize(("name", "fields", "quantization"), STRATEGIES)
def test_save_and_reload_give_equal_logits(
    tiny_backbone: Make,
    tmp_path: Path,
    architecture: str,
    name: str,
    fields: dict[str, Any],
    quantization: str,
) -> None:
    folder, strategy = tiny_backbone(architecture), strategies.get(name)(**fields)
    before = logits(load(folder, quantization))
    model = trained(prepare(load(folder, quantization), strategy))
    expected = logits(model)
    assert (expected - before).abs().max() > 1e-2
    save_adapter(tmp_path, model, strategy, tiny.LABELS)
    # Another seed for the fresh head: what comes back must come from the file.
    again = load_adapter(tmp_path, load(folder, quantization, seed=9), strategy, tiny.LABELS)
    assert torch.equal(logits(again), expected)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize(("name", "fields", "quantization"), STRATEGIES)
def test_merging_gives_a_plain_model_that_reloads(
    tiny_backbone: Make,
    tmp_path: Path,
    architecture: str,
    name: str,
    fields: dict[str, Any],
    quantization: str,
) -> None:
    folder, strategy = tiny_backbone(architecture), strategies.get(name)(**fields)
    model = trained(prepare(load(folder, quantization), strategy))
    save_adapter(tmp_path / "adapter", model, strategy, tiny.LABELS)
    merged = merge_adapter(
        tmp_path / "adapter",
        lambda q: load(folder, q),
        strategy,
        tiny.LABELS,
        into="dequantized",
        quantization=quantization,  # type: ignore[arg-type]
    )
    # int8 layers round their inputs too, which no merged float model can repeat.
    close = 0.05 if quantization == "int8" else 1e-4
    assert (logits(merged) - logits(model)).abs().max() < close
    plain = load(folder)
    assert type(merged) is type(plain)
    assert [n for n, _ in merged.named_parameters()] == [n for n, _ in plain.named_parameters()]
    merged.save_pretrained(tmp_path / "merged")
    again = load(tmp_path / "merged")
    assert torch.allclose(logits(again), logits(merged), atol=1e-6)
    assert again.config.id2label == dict(enumerate(tiny.LABELS))


def test_merging_into_the_original_weights_differs_by_the_rounding_only(
    tiny_backbone: Make, tmp_path: Path
) -> None:
    folder, strategy = tiny_backbone("bert"), strategies.get("lora")(rank=4)
    model = trained(prepare(load(folder, "nf4"), strategy))
    save_adapter(tmp_path, model, strategy, tiny.LABELS)
    into = {
        way: merge_adapter(
            tmp_path, lambda q: load(folder, q), strategy, tiny.LABELS, into=way, quantization="nf4"
        )
        for way in ("original", "dequantized")
    }
    layer = "bert.encoder.layer.0.intermediate.dense.weight"
    update = into["original"].get_parameter(layer) - load(folder).get_parameter(layer)
    base = load(folder, "nf4").dequantize().get_parameter(layer)
    assert torch.allclose(update, into["dequantized"].get_parameter(layer) - base, atol=1e-6)
    assert not torch.allclose(base, load(folder).get_parameter(layer), atol=1e-6)


@pytest.mark.parametrize("name", ["lora", "head"])
def test_only_what_is_declared_learns(tiny_backbone: Make, name: str) -> None:
    model = prepare(load(tiny_backbone("bert"), "nf4"), strategies.get(name)())
    state = learned_state(model)
    head = {n for n in state if "classifier" in n or "pooler" in n}
    assert head
    rest = set(state) - head
    assert all("lora_" in n for n in rest)
    assert bool(rest) == (name == "lora")


def test_lora_targets_are_found_or_named(tiny_backbone: Make) -> None:
    model = load(tiny_backbone("mpnet"))
    layers = linear_layers(model)
    assert len(layers) == 4 * 6
    assert not any("classifier" in name for name in layers)
    assert all(name.endswith(".q") for name in linear_layers(model, ["q"]))
    with pytest.raises(AdapterError, match="It has: dense, k, o, q, v"):
        linear_layers(model, ["query"])


def test_a_new_head_depends_on_the_seed_alone(tiny_backbone: Make) -> None:
    folder = tiny_backbone("roberta")
    one, same, other = (logits(load(folder, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(
        load(folder, "nf4", seed=1).classifier.dense.weight,
        load(folder, seed=1).classifier.dense.weight,
    )


class ReturnsNothing(Strategy):
    def prepare(self, model: Any) -> Any:
        return None


class ReplacesTheHead(Strategy):
    def prepare(self, model: Any) -> Any:
        model.classifier = nn.Linear(32, 3)
        return model


@pytest.mark.parametrize(
    ("strategy", "told"),
    [(ReturnsNothing(), "returned NoneType"), (ReplacesTheHead(), "replaced the model's head")],
)
def test_a_strategy_that_breaks_its_contract_is_named(
    tiny_backbone: Make, strategy: Strategy, told: str
) -> None:
    with pytest.raises(AdapterError, match=told):
        prepare(load(tiny_backbone("bert")), strategy)


def test_an_adapter_refuses_other_labels_and_another_strategy(
    tiny_backbone: Make, tmp_path: Path
) -> None:
    folder, strategy = tiny_backbone("bert"), strategies.get("lora")(rank=4)
    save_adapter(tmp_path, prepare(load(folder), strategy), strategy, tiny.LABELS)
    with pytest.raises(AdapterError, match="trained for the labels"):
        load_adapter(tmp_path, load(folder), strategy, tiny.LABELS[::-1])
    with pytest.raises(AdapterError, match="was trained with"):
        load_adapter(tmp_path, load(folder), strategies.get("lora")(rank=8), tiny.LABELS)


def test_bf16_is_taken_only_where_the_machine_has_it() -> None:
    hardware = Hardware("cpu", "some CPU", 2, bf16=False, vnni=False, flags=())
    assert not hardware.bf16_for("auto", allow_fallback=False)
    assert not hardware.bf16_for("bf16", allow_fallback=True)
    with pytest.raises(AdapterError, match=r"Set distill\.train\.precision=auto"):
        hardware.bf16_for("bf16", allow_fallback=False, key="distill.train.precision")
    able = Hardware("cpu", "some CPU", 2, bf16=True, vnni=True, flags=())
    assert able.bf16_for("auto", allow_fallback=False)
    assert not able.bf16_for("float32", allow_fallback=False)


def test_quantization_falls_back_only_where_allowed() -> None:
    bare = Hardware("cpu", "some CPU", 2, bf16=False, vnni=False, flags=(), bitsandbytes=False)
    assert bare.quantization_for("nf4", allow_fallback=True) == "none"
    assert bare.quantization_for("none", allow_fallback=False) == "none"
    with pytest.raises(AdapterError, match="bitsandbytes is not installed"):
        bare.quantization_for("nf4", allow_fallback=False)
    able = Hardware("cpu", "some CPU", 2, bf16=False, vnni=False, flags=())
    assert able.quantization_for("nf4", allow_fallback=False) == "nf4"


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(AdapterError, match="PyTorch sees no CUDA device"):
        inspect_hardware("cuda", None)
    assert inspect_hardware("auto", 1).threads == 1
    torch.set_num_threads(2)


@pytest.mark.parametrize("name", ["pissa", "last_layers", "bottleneck", "vera"])
def test_merging_into_dequantized_weights_changes_nothing(
    tiny_backbone: Make, tmp_path: Path, name: str
) -> None:
    folder, strategy = tiny_backbone("bert"), strategies.get(name)()
    model = trained(prepare(load(folder, "nf4"), strategy), steps=3)
    save_adapter(tmp_path, model, strategy, tiny.LABELS)
    merged = merge_adapter(
        tmp_path,
        lambda q: load(folder, q),
        strategy,
        tiny.LABELS,
        into="dequantized",
        quantization="nf4",
    )
    assert (logits(merged) - logits(model)).abs().max() < 1e-4


@pytest.mark.parametrize("more", [0, 2], ids=["same labels", "new labels"])
def test_a_next_task_of_olora_starts_apart_from_the_last(
    tiny_backbone: Make, tmp_path: Path, more: int
) -> None:
    folder, strategy = tiny_backbone("bert"), strategies.get("olora")(rank=4)
    model = trained(prepare(load(folder), strategy))
    save_adapter(tmp_path, model, strategy, tiny.LABELS)
    memory = strategy.between_tasks(model, iter(()), {})
    labels = [*tiny.LABELS, *"xy"[:more]]
    backbone = load_backbone(folder, labels, quantization="none", seed=0)
    following = continue_adapter(tmp_path, backbone, strategy, memory)
    for module in following.modules():
        if hasattr(module, "lora_A"):
            new, past = (module.lora_A[key].weight for key in ("default", "past"))
            assert new.abs().max() > 0.01
            assert (new @ past.T).abs().max() < 1e-4


def test_olora_learns_on_when_earlier_tasks_fill_a_layer(tiny_backbone: Make) -> None:
    strategy = strategies.get("olora")(rank=4)
    starts = []
    for seed in (0, 1):
        backbone = load_backbone(tiny_backbone("bert"), tiny.LABELS, quantization="none", seed=seed)
        model = prepare(backbone, strategy)
        memory = strategy.between_tasks(model, iter(()), {})
        for name, past in memory.items():
            shape = (64, past.shape[1]) if name.endswith("lora_A") else (past.shape[0], 64)
            memory[name] = torch.randn(shape)
        strategy.recall(model, memory)
        layers = [module for module in model.modules() if hasattr(module, "lora_A")]
        starts.append([layer.lora_A["default"].weight for layer in layers])
        assert all(start.abs().max() > 0.01 for start in starts[-1])
    assert not any(torch.equal(*pair) for pair in zip(*starts, strict=True))


def test_ewc_refuses_to_be_around_what_remembers() -> None:
    with pytest.raises(ValidationError, match="keeps a memory of its own"):
        strategies.get("ewc")(base={"name": "olora"})
    with pytest.raises(ValidationError, match="keeps a memory of its own"):
        strategies.get("ewc")(base={"name": "replay", "base": {"name": "ewc"}})
    assert strategies.get("ewc")(base={"name": "replay"}).base.base.rank == 16


def test_norm_tuning_of_peft_adapts_the_norms(tiny_backbone: Make) -> None:
    strategy = strategies.get("peft")(method="LN_TUNING")
    learnt = learned_state(prepare(load(tiny_backbone("bert")), strategy))
    inside = [name for name in learnt if "classifier" not in name and "pooler" not in name]
    assert inside
    assert all("LayerNorm" in name for name in inside)


@pytest.mark.parametrize("method", ["xlora", "POLY", "CPT", "SHADOW", "TRAINABLE_TOKENS"])
def test_methods_of_peft_that_no_plain_weights_can_hold_are_refused(method: str) -> None:
    with pytest.raises(ValidationError, match=f"peft's {method} .* that is no plain model"):
        strategies.get("peft")(method=method)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"method": "PROMPT_TUNING", "num_virtual_tokens": 4}, "learnt vectors before the text"),
        ({"method": "ADAPTION_PROMPT"}, "learnt vectors before the text"),
        ({"method": "LORA", "alora_invocation_tokens": [1]}, "only what comes after certain"),
        ({"method": "LOHA", "targets": ["key"], "target_modules": ["value"]}, "targets mean noth"),
        ({"method": "LN_TUNING", "targets": ["key"]}, "targets mean nothing beside LN_TUNING"),
    ],
)
def test_fields_of_peft_that_cannot_hold_are_refused_when_a_recipe_is_read(
    fields: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValidationError, match=told):
        strategies.get("peft")(**fields)


def test_the_model_inside_any_wrapper_is_found(tiny_backbone: Make) -> None:
    class Box(nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.inner, self.config = model, model.config

    model = load(tiny_backbone("bert"))
    assert unwrapped(Box(model)) is unwrapped(model) is model
    assert depths(Box(model)).keys() == {f"inner.{name}" for name, _ in model.named_parameters()}


@pytest.mark.usefixtures("bf16_processor")
def test_an_answer_leaves_four_bit_weights_as_they_are(tiny_backbone: Make) -> None:
    model = load(tiny_backbone("bert"), "nf4")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    logits(model)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("shape", [(32, 32), (64, 96), (96, 64), (40, 312), (3, 10)])
def test_four_bit_weights_come_back_with_their_own_scales(shape: tuple[int, int]) -> None:
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    mend_scales()
    torch.manual_seed(0)
    weight = torch.randn(shape) * torch.logspace(-2, 2, shape[0])[:, None]
    packed, state = quantize_4bit(weight, quant_type="nf4", compress_statistics=False)
    found = dequantize_4bit(packed, state)
    expected = by_definition(packed, state.absmax, state.blocksize, "nf4", shape)
    torch.testing.assert_close(found, expected)
    assert (found - weight).norm() < 0.15 * weight.norm()
