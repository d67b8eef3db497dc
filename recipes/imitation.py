"""The stage before the task: a student learns to compute what a larger encoder computes.

It needs plain text only. What it leaves depends on the parent, the student's first weights, the
texts and the settings; it is kept in the cache under a hash of all of them, so that it is learnt
once.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from adapters.backbone import head_modules
from distill import LiveTeacher, Objective, Pair
from distill.learner import Learner
from distill.live import reading
from distill.objective import asked
from distill.students import layer_stack
from recipes import long_text
from recipes.assets.wheels import cache_folder
from recipes.console import is_main, say
from recipes.distributed import wait
from recipes.students import Start, pair_of
from recipes.tasks import Split
from recipes.texts import plain_texts
from recipes.training import fit, set_dropout
from recipes.workspace import Workspace

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_WEIGHTS, _FACTS = "encoder.safetensors", "facts.json"


@dataclass(frozen=True)
class Imitated:
    """What the stage leaves.

    Attributes:
        student: The student, with the head that it had before.
        texts: How many texts were read, repetitions counted.
        tokens: Training tokens in them, over all epochs.
        seconds: What the learning took, in whichever run it was done.
    """

    student: PreTrainedModel
    texts: int
    tokens: int
    seconds: float


@dataclass(frozen=True)
class _Kept:
    """What is in a folder of the cache."""

    weights: dict[str, Tensor]
    tokens: int
    seconds: float


def imitate(work: Workspace, start: Start, teacher: PreTrainedModel) -> Imitated:
    """Let a student imitate its parent on plain text, or fetch what an earlier run has learnt.

    Args:
        work: The run, whose recipe has the section ``distill.imitate``.
        start: From `recipes.students.make`.
        teacher: The teacher as plain weights.
    """
    settings = work.recipe.distill.imitate
    assert settings is not None
    parent = teacher if settings.parent == "teacher" else work.load(path=start.origin)
    student = copy.deepcopy(start.student if settings.parent == "teacher" else start.alone)
    texts = plain_texts(work, settings.text, settings.rows) + settings.own * [
        *work.rows.train.texts
    ]
    pair = imitation_pair(work, start)
    live = LiveTeacher(
        parent,
        work.tokenizer if settings.parent == "teacher" else start.tokenizer,
        list(parent.config.id2label.values()),
        max_length=work.max_length,
        wants=asked(settings.objectives, pair)[1],
        same_tokens=pair.same_tokens,
        reading=long_text.reading(work.recipe.data.long, work.max_length, work.task.pairs),
        bf16=work.hardware.bf16_for(settings.train.precision, work.recipe.allow_fallback),
    )
    folder = cache_folder() / "imitations" / _key(work, parent, student, start.tokenizer, texts)
    kept = _kept(folder)
    wait()
    if kept is None:
        # A copy learns, so that dropout and the like are the same as if it had been learnt before.
        learner = Learner(copy.deepcopy(student), settings.objectives, live, pair)
        _learn(work, learner, start, texts, folder)
        wait()
        kept = _kept(folder)
        assert kept is not None
    else:
        say(f"  imitation: learnt before, in {kept.seconds:.0f} s, and kept in {folder}")
    student.load_state_dict(kept.weights, strict=False)
    return Imitated(student, len(texts), kept.tokens, kept.seconds)


def imitation_pair(work: Workspace, start: Start) -> Pair:
    """Return the facts about the student and whom it imitates."""
    settings = work.recipe.distill.imitate
    assert settings is not None
    if settings.parent == "teacher":
        return start.pair
    return pair_of(start.alone, work.load(path=start.origin), start.kept, same_tokens=True)


def _learn(
    work: Workspace, learner: Learner, start: Start, texts: Sequence[str], folder: Path
) -> None:
    """Train the student's layers and keep them."""
    from safetensors.torch import save_file

    recipe, settings, begun = work.recipe, work.recipe.distill.imitate, time.perf_counter()
    assert settings is not None
    say(f"  imitation of the {settings.parent} on {len(texts):,} texts")
    set_dropout(learner.student, settings.train.dropout)
    learner.student.requires_grad_(False)
    layer_stack(learner.student).requires_grad_(True)
    unlabelled = Split(texts, [work.problem.unlabelled] * len(texts))
    examples = work.task.features(unlabelled, start.tokenizer, work.max_length)
    own = work.folder / "imitation"
    fit(
        learner,
        examples,
        (),
        title="imitation",
        folder=own / "checkpoints",
        settings=settings.train,
        problem=work.problem,
        collate=work.task.collator(start.tokenizer),
        hardware=work.hardware,
        allow_fallback=recipe.allow_fallback,
        seed=recipe.seed,
    )
    if not is_main():
        return
    tokens = settings.train.epochs * sum(map(long_text.drawn_tokens, examples))
    facts = {"seconds": time.perf_counter() - begun, "tokens": tokens}
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(mkdtemp(dir=folder.parent, prefix=".", suffix=".tmp"))
    save_file(_layers(learner.student), made / _WEIGHTS)
    (made / _FACTS).write_text(json.dumps(facts, indent=2), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    made.rename(folder)
    shutil.rmtree(own, ignore_errors=True)


def _kept(folder: Path) -> _Kept | None:
    """Return what an earlier run has left; None if there is nothing, or nothing whole."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        return _Kept(load_file(folder / _WEIGHTS), facts["tokens"], facts["seconds"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None


def _layers(student: nn.Module) -> dict[str, Tensor]:
    """Return what has learnt."""
    return {n: p.detach().contiguous() for n, p in student.named_parameters() if p.requires_grad}


def _key(
    work: Workspace,
    parent: PreTrainedModel,
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
) -> str:
    """Return a name for what comes out, by everything that goes in; the heads do not.

    So what has been learnt from the same texts is found again for other labels. The training texts
    are among them, unless ``own`` is 0: then one imitation serves every task.
    """
    recipe = work.recipe
    assert recipe.distill.imitate is not None
    settings = recipe.distill.imitate
    facts = [
        settings.model_dump(mode="json"),
        [_source(type(objective)) for objective in settings.objectives],
        work.hardware.bf16_for(settings.train.precision, recipe.allow_fallback),
        recipe.seed,
        work.max_length,
        *([recipe.data.long.model_dump()] if recipe.data.long.way != "head" else []),
        reading(tokenizer),
        list(texts),
    ]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for model in (parent, student):
        heads = tuple(head_modules(model))
        for name, tensor in sorted(model.state_dict().items()):
            if not f"{name}.".startswith(tuple(f"{head}." for head in heads)):
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _source(cls: type[Objective]) -> list[str]:
    """Return the sources of a class and its bases, so that an edited plug-in learns anew."""

    def source(one: type) -> str:
        try:
            return inspect.getsource(one)
        except (OSError, TypeError):
            return one.__qualname__

    return [source(one) for one in cls.__mro__ if issubclass(one, Objective)]
