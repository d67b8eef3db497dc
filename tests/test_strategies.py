"""What single strategies promise beyond the contract, which `test_strategy_kit` holds them to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import TrainerCallback

from adapters import Strategy, strategies
from adapters.backbone import depths, float_weight, linear_layers, load_backbone
from adapters.files import continue_adapter
from adapters.strategy import prepare
from adapters.testing_bench import LABELS, RATE, Bench, Model, quiet

Benches = Callable[[Strategy], Bench]
TOP = 3  # the head, above two layers and the embeddings


@pytest.fixture
def on_bert(tmp_path: Path) -> Iterator[Benches]:
    """Return a function from a strategy to a bench with a tiny BERT."""
    with quiet():
        yield lambda strategy: Bench(tmp_path, "bert", strategy)


def make(name: str, **fields: Any) -> Any:
    return strategies.get(name)(**fields)


class Watch(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Notes at which depths weights move in each step, and the optimizer's first rates."""

    def __init__(self, model: nn.Module, moved: list[set[int]], rates: dict[int, float]) -> None:
        self.model, self.moved, self.rates = model, moved, rates
        self.depth = depths(model)

    def on_step_begin(self, *_: Any, optimizer: Any, **__: Any) -> None:
        self.before = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        names = {id(p): name for name, p in self.model.named_parameters()}
        for group in optimizer.param_groups:
            for weight in group["params"]:
                self.rates.setdefault(self.depth[names[id(weight)]], group["lr"])

    def on_step_end(self, *_: Any, **__: Any) -> None:
        named = self.model.named_parameters()
        self.moved.append({self.depth[n] for n, p in named if not torch.equal(p, self.before[n])})


def watched(on_bert: Benches, strategy: Strategy) -> tuple[list[set[int]], dict[int, float]]:
    """Train with the real Trainer; return the depths that moved in each step, and the rates."""
    moved: list[set[int]] = []
    rates: dict[int, float] = {}

    class Watched(type(strategy)):  # type: ignore[misc]
        def callbacks(self, model: nn.Module) -> Any:
            return [*super().callbacks(model), Watch(model, moved, rates)]

    on_bert(Watched.model_validate(strategy.model_dump())).train()
    return moved, rates


@pytest.mark.parametrize("unit", ["step", "epoch"])
def test_gradual_unfreezing_opens_one_layer_after_the_other(on_bert: Benches, unit: str) -> None:
    moved, _ = watched(on_bert, make("gradual_unfreezing", every=3.0, unit=unit))
    for step, there in enumerate(moved):
        assert there == set(range(max(0, TOP - step // 3), TOP + 1)), step
    assert moved[-1] == set(range(TOP + 1))


def test_probe_then_full_leaves_the_encoder_alone_at_first(on_bert: Benches) -> None:
    moved, _ = watched(on_bert, make("probe_then_full", probe=0.3))
    probing = round(0.3 * len(moved))
    assert all(there == {TOP} for there in moved[:probing])
    assert all(there == set(range(TOP + 1)) for there in moved[probing:])


@pytest.mark.parametrize("base", ["full", "lora"])
def test_layerwise_rates_reach_the_optimizer(on_bert: Benches, base: str) -> None:
    _, rates = watched(on_bert, make("layerwise_rates", base={"name": base}, decay=0.5))
    expected = {level: RATE * 0.5 ** (TOP - level) for level in range(TOP + 1)}
    if base == "lora":
        del expected[0]  # it adapts no embeddings
    assert rates == pytest.approx(expected)


def ranks(model: nn.Module) -> list[int]:
    """Return how many singular values of each layer's update are not given up."""
    return [int((p != 0).sum()) for name, p in model.named_parameters() if "lora_E" in name]


def test_adalora_shrinks_its_budget_to_the_mean_rank(on_bert: Benches) -> None:
    bench = on_bert(make("adalora", initial_rank=6, rank=2))
    # A tenth of the steps is left to warm up.
    assert set(ranks(bench.train(folder="warming", stop_after=3).model)) == {6}
    left = ranks(bench.learnt)
    assert sum(left) == 2 * len(left)
    assert len(set(left)) > 1  # dealt out, not cut evenly


def test_adalora_goes_on_exactly_where_it_stopped(on_bert: Benches) -> None:
    bench = on_bert(make("adalora", initial_rank=6, rank=2))
    # While the budget shrinks, and once it is settled.
    for stopped in (15, 45):
        folder = f"broken at {stopped}"
        bench.train(folder=folder, stop_after=stopped)
        resumed = bench.train(folder=folder).model
        assert ranks(resumed) == ranks(bench.learnt)
        assert torch.equal(bench.logits(resumed), bench.logits(bench.learnt))


def test_pissa_starts_as_the_backbone(on_bert: Benches) -> None:
    bench = on_bert(make("pissa", rank=4))
    start = bench.logits(bench.prepared(bench.strategy))
    assert torch.allclose(start, bench.logits(bench.load()), atol=1e-4)


@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
def test_pissa_rounds_less_than_plain_nf4(tmp_path: Path, architecture: str) -> None:
    with quiet():
        bench = Bench(tmp_path, architecture, make("pissa", rank=4))
        plain, wanted = bench.load("nf4"), bench.load()
        split: Any = bench.prepared(bench.strategy, "nf4")
    for name in linear_layers(wanted):
        layer, own = split.get_base_model().get_submodule(name), wanted.get_submodule(name)
        # GPT-2 has its weights the other way round.
        weight = own.weight if isinstance(own, nn.Linear) else own.weight.T
        held = float_weight(layer.base_layer) + layer.get_delta_weight("default")
        rounded = float_weight(plain.get_submodule(name))
        assert (held - weight).norm() < 0.95 * (rounded - weight).norm(), name


PHASES = ([0] * 60 + [1] * 90, [2] * 70 + [3] * 40, [4] * 50 + [1] * 30)
TOTAL = sum(map(len, PHASES))


def test_replay_keeps_a_bounded_and_balanced_memory() -> None:
    replay = make("replay", memory=0.05, repeats=4)
    assert list(replay.rehearse([], PHASES[0], TOTAL, 7)) == []
    past: list[int] = []
    before: set[int] = set(range(len(PHASES[0])))
    for last, new in pairwise(PHASES):
        known = len(past)
        past += last
        rows = list(replay.rehearse(past, new, TOTAL, 7))
        kept = set(rows)
        assert 0 < len(kept) <= 0.05 * TOTAL
        of_class = Counter(past[row] for row in kept)
        assert set(of_class) == set(past)
        assert len(set(of_class.values())) == 1
        assert set(Counter(rows).values()) == {4}
        # No look back: a row that was given up does not come again.
        assert {row for row in kept if row < known} <= before
        before = kept
    assert replay.rehearse(past, new, TOTAL, 7) == rows
    assert replay.rehearse(past, new, TOTAL, 8) != rows


def test_replay_does_not_repeat_what_is_met_often_enough() -> None:
    rows = make("replay", memory=1.0).rehearse([0] * 30, [1] * 30, 60, 0)
    assert sorted(rows) == list(range(30))


def losses(bench: Bench, model: nn.Module) -> Iterator[torch.Tensor]:
    for row in range(6):
        part = {name: tensor[row : row + 1] for name, tensor in bench.batch.items()}
        yield Model(model, bench.strategy).eval()(**part)["loss"]


def test_ewc_holds_what_mattered_and_nothing_else(on_bert: Benches) -> None:
    bench = on_bert(make("ewc", strength=10.0))
    strategy, model = bench.strategy, bench.learnt
    assert strategy.penalty(model, {}) is None
    memory = strategy.between_tasks(model, losses(bench, model), {})
    assert float(strategy.penalty(model, memory)) == 0.0
    name, weight = next((n, p) for n, p in model.named_parameters() if "classifier.weight" in n)
    importance = memory[f"importance.{name}"]
    assert float(importance.max()) > 0
    direction = torch.ones_like(weight)
    for step in (1.0, 2.0):
        weight.data = memory[f"value.{name}"] + step * direction
        expected = 0.5 * 10.0 * step**2 * float(importance.sum())
        assert float(strategy.penalty(model, memory)) == pytest.approx(expected, rel=1e-3)
    weight.data = memory[f"value.{name}"].clone()
    again = strategy.between_tasks(model, losses(bench, model), memory)
    assert torch.allclose(again[f"importance.{name}"], 2 * importance, rtol=1e-3)


def test_ewc_leaves_new_labels_free(on_bert: Benches) -> None:
    bench = on_bert(make("ewc"))
    strategy = bench.strategy
    memory = strategy.between_tasks(bench.learnt, losses(bench, bench.learnt), {})
    grown = load_backbone(bench.backbone, (*LABELS, "fourth"))
    model = continue_adapter(bench.adapter, grown, strategy, memory)
    assert float(strategy.penalty(model, memory)) == 0.0
    weight = next(p for n, p in model.named_parameters() if "classifier.weight" in n)
    weight.data[3] += 1
    assert float(strategy.penalty(model, memory)) == 0.0
    weight.data[2] += 1
    assert float(strategy.penalty(model, memory)) > 0


def overlap(model: nn.Module) -> float:
    """Return how much the new updates lie in the space of the past ones, between 0 and 1."""
    shares = []
    for module in model.modules():
        down = getattr(module, "lora_A", {})
        if "past" in down:
            new, past = down["default"].weight, down["past"].weight
            basis = torch.linalg.qr(past.T).Q
            shares.append(float((new @ basis).norm() / new.norm()))
    return sum(shares) / len(shares)


def second_task(bench: Bench, memory: dict[str, torch.Tensor]) -> nn.Module:
    strategy = bench.strategy
    torch.manual_seed(0)
    model = prepare(bench.load(), strategy, memory)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    inputs = {name: bench.batch[name] for name in ("input_ids", "attention_mask")}
    for _ in range(30):
        loss = nn.functional.cross_entropy(model(**inputs).logits, bench.batch["labels"].flip(0))
        penalty = strategy.penalty(model, memory)
        (loss if penalty is None else loss + penalty).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def test_olora_freezes_past_updates_and_keeps_away_from_them(on_bert: Benches) -> None:
    bench = on_bert(make("olora", rank=4))
    memory = bench.strategy.between_tasks(bench.learnt, losses(bench, bench.learnt), {})
    apart = second_task(bench, memory)
    for name, weight in apart.named_parameters():
        if ".past." in name:
            assert not weight.requires_grad
            key = name.replace(".past.weight", "")
            assert torch.equal(weight, memory[key]), name
    indifferent = make("olora", rank=4, orthogonality=0.0)
    bench = Bench(bench.folder, "bert", indifferent)
    assert overlap(apart) < 0.5 * overlap(second_task(bench, memory))
    # The next task's memory holds the updates of both.
    both = make("olora", rank=4).between_tasks(apart, iter(()), memory)
    assert {tensor.shape[0] for name, tensor in both.items() if name.endswith("lora_A")} == {8}
