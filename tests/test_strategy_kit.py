"""The conformance kit for strategies: each check finds its defects."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from pydantic import ConfigDict, PrivateAttr
from torch import nn
from transformers import TrainerCallback

from adapters import AdapterError, Strategy, strategies
from adapters.backbone import encoder_parts
from adapters.errors import UnsuitableBackboneError
from adapters.testing import ConformanceError, check_strategy, main
from adapters.testing_checks import CHECKS

#: The checks that need no training of their own, and so take next to no time after `learns`.
CHEAP = ("learns", "reloads", "finishes", "pads", "continues")
TRUE_CHANCE = random.SystemRandom()


class Offset(Strategy):
    """Learnt offsets behind each feed-forward part: keeps the contract."""

    start: float = 0.0

    def prepare(self, model: Any) -> Any:
        for layer in ends(model):
            layer.offset = nn.Parameter(torch.full((32,), self.start))
            layer.taken = layer.register_forward_hook(self.add)
            self.more(layer)
        return model

    def more(self, layer: Any) -> None:
        """What a defect adds to a layer."""

    @staticmethod
    def add(layer: Any, inputs: Any, output: Any) -> Any:
        return output + layer.offset

    def finish(self, model: Any) -> Any:
        for layer in ends(model):
            layer.bias.data += layer.offset.data
            layer.taken.remove()
            del layer.offset, layer.taken
        return model


class Stays(Offset):
    """Offsets that stay in the model: keeps the contract."""

    adds_layers: ClassVar[bool] = True

    def finish(self, model: Any) -> Any:
        return model


def ends(model: Any) -> list[Any]:
    return [model.get_submodule(part.feed_forward_end) for part in encoder_parts(model)]


class Each(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Calls a function with the number of steps that it has seen itself."""

    def __init__(self, function: Callable[[int], None]) -> None:
        self.function, self.seen = function, 0

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seen += 1
        self.function(self.seen)


DEFECTS: list[tuple[str, type]] = []


def defect(check: str) -> Callable[[type], type]:
    """Say which check has to find it."""

    def decorate(cls: type) -> type:
        # A docstring is part of the contract, and here not what is tried.
        if cls.__doc__ is None and cls.__name__ != "Undocumented":
            cls.__doc__ = "Has a defect."
        DEFECTS.append((check, cls))
        return cls

    return decorate


@defect("fields")
class Undocumented(Offset):
    pass


@defect("fields")
class DerivesFromNothing:
    pass


@defect("fields")
class TakesAnyField(Offset):
    model_config = ConfigDict(extra="allow")


@defect("fields")
class TakesTextForNumbers(Offset):
    model_config = ConfigDict(strict=False)


@defect("fields")
class FieldThatNoFileGivesBack(Offset):
    layers: tuple[int, ...] = (0, 1)


@defect("fields")
class FieldWithoutDefault(Offset):
    rank: int


@defect("fits")
class RefusesEverything(Offset):
    def prepare(self, model: Any) -> Any:
        raise UnsuitableBackboneError("There is nothing to adapt.")


@defect("learns")
class ReturnsNothing(Offset):
    def prepare(self, model: Any) -> Any:
        super().prepare(model)


@defect("learns")
class TripsInPrepare(Offset):
    def prepare(self, model: Any) -> Any:
        return model.no_such_part


@defect("learns")
class ReplacesTheHead(Offset):
    def prepare(self, model: Any) -> Any:
        model.classifier = nn.Linear(32, 3)
        return super().prepare(model)


@defect("learns")
class LetsPeftTakeTheHead(Offset):
    def prepare(self, model: Any) -> Any:
        from peft import LoraConfig, get_peft_model

        return get_peft_model(model, LoraConfig(task_type="SEQ_CLS"))


@defect("learns")
class ChangesLabels(Offset):
    def prepare(self, model: Any) -> Any:
        model.config.id2label = {0: "a", 1: "b", 2: "c"}
        return super().prepare(model)


@defect("learns")
class LearnsNothing(Offset):
    def prepare(self, model: Any) -> Any:
        return super().prepare(model).requires_grad_(False)


@defect("learns")
class LearnsWhatNothingUses(Offset):
    @staticmethod
    def add(layer: Any, inputs: Any, output: Any) -> Any:
        return output


@defect("learns")
class CutsTheGradient(Offset):
    @staticmethod
    def add(layer: Any, inputs: Any, output: Any) -> Any:
        return output + layer.offset.detach()


@defect("learns")
class SaysThatOnlyTheHeadLearns(Offset):
    trains_head_only: ClassVar[bool] = True


@defect("learns")
class WritesToFrozenWeights(Offset):
    def callbacks(self, model: Any) -> Any:
        norm = model.bert.embeddings.LayerNorm
        return [Each(lambda step: norm.weight.data.mul_(0.99))]


@defect("learns")
class UnfreezesWhatItDidNotDeclare(Offset):
    def callbacks(self, model: Any) -> Any:
        return [Each(lambda step: model.requires_grad_(True))]


@defect("learns")
class GroupsWithoutTheHead(Offset):
    def parameter_groups(self, model: Any, learning_rate: float) -> Any:
        return [{"params": [layer.offset for layer in ends(model)], "lr": learning_rate}]


@defect("learns")
class PenaltyOfTheWrongSign(Offset):
    def penalty(self, model: Any, memory: Any) -> Any:
        return -1000 * sum((p**2).sum() for p in model.parameters() if p.requires_grad)


@defect("reloads")
class KeepsStateInAnAttribute(Offset):
    def more(self, layer: Any) -> None:
        layer.factor = 1.0

    def callbacks(self, model: Any) -> Any:
        return [Each(lambda step: [setattr(x, "factor", 1 + step / 10) for x in ends(model)])]

    @staticmethod
    def add(layer: Any, inputs: Any, output: Any) -> Any:
        return output + layer.offset * layer.factor


@defect("reloads")
class KeepsStateInABufferThatIsNotSaved(Offset):
    def more(self, layer: Any) -> None:
        layer.register_buffer("factor", torch.rand(32), persistent=False)

    @staticmethod
    def add(layer: Any, inputs: Any, output: Any) -> Any:
        return output + layer.offset * layer.factor


@defect("reloads")
class KeepsStateInItself(Offset):
    _factor: list[float] = PrivateAttr(default_factory=lambda: [1.0])

    def callbacks(self, model: Any) -> Any:
        return [Each(lambda step: self._factor.append(1 + step / 10))]

    def more(self, layer: Any) -> None:
        layer.taken.remove()
        layer.taken = layer.register_forward_hook(
            lambda layer, inputs, output: output + layer.offset * self._factor[-1]
        )


@defect("finishes")
class ForgetsTheScaling(Offset):
    @staticmethod
    def add(layer: Any, inputs: Any, output: Any) -> Any:
        return output + 0.5 * layer.offset


@defect("finishes")
class LeavesItsHooks(Offset):
    def more(self, layer: Any) -> None:
        layer.register_forward_pre_hook(lambda layer, inputs: None)


@defect("finishes")
class LeavesAHookOfGradients(Offset):
    def more(self, layer: Any) -> None:
        layer.register_full_backward_hook(lambda layer, inputs, outputs: None)


@defect("finishes")
class LeavesItsForward(Offset):
    def more(self, layer: Any) -> None:
        layer.forward = layer.forward


@defect("finishes")
class LeavesAParameter(Offset):
    def finish(self, model: Any) -> Any:
        for layer in ends(model):
            layer.bias.data += layer.offset.data
            layer.offset.data.zero_()
            layer.taken.remove()
        return model


@defect("finishes")
class LeavesABuffer(Offset):
    def more(self, layer: Any) -> None:
        layer.register_buffer("counted", torch.zeros(1))


@defect("finishes")
class LeavesItsConfiguration(Offset):
    def prepare(self, model: Any) -> Any:
        model.config.my_method = "offset"
        return super().prepare(model)


@defect("finishes")
class LeavesItsDropout(Stays):
    def prepare(self, model: Any) -> Any:
        model.dropout.p = 0.5
        return super().prepare(model)


@defect("finishes")
class LeavesATensorAside(Offset):
    def more(self, layer: Any) -> None:
        layer.seen = [torch.zeros(1)]


@defect("finishes")
class LeavesAModule(Offset):
    def more(self, layer: Any) -> None:
        layer.helper = nn.Identity()


@defect("finishes")
class LeavesAWrapper(Offset):
    def finish(self, model: Any) -> Any:
        model = super().finish(model)
        part = model.bert.encoder.layer[0].output
        part.dense = nn.Sequential(part.dense)
        return model


@defect("finishes")
class FinishesWithNothing(Offset):
    def finish(self, model: Any) -> Any:
        super().finish(model)


@defect("finishes")
class ChangesLabelsAtTheEnd(Offset):
    def finish(self, model: Any) -> Any:
        model.config.id2label = {0: "a", 1: "b", 2: "c"}
        return super().finish(model)


@defect("finishes")
class AddsLayersThatPrepareDoesNotPutBack(Stays):
    def finish(self, model: Any) -> Any:
        for layer in ends(model):
            layer.further = nn.Parameter(layer.offset.data)
            layer.offset.data = torch.zeros(32)
            layer.register_forward_hook(lambda layer, inputs, output: output + layer.further)
        return model


@defect("copies")
class ReachesItsLayerByAClosure(Stays):
    def more(self, layer: Any) -> None:
        layer.taken.remove()
        layer.register_forward_hook(lambda _, inputs, output: output + layer.offset)


@defect("copies")
class CutsTheGradientAtTheEnd(Stays):
    def finish(self, model: Any) -> Any:
        for layer in ends(model):
            layer.taken.remove()
            layer.register_forward_hook(CutsTheGradient.add)
        return model


@defect("copies")
class CountsOnTwoLayers(Stays):
    def prepare(self, model: Any) -> Any:
        assert len(ends(model)) == 2, "There are no two layers."
        return super().prepare(model)


@defect("copies")
class AddsToTheLastLayerOnly(Stays):
    def prepare(self, model: Any) -> Any:
        layer = ends(model)[-1]
        layer.offset = nn.Parameter(torch.linspace(-1, 1, 32))
        layer.register_forward_hook(self.add)
        return model


@defect("pads")
class UsesTheWholeBatch(Stays):
    @staticmethod
    def add(layer: Any, inputs: Any, output: Any) -> Any:
        return output + layer.offset - 0.1 * output.mean((0, 1))


@defect("repeats")
class DrawsItsStartElsewhere(Offset):
    def more(self, layer: Any) -> None:
        layer.offset.data = torch.tensor([TRUE_CHANCE.gauss(0, 0.1) for _ in range(32)])


@defect("repeats")
class DrawsFrozenWeightsElsewhere(Offset):
    def more(self, layer: Any) -> None:
        layer.register_buffer("fixed", torch.tensor([TRUE_CHANCE.random() for _ in range(32)]))

    @staticmethod
    def add(layer: Any, inputs: Any, output: Any) -> Any:
        return output + layer.offset * layer.fixed

    def finish(self, model: Any) -> Any:
        for layer in ends(model):
            layer.offset.data *= layer.fixed
            del layer.fixed
        return super().finish(model)


@defect("resumes")
class CallbackThatForgetsItsCount(Offset):
    def callbacks(self, model: Any) -> Any:
        return [Each(lambda step: [x.offset.data.mul_(1 - step / 100) for x in ends(model)])]


@defect("resumes")
class KeepsRunningStatistics(Offset):
    def more(self, layer: Any) -> None:
        layer.register_buffer("mean", torch.zeros(32))

    @staticmethod
    def add(layer: Any, inputs: Any, output: Any) -> Any:
        if layer.training:
            layer.mean.lerp_(output.detach().mean((0, 1)), 0.02)
        return output + layer.offset - layer.mean

    def finish(self, model: Any) -> Any:
        for layer in ends(model):
            layer.offset.data -= layer.mean
            del layer.mean
        return super().finish(model)


@defect("works_quantized")
class CountsOnFloatWeights(Offset):
    def more(self, layer: Any) -> None:
        layer.offset.data = 0.1 * layer.weight.data.mean(1)


@defect("works_quantized")
class LearnsBesideFloatWeightsOnly(Offset):
    @staticmethod
    def add(layer: Any, inputs: Any, output: Any) -> Any:
        return output + layer.offset if layer.weight.is_floating_point() else output


class Remembers(Offset):
    """Keeps the offsets of earlier tasks in the biases: keeps the contract."""

    fresh_for_each_task: ClassVar[bool] = True

    def between_tasks(self, model: Any, losses: Any, memory: Any) -> Any:
        earlier = [memory.get(f"{i}", 0) for i in range(len(ends(model)))]
        return {f"{i}": x.offset.data + earlier[i] for i, x in enumerate(ends(model))}

    def recall(self, model: Any, memory: Any) -> None:
        for i, layer in enumerate(ends(model)):
            layer.bias.data += memory[f"{i}"]


@defect("continues")
class RecallsTwice(Remembers):
    fresh_for_each_task: ClassVar[bool] = False


@defect("continues")
class RemembersTheLastTaskOnly(Remembers):
    def between_tasks(self, model: Any, losses: Any, memory: Any) -> Any:
        return super().between_tasks(model, losses, {})


@defect("continues")
class RemembersNothing(Remembers):
    def between_tasks(self, model: Any, losses: Any, memory: Any) -> Any:
        return {}


@defect("continues")
class RecallsWithoutItsMemory(Remembers):
    _kept: ClassVar[list[Any]] = []

    def between_tasks(self, model: Any, losses: Any, memory: Any) -> Any:
        self._kept[:] = super().between_tasks(model, losses, memory).values()
        return {"count": torch.ones(1)}

    def recall(self, model: Any, memory: Any) -> None:
        for layer in ends(model):
            if self._kept:
                layer.bias.data += self._kept.pop(0)


@defect("continues")
class RehearsesRowsThatAreNotThere(Offset):
    def rehearse(self, past: Any, new: Any, total: int, seed: int) -> Sequence[int]:
        return [len(past)]


@defect("continues")
class RehearsesByChance(Offset):
    def rehearse(self, past: Any, new: Any, total: int, seed: int) -> Sequence[int]:
        return TRUE_CHANCE.sample(range(len(past)), len(past))


@defect("continues")
class PenaltyWithoutANumber(Remembers):
    def penalty(self, model: Any, memory: Any) -> Any:
        return torch.zeros(()) / 0 if memory else None


@defect("exports")
class CountsTheBatch(Stays):
    @staticmethod
    def add(layer: Any, inputs: Any, output: Any) -> Any:
        return torch.stack([row + layer.offset for row in output])


@pytest.mark.parametrize(("check", "cls"), DEFECTS, ids=lambda x: getattr(x, "__name__", x))
def test_each_defect_is_found_by_its_check(check: str, cls: Any) -> None:
    # Its check, and others before and after it: these must not be what fails.
    checks = [name for name in CHECKS if name in CHEAP or name == check]
    with pytest.raises(ConformanceError) as caught:
        check_strategy(cls, architectures=["bert"], checks=checks)
    assert caught.value.check == check, str(caught.value)
    assert cls.__name__ in str(caught.value)


def test_no_check_is_without_a_defect() -> None:
    assert {check for check, _ in DEFECTS} == {*CHECKS, "fields", "fits"}


SOUND = (Offset, Stays, Remembers)


def sound_part(planted: type) -> type | None:
    """Return the class that a defect is planted in."""
    return next((cls for cls in planted.__mro__ if cls in SOUND), None)


@pytest.mark.parametrize("cls", SOUND, ids=lambda cls: cls.__name__)
def test_what_the_defects_are_planted_in_passes(cls: Any) -> None:
    """Pass what its defects break; exporting takes the longest, and is tried with built-in ones."""
    broken = {check for check, planted in DEFECTS if sound_part(planted) is cls}
    checks = [name for name in CHECKS if name in broken and name != "exports"]
    assert check_strategy(cls, architectures=["bert"], checks=checks, start=0.1) == {}


def test_the_cause_travels_with_the_fault() -> None:
    with pytest.raises(ConformanceError) as caught:
        check_strategy(TripsInPrepare, architectures=["bert"])
    assert isinstance(caught.value.__cause__, AttributeError)
    assert caught.value.architecture == "bert"


def test_all_that_finish_leaves_is_named_at_once() -> None:
    class LeavesMuch(Offset):
        """Has several defects."""

        def prepare(self, model: Any) -> Any:
            model.config.update({"hidden_dropout_prob": 0.7, "my_method": "x"})
            model.dropout.p = 0.7
            return super().prepare(model)

        def more(self, layer: Any) -> None:
            layer.seen = torch.zeros(1)

    with pytest.raises(ConformanceError) as caught:
        check_strategy(LeavesMuch, architectures=["bert"], checks=["finishes"])
    assert (
        "finish() leaves hidden_dropout_prob=0.7, my_method='x' in the model's config; set it "
        "back, and the dropouts dropout=0.7; set them back, and the tensors "
        "bert.encoder.layer.0.output.dense.seen, bert.encoder.layer.1.output.dense.seen; remove "
        "them."
    ) in str(caught.value)


def test_a_hook_that_closes_over_its_layer_is_told_how_to_reach_it() -> None:
    with pytest.raises(ConformanceError, match="not through a closure"):
        check_strategy(ReachesItsLayerByAClosure, architectures=["bert"], checks=["copies"])


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"checks": ["lerns"]}, "There are no checks ['lerns']; there are learns, reloads"),
        ({"checks": "learns"}, "checks='learns' is no list; pass checks=['learns']"),
        ({"architectures": ["brt"]}, "There are no architectures ['brt']; there are bert, roberta"),
        ({"architectures": "bert"}, "architectures='bert' is no list; pass architectures=['bert']"),
        ({"device": "gpu"}, "There is no device 'gpu'; there are cpu, cuda."),
        ({"strt": 1.0}, "made with the fields {'strt': 1.0}: unknown key 'strt': did you mean"),
    ],
)
def test_what_is_not_there_is_refused(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(AdapterError, match=re.escape(told)):
        check_strategy(Offset, **asked)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (Offset(start=1.0), "Pass the class and its fields: check_strategy(Offset, start=1.0)."),
        (Offset(), "Pass the class and its fields: check_strategy(Offset)."),
        ("lora", "Pass the class and its fields: check_strategy(strategies.get('lora'))."),
        (None, "None is no strategy's class."),
    ],
)
def test_what_is_no_class_is_refused(given: Any, told: str) -> None:
    with pytest.raises(AdapterError, match=re.escape(told)):
        check_strategy(given)


def test_a_field_may_have_the_name_of_an_argument() -> None:
    class Named(Offset):
        """Keeps the contract."""

        cls: int = 1

    assert check_strategy(Named, architectures=["bert"], checks=[], cls=2) == {}


def test_an_architecture_without_biases_is_refused_and_the_command_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = check_strategy(
        strategies.get("bitfit"), architectures=["llama", "bert"], checks=["reloads"]
    )
    assert list(told) == ["llama"]
    assert "no biases" in told["llama"]
    assert main(["bitfit", "--architectures", "modernbert", "--checks", "learns"]) == 0
    assert "refused: The encoder of ModernBert" in capsys.readouterr().out


def test_the_command_checks_what_a_plugin_registers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "norms.py"
    file.write_text(
        "from adapters import strategies\n"
        "from adapters.builtin.weights import Norms\n"
        "@strategies.register('my_norms')\n"
        "class MyNorms(Norms):\n"
        "    'What norms learns.'\n"
    )
    given = ["--plugin", str(file), "--architectures", "bert", "--checks", "finishes"]
    assert main(given) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("my_norms")
    assert line.endswith("passes")
    assert main(["my_norms", *given]) == 0
    assert main(["--plugin", str(tmp_path / "none.py")]) == 3
    assert "There is no plug-in file" in capsys.readouterr().err
    (tmp_path / "forgot.py").write_text("x = 1\n")
    assert main(["--plugin", str(tmp_path / "forgot.py")]) == 3
    assert "registers no strategy" in capsys.readouterr().err
    assert main(["lorra"]) == main(["lora", "--checks", "learnz"]) == 3
    assert "'lorra'" in (said := capsys.readouterr().err)
    assert "no checks ['learnz']" in said


def test_the_command_checks_what_an_installed_plugin_offers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(strategies, "_entries", dict(strategies._entries))
    (tmp_path / "offers_broken.py").write_text(
        "from adapters.strategy import Strategy\n"
        "class Broken(Strategy):\n"
        "    'Returns nothing.'\n"
        "    def prepare(self, model): pass\n"
        "    def finish(self, model): pass\n"
    )
    facts = tmp_path / "offers_broken-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: offers_broken\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(
        "[potstill.strategies]\nbroken = offers_broken:Broken\n"
    )
    assert main(["--plugin", "offers_broken", "--architectures", "bert"]) == 1
    assert "returned NoneType" in capsys.readouterr().out


def test_a_method_of_peft_that_knows_no_such_layers_is_refused() -> None:
    with pytest.raises(ConformanceError, match="peft's OFT cannot adapt GPT2") as caught:
        check_strategy(
            strategies.get("peft"), architectures=["gpt2"], checks=["learns"], method="OFT"
        )
    assert caught.value.check == "fits"


@pytest.mark.parametrize(
    ("architecture", "fields"),
    [
        ("bert", {"task_type": "SEQ_CLS"}),
        ("bert", {"modules_to_save": ["classifier"]}),
        ("roberta", {"modules_to_save": ["out_proj"]}),
        ("gpt2", {"modules_to_save": ["score"]}),
    ],
)
def test_the_head_is_not_for_peft_to_save(architecture: str, fields: dict[str, Any]) -> None:
    with pytest.raises(AdapterError, match="head to Potstill, which trains and saves it"):
        check_strategy(
            strategies.get("peft"),
            architectures=[architecture],
            checks=["learns"],
            method="LORA",
            **fields,
        )


def test_the_command_tells_what_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapters import testing

    monkeypatch.setitem(testing.EXAMPLES, "lora", {"rank": 0})
    assert main(["lora", "--architectures", "bert", "llama"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["lora", "bert"], ["lora", "llama"]]
    assert all("'fields'" in line for line in lines)
