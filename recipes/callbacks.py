"""What a training tells while it runs, and when it ends early."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from tqdm.auto import tqdm
from transformers import EarlyStoppingCallback, TrainerCallback

from distill.learner import Learner
from recipes.console import say
from recipes.peak_memory import peak_memory, reset_peak_memory

#: Who follows the trainings of this process: each is given the title and the metric of a training
#: that begins, and returns a callback, or None.
watchers: list[Callable[[str, str], TrainerCallback | None]] = []


class PoorError(Exception):
    """A training was ended because its epochs compare badly with those of others.

    Args:
        epoch: The last one.
        value: What the metric was then.
    """

    def __init__(self, epoch: int, value: float) -> None:
        super().__init__(f"ended after epoch {epoch}, at {value:.4f}")
        self.epoch = epoch
        self.value = value


class Judged(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Ends a training that somebody finds poor, but not after its last epoch.

    Args:
        metric: The validation metric that counts.
        poor: Is given each epoch and its metric.
    """

    def __init__(self, metric: str, poor: Callable[[int, float], bool]) -> None:
        self._metric = metric
        self._poor = poor

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **_: Any) -> None:
        """Ask about an epoch.

        Raises:
            PoorError: It is poor.
        """
        epoch, value = round(state.epoch), metrics[f"eval_{self._metric}"]
        if self._poor(epoch, value) and epoch < args.num_train_epochs:
            raise PoorError(epoch, value)


class Patience(EarlyStoppingCallback):  # type: ignore[misc, unused-ignore]
    """Early stopping that does not count before every term of the loss has begun.

    Args:
        early_stopping_patience: Evaluations without a better metric.
        early_stopping_threshold: By how much a metric has to be better.
        since: Share of the training before which nothing is counted.
    """

    def __init__(
        self,
        early_stopping_patience: int = 1,
        early_stopping_threshold: float = 0.0,
        since: float = 0.0,
    ) -> None:
        super().__init__(early_stopping_patience, early_stopping_threshold)
        self._since = since

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **more: Any) -> None:
        """Count this evaluation if it is time."""
        if state.global_step > self._since * state.max_steps:
            super().on_evaluate(args, state, control, metrics, **more)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint has to keep."""
        kept: dict[str, Any] = super().state()
        kept["args"]["since"] = self._since
        return kept


class Speed(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Times the steps of a training.

    Args:
        tokens: Tokens of an epoch.
        device: Where they are learnt from.
    """

    def __init__(self, tokens: float, device: str) -> None:
        self._tokens = tokens
        self._device = device
        self._seconds = self._start = 0.0
        self._epochs = 0.0
        self.peak_memory_bytes = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Forget what memory was used before."""
        reset_peak_memory(self._device)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note when a step begins."""
        self._start = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Add what the step took."""
        self._seconds += time.perf_counter() - self._start
        self._epochs += state.num_train_epochs / state.max_steps

    def tokens_per_second(self) -> float:
        """Return the tokens of the steps that this process took, a second."""
        return self._tokens * self._epochs / self._seconds if self._seconds else 0.0

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the memory that was used."""
        self.peak_memory_bytes = peak_memory(self._device)


class Clock(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Tells a learner how much of its training is done."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell the learner."""
        self._learner.progress = state.global_step / state.max_steps


class Progress(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """A bar on a terminal, and one line an epoch anywhere."""

    def __init__(self, title: str, metric: str) -> None:
        self.title = title
        self.metric = metric
        self.bar: Any = None
        self.loss = float("nan")

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Draw the bar."""
        if state.is_world_process_zero:
            self.bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                desc=self.title,
                unit="step",
                disable=None,
                leave=False,
                file=sys.stderr,
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.bar.update(1)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Remember the loss."""
        self.loss = (logs or {}).get("loss", self.loss)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **_: Any) -> None:
        """Say what the epoch has reached."""
        value = metrics[f"eval_{self.metric}"]
        say(
            f"  {self.title}: epoch {state.epoch:.0f} of {args.num_train_epochs:.0f}, "
            f"loss {self.loss:.3f}, validation {self.metric} {value:.4f}"
        )

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Say that the epoch is done, where nothing is evaluated."""
        if not control.should_evaluate:
            epochs = f"{state.epoch:.0f} of {args.num_train_epochs:.0f}"
            say(f"  {self.title}: epoch {epochs}, loss {self.loss:.3f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()
