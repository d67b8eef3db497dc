"""Every objective against a formula written out, its settings, and what models are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pytest
import tiny
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from adapters.backbone import load_backbone
from adapters.registry import by_name
from adapters.tiny import ARCHITECTURES
from distill import DistillError, LiveTeacher, Objective, Outputs, Pair, Signals, objectives
from distill.builtin.prediction import (
    Conditional,
    CrossEntropy,
    Focal,
    KullbackLeibler,
    Sigmoid,
    SoftOrdinal,
    SquaredLogits,
)
from distill.builtin.relations import Attention, Contrast, Relation
from distill.builtin.states import Cosine, Embeddings, Hidden
from distill.learner import Learner
from distill.objective import asked
from distill.taps import ask

Make = Callable[[str], Path]
Found = dict[str, Any]

PAIR = Pair(
    student_width=8,
    teacher_width=8,
    layer_map=(0, 3),
    same_tokens=True,
    student_heads=2,
    teacher_heads=2,
    teacher_layers=4,
)
#: The third text has one token.
LENGTHS = (5, 3, 1, 4)
MASK = (torch.arange(5) < torch.tensor(LENGTHS).unsqueeze(1)).long()
LABELS = torch.tensor([0, 2, 1, -100])


def pair(**changes: Any) -> Pair:
    return Pair(**{field.name: getattr(PAIR, field.name) for field in fields(Pair)} | changes)


def signals(seed: int, *, width: int = 8, layers: int = 2) -> Found:
    """Return random signals in float64, every one that there is."""
    chance = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(4, *shape, generator=chance, dtype=torch.float64)

    several = ("hidden", "queries", "keys", "values")
    found: Found = {name: tuple(draw(5, width) for _ in range(layers)) for name in several}
    unseen = (MASK == 0)[:, None, None]
    maps = (draw(2, 5, 5).masked_fill(unseen, -torch.inf) for _ in range(layers))
    return found | {
        "logits": draw(3),
        "embeddings": draw(5, width),
        "attention": tuple(scores.softmax(-1) for scores in maps),
        "pooled": tuple(draw(width) for _ in range(layers)),
    }


# What each should be, in numpy, one number after the other. The student's signals come first.


def softmax(row: np.ndarray) -> np.ndarray:
    powers = np.exp(row - row.max())
    return np.asarray(powers / powers.sum())


def divergence(target: np.ndarray, own: np.ndarray) -> float:
    return float(sum(p * math.log(p / q) for p, q in zip(target, own, strict=True)))


def each_token() -> list[tuple[int, int]]:
    return [(row, place) for row, length in enumerate(LENGTHS) for place in range(length)]


def squared(own: np.ndarray, target: np.ndarray) -> float:
    return float(np.mean([np.mean((own[at] - target[at]) ** 2) for at in each_token()]))


def ce(s: Found, t: Found) -> float:
    each = [-math.log(softmax(s["logits"][row])[label]) for row, label in ((0, 0), (1, 2), (2, 1))]
    return sum(each) / 3  # the fourth text has no label


def focal(s: Found, t: Found) -> float:
    likely = [softmax(s["logits"][row])[label] for row, label in ((0, 0), (1, 2), (2, 1))]
    return sum(-((1 - p) ** 3) * math.log(p) for p in likely) / 3


def kl(s: Found, t: Found) -> float:
    rows = zip(s["logits"], t["logits"], strict=True)
    return float(9 * np.mean([divergence(softmax(b / 3), softmax(a / 3)) for a, b in rows]))


def conditional(s: Found, t: Found) -> float:
    found = []
    for own, told, label in zip(s["logits"], t["logits"], LABELS.tolist(), strict=True):
        if label in (-100, int(np.argmax(told))):
            found.append(9 * divergence(softmax(told / 3), softmax(own / 3)))
        else:
            found.append(-math.log(softmax(own)[label]))
    return float(np.mean(found))


def mse_logits(s: Found, t: Found) -> float:
    return float(np.mean((s["logits"] - t["logits"]) ** 2))


def sigmoid(s: Found, t: Found) -> float:
    found = []
    for own, target in zip(s["logits"].flat, t["logits"].flat, strict=True):
        q, p = 1 / (1 + math.exp(-own / 3)), 1 / (1 + math.exp(-target / 3))
        found.append(9 * divergence(np.array([p, 1 - p]), np.array([q, 1 - q])))
    return float(np.mean(found))


def hidden(s: Found, t: Found) -> float:
    return float(np.mean([squared(a, b) for a, b in zip(s["hidden"], t["hidden"], strict=True)]))


def cosine(s: Found, t: Found) -> float:
    found = []
    for own, target in zip(s["hidden"], t["hidden"], strict=True):
        for at in each_token():
            a, b = own[at], target[at]
            found.append(1 - a @ b / math.sqrt((a @ a) * (b @ b)))
    return float(np.mean(found))


def embeddings(s: Found, t: Found) -> float:
    return squared(s["embeddings"], t["embeddings"])


def attention(s: Found, t: Found) -> float:
    found = []
    for own, target in zip(s["attention"], t["attention"], strict=True):
        for row, place in each_token():
            for head in range(2):
                gap = own[row, head, place] - target[row, head, place]
                found.append(sum(gap[key] ** 2 for key in range(LENGTHS[row])))
    return float(np.mean(found))


def relation(s: Found, t: Found) -> float:
    found = []
    for name in ("queries", "keys", "values"):
        for own, target in zip(s[name], t[name], strict=True):
            for row, place in each_token():
                for head in range(4):  # of width 2
                    rows = []
                    for states in (own, target):
                        part = states[row, : LENGTHS[row], 2 * head : 2 * head + 2]
                        rows.append(softmax(part @ part[place] / math.sqrt(2)))
                    found.append(divergence(rows[1], rows[0]))
    return float(np.mean(found))


def contrast(s: Found, t: Found) -> float:
    found = []
    for own, target in zip(s["pooled"], t["pooled"], strict=True):
        texts = target / np.linalg.norm(target, axis=1, keepdims=True)
        for a, b in zip(own, target, strict=True):
            rows = [softmax(texts @ side / np.linalg.norm(side) / 0.5) for side in (a, b)]
            found.append(divergence(rows[1], rows[0]))
    return float(np.mean(found))


def soft_ordinal(s: Found, t: Found) -> float:
    found = []
    for row, label in ((0, 0), (1, 2), (2, 1)):  # the fourth text has no label
        own = s["logits"][row]
        target = softmax(-2.0 * np.abs(np.arange(len(own)) - label))
        found.append(-float(target @ np.log(softmax(own))))
    return float(np.mean(found))


CASES: list[tuple[Objective, Callable[[Found, Found], float]]] = [
    (CrossEntropy(), ce),
    (SoftOrdinal(), soft_ordinal),
    (Focal(gamma=3.0), focal),
    (KullbackLeibler(temperature=3.0), kl),
    (Conditional(temperature=3.0), conditional),
    (SquaredLogits(), mse_logits),
    (Sigmoid(temperature=3.0), sigmoid),
    (Hidden(), hidden),
    (Cosine(), cosine),
    (Embeddings(), embeddings),
    (Attention(), attention),
    (Relation(heads=4), relation),
    (Contrast(temperature=0.5), contrast),
]
every = pytest.mark.parametrize("objective", [o for o, _ in CASES], ids=lambda o: type(o).__name__)


def test_every_built_in_objective_has_a_reference() -> None:
    known = {cls for _, cls in objectives if cls.__module__.startswith("distill.")}
    assert {type(objective) for objective, _ in CASES} == known
    assert all(cls.paper for cls in known - {CrossEntropy})


@pytest.mark.parametrize(("objective", "reference"), CASES, ids=lambda v: type(v).__name__)
def test_the_loss_is_what_the_formula_says(
    objective: Objective, reference: Callable[[Found, Found], float]
) -> None:
    own, told = signals(0), signals(1)

    def plain(found: Found) -> Found:
        return {
            name: [one.numpy() for one in value] if isinstance(value, tuple) else value.numpy()
            for name, value in found.items()
        }

    loss = objective.loss(Outputs(**own), Signals(**told), LABELS, MASK, None)
    assert loss.item() == pytest.approx(reference(plain(own), plain(told)), rel=1e-9)


@every
def test_gradients_are_those_of_finite_differences(objective: Objective) -> None:
    own, told = signals(0, layers=1), Signals(**signals(1, layers=1))
    names = sorted(objective.needs) or ["logits"]
    given = [own[name][0] if isinstance(own[name], tuple) else own[name] for name in names]

    def loss(*tensors: Tensor) -> Tensor:
        new = {
            name: (tensor,) if isinstance(own[name], tuple) else tensor
            for name, tensor in zip(names, tensors, strict=True)
        }
        return objective.loss(Outputs(**{**own, **new}), told, LABELS, MASK, None)

    assert torch.autograd.gradcheck(loss, [tensor.requires_grad_() for tensor in given])


@every
def test_a_student_equal_to_its_teacher_has_nothing_to_learn_from_it(objective: Objective) -> None:
    found = signals(0)
    right = found["logits"].argmax(-1)
    loss = objective.loss(Outputs(**found), Signals(**found), right, MASK, None)
    assert (abs(loss.item()) < 1e-12) == bool(objective.needs)


@pytest.mark.parametrize("objective", [Hidden(), Cosine(), Embeddings(), Contrast()], ids=str)
def test_other_widths_go_through_a_projection_that_learns(objective: Objective) -> None:
    narrow = pair(student_width=4)
    parts = objective.parts(narrow)
    assert isinstance(parts, nn.ModuleList)
    count = len(objective.layers(narrow)) if objective.needs != {"embeddings"} else 1
    assert [tuple(part.weight.shape) for part in parts] == [(8, 4)] * count
    parts.double()
    own, told = signals(0, width=4, layers=count), signals(1, layers=count)
    loss = objective.loss(Outputs(**own), Signals(**told), LABELS, MASK, parts)
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(bool(weight.grad.any()) for weight in parts.parameters())
    assert objective.parts(PAIR) is None


def test_the_gradient_of_kl_keeps_its_size_at_any_temperature() -> None:
    own, told = signals(0)["logits"], signals(1)["logits"]
    hot = KullbackLeibler(temperature=1e4)
    # At a high temperature it is that of matched, centered logits.
    centered = [x - x.mean(-1, keepdim=True) for x in (own, told)]
    limit = ((centered[0] - centered[1]) ** 2).sum(-1).mean() / (2 * 3)
    assert torch.allclose(hot.loss(Outputs(own), Signals(told), LABELS, MASK, None), limit, 1e-3)


def test_certain_answers_do_not_overflow() -> None:
    own, told = 1e3 * signals(0)["logits"].float(), 1e3 * signals(1)["logits"].float()
    fractional = Focal(gamma=0.5)  # a root has no slope at nothing
    for objective in (CrossEntropy(), Focal(), fractional, KullbackLeibler(), Sigmoid()):
        own.requires_grad_().grad = None
        loss = objective.loss(Outputs(own), Signals(told), LABELS, MASK, None)
        loss.backward()  # type: ignore[no-untyped-call]
        assert own.grad is not None
        assert bool(loss.isfinite())
        assert bool(own.grad.isfinite().all())


@pytest.mark.parametrize("objective", [CrossEntropy(), Focal()])
def test_texts_without_labels_teach_nothing(objective: Objective) -> None:
    logits = signals(0)["logits"].requires_grad_()
    weighted = objective.weighted([1.0, 2.0, 3.0])
    loss = weighted.loss(Outputs(logits), None, torch.full((4,), -100), MASK, None)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros(4, 3))


def from_labels(objective: Objective) -> Tensor:
    return objective.loss(Outputs(signals(0)["logits"]), None, LABELS, MASK, None)


def test_focal_loss_without_focus_is_cross_entropy() -> None:
    assert torch.allclose(from_labels(Focal(gamma=0.0)), from_labels(CrossEntropy()))


def test_the_more_focus_the_less_a_sure_answer_pulls() -> None:
    def pull(gamma: float, lead: float) -> float:
        logits = torch.tensor([[lead, 0.0, 0.0]], requires_grad=True)
        Focal(gamma=gamma).loss(Outputs(logits), None, torch.tensor([0]), MASK[:1], None).backward()  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        assert logits.grad[0, 0] < 0 < logits.grad[0, 1]
        return float(-logits.grad[0, 0])

    shares = [pull(gamma, 4.0) / pull(gamma, -1.0) for gamma in (0.0, 1.0, 2.0, 4.0)]
    assert shares == sorted(shares, reverse=True)
    assert shares[2] < 0.1 * shares[0]


def test_smoothing_gives_every_label_its_share() -> None:
    target = torch.full((3, 3), 0.3 / 3, dtype=torch.float64)
    target[range(3), [0, 2, 1]] += 0.7
    logits = signals(0)["logits"][:3]
    wanted = torch.nn.functional.cross_entropy(logits, target)
    assert torch.allclose(from_labels(CrossEntropy(smoothing=0.3)), wanted)


@pytest.mark.parametrize("objective", [CrossEntropy(smoothing=0.1), Focal(gamma=1.5)])
def test_factors_of_labels_count_each_text(objective: Objective) -> None:
    logits = signals(0)["logits"]
    alone = [
        float(objective.loss(Outputs(logits[[row]]), None, LABELS[[row]], MASK[[row]], None))
        for row in range(3)
    ]
    weights = [0.5, 2.0, 7.0]
    wanted = sum(weights[LABELS[row]] * alone[row] for row in range(3)) / 3
    assert float(from_labels(objective.weighted(weights))) == pytest.approx(wanted)
    assert torch.equal(from_labels(objective.weighted(())), from_labels(objective))
    assert float(from_labels(objective)) == pytest.approx(sum(alone) / 3)  # it has none itself
    assert KullbackLeibler().weighted(weights) == KullbackLeibler()


# Settings.


def test_the_schedule_moves_the_factor() -> None:
    def factors(**settings: Any) -> list[float]:
        term = CrossEntropy(weight=2.0, **settings)
        return [term.factor(progress) for progress in (0.0, 0.25, 0.5, 0.75, 0.99)]

    assert factors() == [2.0] * 5
    assert factors(since=0.5) == [0.0, 0.0, 2.0, 2.0, 2.0]
    assert factors(until=0.5) == [2.0, 2.0, 0.0, 0.0, 0.0]
    assert factors(schedule="falling") == pytest.approx([2.0, 1.5, 1.0, 0.5, 0.02])
    assert factors(schedule="rising", since=0.25, until=0.75) == [0.0, 0.0, 1.0, 0.0, 0.0]
    with pytest.raises(ValidationError, match=r"since=0\.5 has to be less than until=0\.5"):
        CrossEntropy(since=0.5, until=0.5)


LAYERWISE = [Hidden, Cosine, Attention, Relation, Contrast]


@pytest.mark.parametrize("cls", LAYERWISE)
def test_the_map_is_read_from_a_recipe_and_kept(cls: type[Objective]) -> None:
    entry = TypeAdapter(Annotated[Objective, *by_name(objectives)])
    (name,) = objectives.loaded(cls)
    read = entry.validate_python({"name": name, "map": [[1, 0], [0, 2]]})
    assert list(read.layers(PAIR)) == [(1, 0), (0, 2)]
    assert entry.validate_python(entry.dump_python(read)) == read
    assert [*entry.validate_python({"name": name, "map": "last"}).layers(PAIR)] == [(1, 3)]
    for wrong in ([], [[0]], [[0, "1"]], [0, 1], "0"):
        with pytest.raises(ValidationError):
            cls.model_validate({"map": wrong})


@pytest.mark.parametrize("cls", LAYERWISE)
@pytest.mark.parametrize("wrong", [(2, 0), (0, 4), (-1, 0), (0, -1)])
def test_a_map_to_a_layer_that_is_not_there_is_refused(
    cls: type[Objective], wrong: tuple[int, int]
) -> None:
    with pytest.raises(
        DistillError,
        match=f"student layer {wrong[0]} against teacher layer {wrong[1]}, but the student has "
        "layers 0 to 1 and the teacher 0 to 3",
    ):
        cls.model_validate({"map": [[0, 1], wrong]}).parts(pair(student_width=24, teacher_width=24))


def test_without_a_map_each_objective_has_its_own_choice() -> None:
    assert [*Hidden().layers(PAIR)] == [*Attention().layers(PAIR)] == [(0, 0), (1, 3)]
    for last in (Cosine(), Relation(), Contrast()):
        assert [*last.layers(PAIR)] == [(1, 3)]


def test_what_cannot_hold_is_refused_with_a_way_out() -> None:
    apart = pair(same_tokens=False)
    for objective in (Hidden(), Cosine(), Embeddings(), Attention(), Relation(heads=2)):
        with pytest.raises(DistillError, match=r"different tokenizers\. Put 'contrast'"):
            objective.parts(apart)
    assert Contrast().parts(apart) is None
    with pytest.raises(DistillError, match=r"2 attention heads and the teacher 4\. Put 'relation'"):
        Attention().parts(pair(teacher_heads=4))
    with pytest.raises(
        DistillError, match=r"12 and the teacher's width 8 into 12 heads.*1, 2, 4\."
    ):
        Relation().parts(pair(student_width=12))
    Relation(heads=4).parts(pair(student_width=12, teacher_heads=8))
    # Heads of a size of their own are not seen before a model runs.
    odd = tuple(torch.randn(4, 5, 6) for _ in range(2))
    with pytest.raises(DistillError, match="the width 6 of a layer's queries"):
        Relation(heads=4).loss(
            Outputs(LABELS, queries=odd), Signals(LABELS, queries=odd), LABELS, MASK, None
        )


def test_relation_compares_what_it_is_told_to() -> None:
    own, told = signals(0), signals(1)
    own["keys"] = tuple(torch.full_like(keys, torch.nan) for keys in own["keys"])

    def loss(*of: str) -> float:
        objective = Relation.model_validate({"heads": 2, "of": list(of)})
        return objective.loss(Outputs(**own), Signals(**told), LABELS, MASK, None).item()

    both = loss("queries", "values")
    assert both == pytest.approx((loss("queries") + loss("values")) / 2)
    assert math.isnan(loss("keys"))


# What models are asked for.

ALL: dict[str, Sequence[int]] = {
    "hidden": (0, 1),
    "embeddings": (),
    "attention": (1, 0),
    "queries": (1, 0),
    "keys": (1, 0),
    "values": (1, 0),
    "pooled": (1,),
}
BATCH = tiny.batch([text for text, _ in tiny.rows(6)])
#: What turns the mixed values into a layer's output: its input is attention times values.
OUTLETS = ("attention.output.dense", "out_lin", "attn.o", "Wo", "attn.c_proj", "o_proj")


def everything(model: Any) -> Outputs:
    return ask(model, BATCH, ALL, Outputs)  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_tells_the_same_things(tiny_backbone: Make, architecture: str) -> None:
    model = load_backbone(tiny_backbone(architecture), tiny.LABELS)
    mixed: list[Tensor] = []
    outlets = [
        module
        for name, module in model.base_model.named_modules()
        if name.endswith(OUTLETS) and "mlp" not in name
    ]
    for outlet in outlets[:2]:
        outlet.register_forward_pre_hook(lambda module, given: mixed.append(given[0]))
    with torch.no_grad():
        found = everything(model)
        last = model.base_model(**BATCH).last_hidden_state
    rows, length = BATCH["input_ids"].shape
    for name in ("hidden", "queries", "keys", "values"):
        assert [tuple(t.shape) for t in getattr(found, name)] == [(rows, length, 32)] * 2, name
    assert found.embeddings is not None
    assert found.embeddings.shape == last.shape
    seen = BATCH["attention_mask"].bool()
    for maps, values, given in zip(found.attention, found.values, mixed[1::-1], strict=True):
        assert maps.shape == (rows, 4, length, length)
        assert torch.allclose(maps.sum(-1), torch.ones(()), atol=1e-5)
        looks = maps * seen[:, None, :, None]
        assert looks.transpose(1, 3)[~seen].amax() < 1e-6  # no token looks at padding
        own = (maps @ in_heads(values)).transpose(1, 2).reshape(rows, length, 32)
        assert torch.allclose(own[seen], given.reshape(own.shape)[seen], atol=1e-5)
    for states, pooled in zip(found.hidden[1:], found.pooled, strict=True):
        means = [states[row, : seen[row].sum()].mean(0) for row in range(rows)]
        assert torch.allclose(pooled, torch.stack(means), atol=1e-5)


def in_heads(states: Tensor) -> Tensor:
    return states.view(*states.shape[:2], 4, 8).transpose(1, 2)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "electra", "gpt2"])
def test_queries_and_keys_make_the_attention(tiny_backbone: Make, architecture: str) -> None:
    model = load_backbone(tiny_backbone(architecture), tiny.LABELS)
    with torch.no_grad():
        found = everything(model)
    for maps, queries, keys in zip(found.attention, found.queries, found.keys, strict=True):
        scores = in_heads(queries) @ in_heads(keys).transpose(-1, -2) / math.sqrt(8)
        own = scores.masked_fill(maps == 0, -torch.inf).softmax(-1)
        seen = BATCH["attention_mask"].bool()
        assert torch.allclose(own.transpose(1, 2)[seen], maps.transpose(1, 2)[seen], atol=1e-5)


def test_bert_tells_what_its_modules_compute(tiny_backbone: Make) -> None:
    model = load_backbone(tiny_backbone("bert"), tiny.LABELS)
    bert = model.bert
    mask = torch.where(BATCH["attention_mask"].bool(), 0.0, -torch.inf)[:, None, None]
    with torch.no_grad():
        found = everything(model)
        states = [bert.embeddings(BATCH["input_ids"])]
        for layer in bert.encoder.layer[:2]:
            own = layer.attention.self
            queries, keys, values = (m(states[-1]) for m in (own.query, own.key, own.value))
            scores = in_heads(queries) @ in_heads(keys).transpose(-1, -2) / math.sqrt(8) + mask
            mixed = (scores.softmax(-1) @ in_heads(values)).transpose(1, 2).flatten(2)
            middle = layer.attention.output(mixed, states[-1])
            states.append(layer.output(layer.intermediate(middle), middle))
            place = 3 - len(states)  # layer 1 was asked for first, then layer 0
            wanted = (queries, keys, values, scores.softmax(-1))
            given = (found.queries, found.keys, found.values, found.attention)
            for one, other in zip(wanted, given, strict=True):
                assert torch.allclose(one, other[place], atol=1e-5)
    assert torch.allclose(states[0], found.embeddings, atol=1e-6)
    for one, other in zip(states[1:], found.hidden, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_deberta_tells_of_tokens_and_not_of_its_relative_positions(tiny_backbone: Make) -> None:
    model = load_backbone(tiny_backbone("deberta-v2"), tiny.LABELS)
    own = model.deberta.encoder.layer[1].attention.self
    with torch.no_grad():
        found = everything(model)
        assert torch.allclose(own.query_proj(found.hidden[0]), found.queries[0], atol=1e-6)
        assert torch.allclose(own.key_proj(found.hidden[0]), found.keys[0], atol=1e-6)


def test_keys_that_heads_share_are_repeated_for_each(tiny_backbone: Make) -> None:
    model = load_backbone(tiny_backbone("llama"), tiny.LABELS)
    assert model.config.num_key_value_heads == 2
    with torch.no_grad():
        keys = in_heads(everything(model).keys[0])
    assert torch.equal(keys[:, 0], keys[:, 1])
    assert torch.equal(keys[:, 2], keys[:, 3])
    assert not torch.equal(keys[:, 1], keys[:, 2])


def test_asking_leaves_no_trace_and_gradients_flow(tiny_backbone: Make) -> None:
    model = load_backbone(tiny_backbone("bert"), tiny.LABELS)
    found = everything(model)
    assert not any(module._forward_hooks for module in model.bert.encoder.layer.modules()
                   if isinstance(module, nn.Linear))  # fmt: skip
    for name, layers in ALL.items():
        told = getattr(found, name)
        total = sum(one.square().sum() for one in told) if layers else told.square().sum()
        (slope,) = torch.autograd.grad(
            total, model.bert.embeddings.word_embeddings.weight, retain_graph=True
        )
        assert bool(slope.any()), name


def test_what_an_architecture_does_not_tell_is_refused(tiny_backbone: Make) -> None:
    albert = load_backbone(tiny_backbone("albert"), tiny.LABELS)
    with pytest.raises(DistillError, match="no layers to take queries from"):
        ask(albert, BATCH, {"queries": (0,)}, Outputs)
    bert = load_backbone(tiny_backbone("bert"), tiny.LABELS)
    bert.set_attn_implementation("sdpa")
    with pytest.raises(DistillError, match="no attention maps unless"):
        ask(bert, BATCH, {"attention": (0,)}, Outputs)
    for layer in bert.bert.encoder.layer:
        layer.attention.self.query = nn.Sequential(layer.attention.self.query)
        layer.attention.self.questions = layer.attention.self._modules.pop("query")
    with pytest.raises(DistillError, match="no projection of queries that is known"):
        ask(bert, BATCH, {"queries": (0,)}, Outputs)


# The learner.

SEEN: list[tuple[Any, ...]] = []


class Spy(Objective):
    """Remembers what it is given."""

    needs: ClassVar[Any] = frozenset({"hidden", "embeddings"})

    pairs: tuple[tuple[int, int], ...]

    def layers(self, pair: Pair) -> Sequence[tuple[int, int]]:
        return self.pairs

    def loss(self, student: Any, teacher: Any, labels: Any, mask: Any, parts: Any) -> Any:
        SEEN.append((student, teacher, torch.is_autocast_enabled("cpu")))
        return student.hidden[0].square().mean()


def learner(tiny_backbone: Make, *terms: Objective, **changes: Any) -> Learner:
    """Return a tiny school: a student of 4 layers and a teacher of 4, as wide."""
    student, teacher = (
        load_backbone(tiny_backbone("bert"), tiny.LABELS, seed=seed) for seed in (0, 1)
    )
    for module in (*student.modules(), *teacher.modules()):
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    teacher.bert.encoder.layer[0].output.dense.weight.data.mul_(3.0)
    sizes = {"student_width": 32, "teacher_width": 32, "student_heads": 4, "teacher_heads": 4}
    facts = pair(layer_map=(0, 1, 2, 3), **sizes)
    wants = asked(terms, facts)[1]
    live = LiveTeacher(teacher, tiny.tokenizer(), tiny.LABELS, max_length=16, wants=wants)
    return Learner(student, terms, changes.get("teacher", live), facts).train()


INPUTS = {**BATCH, "labels": torch.tensor([0, 1, 2, 0, -100, 2]), "texts": ["…"] * 6}


def test_each_objective_gets_its_own_layers_in_its_order(tiny_backbone: Make) -> None:
    SEEN.clear()
    maps = (((0, 3),), ((2, 0), (0, 1), (2, 3)))
    school = learner(tiny_backbone, *(Spy(pairs=pairs) for pairs in maps), Attention())
    school(**INPUTS)
    whole = [
        ask(model, BATCH, {"hidden": range(4), "embeddings": ()}, Outputs)
        for model in (school.student, school.teacher.model)  # type: ignore[union-attr]
    ]
    assert len(SEEN) == 2
    for pairs, (*answers, _) in zip(maps, SEEN, strict=True):
        for side, (answer, one) in enumerate(zip(answers, whole, strict=True)):
            assert torch.equal(answer.embeddings, one.embeddings)
            assert answer.attention == ()  # it did not ask for any
            for layers, states in zip(pairs, answer.hidden, strict=True):
                assert torch.equal(states, one.hidden[layers[side]])


def test_progress_moves_the_weights(tiny_backbone: Make) -> None:
    school = learner(
        tiny_backbone,
        Hidden(until=0.5, weight=2.0),
        KullbackLeibler(since=0.5, schedule="rising"),
        CrossEntropy(schedule="falling"),
    )

    def at(progress: float) -> float:
        school.progress = progress
        return float(school(**INPUTS)["loss"].detach())

    hidden, kl, ce = (
        float(learner(tiny_backbone, term)(**INPUTS)["loss"].detach())
        for term in (Hidden(), KullbackLeibler(), CrossEntropy())
    )
    assert min(hidden, kl, ce) > 0
    assert at(0.0) == pytest.approx(2 * hidden + ce, rel=1e-5)
    assert at(0.25) == pytest.approx(2 * hidden + 0.75 * ce, rel=1e-5)
    assert at(0.75) == pytest.approx(0.5 * kl + 0.25 * ce, rel=1e-5)


def test_the_teacher_rests_while_nobody_needs_it(tiny_backbone: Make) -> None:
    school = learner(tiny_backbone, CrossEntropy(), KullbackLeibler(since=0.5))
    asks: list[int] = []
    school.teacher.model.register_forward_hook(lambda *_: asks.append(1))  # type: ignore[union-attr]
    for progress, count in ((0.0, 0), (0.49, 0), (0.5, 1)):
        school.progress = progress
        school(**INPUTS)["loss"].backward()
        assert len(asks) == count
    # Where no term counts the loss is 0 and backward still works.
    idle = learner(tiny_backbone, CrossEntropy(until=0.5))
    idle.progress = 0.5
    idle(**INPUTS)["loss"].backward()
    assert idle.student.classifier.weight.grad.abs().max() == 0


@pytest.mark.parametrize("half", ["autocast", "weights"])
def test_losses_are_computed_in_float32(tiny_backbone: Make, half: str) -> None:
    terms = [objective for objective, _ in CASES]
    whole = learner(tiny_backbone, *terms)(**INPUTS)["loss"]
    SEEN.clear()
    school = learner(tiny_backbone, *terms, Spy(pairs=((0, 0),), weight=1e-6))
    if half == "weights":
        school.student.to(torch.bfloat16)
        school.teacher.model.to(torch.bfloat16)  # type: ignore[union-attr]
    with torch.autocast("cpu", torch.bfloat16, enabled=half == "autocast"):
        loss = school(**INPUTS)["loss"]
    loss.backward()
    ((student, teacher, autocast),) = SEEN
    for answer in (student, teacher):
        assert {answer.logits.dtype, answer.hidden[0].dtype, answer.embeddings.dtype} == {
            torch.float32
        }
    assert not autocast
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(whole.item(), rel=0.1)
    slopes = [weight.grad for weight in school.student.parameters() if weight.grad is not None]
    assert all(bool(slope.isfinite().all()) for slope in slopes)


def test_what_cannot_work_is_refused_before_training(tiny_backbone: Make) -> None:
    with pytest.raises(DistillError, match="need a teacher's logits"):
        learner(tiny_backbone, KullbackLeibler(), teacher=None)
    live = learner(tiny_backbone, Hidden(map=((0, 1),))).teacher
    with pytest.raises(DistillError, match=r"compare hidden of the teacher's layers \[0, 2, 3\]"):
        learner(tiny_backbone, Hidden(), teacher=live)
    with pytest.raises(DistillError, match="compare embeddings"):
        learner(tiny_backbone, Embeddings(), teacher=live)


@pytest.mark.parametrize("form", ["several", "numbers"])
def test_labels_of_other_forms(form: str) -> None:
    """Cross-entropy and divergence by what the labels are; a text without labels does not count."""
    chance = torch.Generator().manual_seed(0)
    shape = (4, 3) if form == "several" else (4, 1)
    own, other = (torch.randn(shape, generator=chance, dtype=torch.float64) for _ in range(2))
    mask = torch.ones(4, 2)
    if form == "several":
        labels = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [-100, -100, -100]])
        shares = own[:3].sigmoid()
        right = torch.where(labels[:3] == 1, shares, 1 - shares)
        expected, kind = -right.log().mean(), Sigmoid(temperature=2.0)
    else:
        labels = torch.tensor([0.5, -1.0, 2.0, math.nan], dtype=torch.float64)
        expected, kind = ((own[:3, 0] - labels[:3]) ** 2).mean(), SquaredLogits()
    found = CrossEntropy().loss(Outputs(own), None, labels, mask, None)
    assert float(found) == pytest.approx(float(expected))
    taught = KullbackLeibler(temperature=2.0).loss(Outputs(own), Signals(other), labels, mask, None)
    same = kind.loss(Outputs(own), Signals(other), labels, mask, None)
    assert float(taught) == pytest.approx(float(same))


def test_a_teacher_that_errs_is_passed_over_label_by_label() -> None:
    own, told = torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 4.0]])
    mask, labels = torch.ones(1, 2), torch.tensor([[1, 0]])  # the second answer is wrong
    objective = Conditional(temperature=1.0)

    def loss(labels: Tensor, objective: Conditional = objective) -> float:
        return float(objective.loss(Outputs(own), Signals(told), labels, mask, None))

    each = [
        Sigmoid(temperature=1.0).loss(
            Outputs(own[:, n:][:, :1]), Signals(told[:, n:][:, :1]), labels, mask, None
        )
        for n in range(2)
    ]
    wrong = -torch.sigmoid(-own[0, 1]).log()
    assert loss(labels) == pytest.approx(float(each[0] + wrong) / 2)
    assert loss(torch.full((1, 2), -100)) == pytest.approx(float(sum(each)) / 2)
    # Having the first label counts three times; a text without labels counts as it is.
    heavy = objective.weighted([3.0, 5.0])
    assert loss(labels, heavy) == pytest.approx(float(3 * each[0] + wrong) / 2)
    assert loss(torch.full((1, 2), -100), heavy) == pytest.approx(float(sum(each)) / 2)
