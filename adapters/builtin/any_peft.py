"""Every other method of the installed peft, by its own name and fields."""

from __future__ import annotations

import difflib
import inspect
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ConfigDict, model_validator

from adapters.backbone import encoder_parts, head_modules, in_head
from adapters.builtin.peft_base import OverPeft
from adapters.errors import AdapterError, NeedsFloatWeightsError, UnsuitableBackboneError
from adapters.strategy import strategies

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn
    from transformers import PreTrainedModel


#: Methods whose result cannot become plain weights of one classifier, and why.
_NOT_PLAIN = {
    "CPT": "puts learnt vectors before the text of a language model",
    "SHADOW": "runs another network beside the model",
    "POLY": "has other weights for each of several tasks, whose number comes with the text",
    "TRAINABLE_TOKENS": "learns rows of the table of tokens beside it; token_lora adapts the table",
    "XLORA": "mixes adapters anew for every text",
}


@strategies.register("peft")
class Peft(OverPeft):
    """Any method of the installed peft: method is its name, all other fields are its own.

    Such as ``{name: peft, method: BOFT, boft_block_size: 4}``. Where the method adapts layers by
    name and `targets` (or its own ``target_modules``) is left out, it adapts every linear layer of
    the encoder. Methods that put learnt vectors before a text are refused: they are no weights of
    a plain model, and a student could not be cut from it.

    Attributes:
        method: What peft calls it, such as ``LOHA``, ``LOKR``, ``OFT``, ``BOFT``, ``HRA``; another
            name is refused with all that there are. ``python -m pydoc peft.BOFTConfig`` tells the
            fields of one.
    """

    model_config = ConfigDict(extra="allow")
    paper: ClassVar[str] = "the method's own, named by peft's documentation"

    method: str

    @model_validator(mode="after")
    def _known(self) -> Peft:
        config_class, extra = _config_class(self.method), self.model_extra or {}
        if "task_type" in extra:
            raise ValueError(
                "leave task_type out, and the head to Potstill, which trains and saves it in any "
                "case"
            )
        if why := _NOT_PLAIN.get(self.method.upper()):
            raise ValueError(
                f"peft's {self.method} {why}: that is no plain model, which a student could be cut "
                "from. Choose a method that adapts layers, such as lora"
            )
        if _is_prompt(config_class):
            raise ValueError(
                f"{self.method} puts learnt vectors before the text, which no plain weights can "
                "express: it could not be merged, cut to a student or exported. Choose a method "
                "that adapts layers, such as lora"
            )
        if extra.get("alora_invocation_tokens") is not None:
            raise ValueError(
                "alora_invocation_tokens adapts only what comes after certain tokens, which no "
                "plain weights can express. Leave it out"
            )
        if self.targets and ("target_modules" in extra or self.method.upper() == "LN_TUNING"):
            beside = "target_modules" if "target_modules" in extra else self.method
            raise ValueError(f"targets mean nothing beside {beside}. Leave them out")
        known = {
            name
            for name in inspect.signature(config_class).parameters
            if name not in ("peft_type", "task_type", "inference_mode", "auto_mapping")
        }
        for name in extra:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = (
                    f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
                )
                raise ValueError(f"{self.method} has no field {name!r}; {hint}")
        return self

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Wrap the target layers in peft's.

        Raises:
            NeedsFloatWeightsError: The backbone is quantized and peft has no such layers for that.
            UnsuitableBackboneError: peft has no such layers for this architecture's.
        """
        try:
            wrapped = super().prepare(model)
        except (TypeError, ValueError) as error:
            # What peft says of a kind of layer that a method does not know, such as GPT-2's.
            if "not supported" not in str(error):
                raise
            raise UnsuitableBackboneError(
                f"peft's {self.method} cannot adapt {type(model).__name__}: "
                f"{str(error).rstrip('.')}. Choose a strategy such as lora."
            ) from error
        for name, layer in wrapped.named_modules():
            base = getattr(layer, "base_layer", None)
            quantized = base is not None and not base.weight.is_floating_point()
            # peft keeps its layers around bitsandbytes' in files of that name.
            if quantized and not type(layer).__module__.endswith(".bnb"):
                raise NeedsFloatWeightsError(
                    f"peft's {self.method} does not work on quantized weights ({name}). Set "
                    "backbone.quantization=none, or choose a strategy such as lora."
                )
        return wrapped

    def config(self, model: PreTrainedModel) -> PeftConfig:
        """Return peft's configuration for this model.

        Raises:
            AdapterError: peft refuses the fields.
        """
        config_class = _config_class(self.method)
        fields: dict[str, Any] = dict(self.model_extra or {})
        parameters = inspect.signature(config_class).parameters
        if "target_modules" in parameters and "target_modules" not in fields:
            fields["target_modules"] = self._usual_targets(model)
        if "feedforward_modules" in parameters and isinstance(fields["target_modules"], list):
            fields.setdefault("feedforward_modules", _ends(model, fields["target_modules"]))
        if "exclude_modules" in parameters:
            fields.setdefault("exclude_modules", head_modules(model))
        try:
            config: PeftConfig = config_class(**fields)
        except (ValueError, TypeError) as error:
            raise AdapterError(
                f"peft refuses {self.method} with {self.model_extra}: {error}. Correct the "
                "strategy's fields; for ADALORA there is the strategy adalora."
            ) from error
        return config

    def _usual_targets(self, model: PreTrainedModel) -> list[str]:
        """Return what the method adapts by itself: linear layers, or norms for LN_TUNING."""
        if self.method.upper() != "LN_TUNING":
            return self.layers(model)
        return [
            name
            for name, module in model.named_modules()
            if "norm" in type(module).__name__.lower() and not in_head(model, name)
        ]


def _ends(model: PreTrainedModel, targets: list[str]) -> list[str]:
    """Return which targets are the last layer of a feed-forward part, by whole or last names."""
    ends = [part.feed_forward_end for part in encoder_parts(model)]
    return [name for name in targets if any(f".{end}".endswith(f".{name}") for end in ends)]


def _is_prompt(config_class: Any) -> bool:
    from peft import AdaptionPromptConfig, PromptLearningConfig

    return issubclass(config_class, (AdaptionPromptConfig, PromptLearningConfig))


def _config_class(method: str) -> Any:
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    classes = {str(kind.value): cls for kind, cls in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if method.upper() not in classes:
        near = difflib.get_close_matches(method.upper(), classes, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"peft has no method {method!r}; {hint}it has {', '.join(sorted(classes))}"
        )
    return classes[method.upper()]
