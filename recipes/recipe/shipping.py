"""How a student leaves, what it has to hold, and how answers are made of its logits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from export.embedding_tables import Embeddings
from export.graph import Optimize
from recipes.recipe.base import Fraction, Settings


class ExportSettings(Settings):
    """How the student leaves.

    Attributes:
        quantization: ``int8`` tries forms with 8-bit integers, the fastest first, until one holds
            what the gate asks; ``auto`` goes on to float16 and float32 where none does; ``none``
            ships float32.
        choose: The first form that holds; or ``pareto``: all of them are measured, and of those
            that hold and are within `GateSettings.max_drop` of the most accurate, the smallest
            file is taken.
        embeddings: Bits of the tables of tokens in a quantized file. Four of them make it smaller,
            by a third with three layers of MiniLM, and cost a few hundredths of a millisecond.
        optimize: How far the graph is rewritten before it is quantized: not at all; by
            onnxruntime's tools, which fuse layer norms and activations; or fully, with
            fused attention and without what the head does not read.
    """

    quantization: Literal["int8", "auto", "none"] = "int8"
    choose: Literal["first", "pareto"] = "first"
    embeddings: Embeddings = "int8"
    optimize: Optimize = "full"

    @model_validator(mode="after")
    def _quantized(self) -> ExportSettings:
        for name in ("embeddings", "choose") if self.quantization == "none" else ():
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} has no effect with quantization=none, which ships float32. Leave it "
                    "out, or set quantization=auto"
                )
        return self


class DecideSettings(Settings):
    """How the bundle makes answers of logits; all of it is fitted on validation rows.

    Attributes:
        calibrate: Whether logits are divided by a temperature that makes probabilities as certain
            as they are right; no label changes, but those of ordered labels.
        offsets: The metric for which each label's log-probability gets an offset before the highest
            is taken; of several labels at a time, each label's log-odds, which moves its threshold.
            Kept only if that gains on validation rows that it was not fitted on. Null for no
            offsets.
        precision: Share of right labels that is wished: a label less probable than it takes for
            that is not given. Null to give all.
        confidence: How sure to be that the precision is reached on other rows; null to go by the
            share on the validation rows.
    """

    calibrate: bool = True
    offsets: Literal["accuracy", "macro_f1", "micro_f1", "balanced_accuracy"] | None = None
    precision: Fraction | None = None
    confidence: Fraction | None = None

    @model_validator(mode="after")
    def _sure_of_something(self) -> DecideSettings:
        if self.confidence is not None and self.precision is None:
            raise ValueError(
                "confidence has no effect without a precision to be sure of. Leave it out, or set "
                "decide.precision"
            )
        return self


class GateSettings(Settings):
    """What the shipped file has to hold; the first two against the float ONNX file.

    All of it is measured on validation rows.

    Attributes:
        max_drop: What quantization may cost, as a fraction: of the metric that the student is
            chosen by (``distill.train.metric``), else of the teacher's (``train.metric``), else of
            the problem's own, which is the accuracy where a row has one label. A metric of which
            less is better is passed over.
        min_label_agreement: Share of rows on which both must give the same answer: the same label,
            the same labels, or numbers apart by less than a tenth of their deviation.
        max_latency_ms: Median milliseconds that one text may take on this machine, from its tokens
            on; null for no such goal. What holds it narrowly today may not tomorrow.
        max_size_mb: Size that the ONNX file may have, in millions of bytes; null for no such goal.
    """

    max_drop: Annotated[float, Field(ge=0, le=1)] = 0.01
    min_label_agreement: Annotated[float, Field(ge=0, le=1)] = 0.98
    max_latency_ms: Annotated[float, Field(gt=0)] | None = None
    max_size_mb: Annotated[float, Field(gt=0)] | None = None
