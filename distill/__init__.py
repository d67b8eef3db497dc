"""How a student learns: students, objectives and teacher signals."""

from __future__ import annotations

from distill import builtin as _builtin  # noqa: F401  (registers the objectives)
from distill.cache import CachedTeacher
from distill.errors import DistillError
from distill.live import LiveTeacher
from distill.objective import Objective, Pair, objectives
from distill.signals import Outputs, Signals, TeacherSignals

__all__ = [
    "CachedTeacher",
    "DistillError",
    "LiveTeacher",
    "Objective",
    "Outputs",
    "Pair",
    "Signals",
    "TeacherSignals",
    "objectives",
]
