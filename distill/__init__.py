"""How a student learns: students, objectives and teacher signals."""

from __future__ import annotations

from distill.errors import DistillError
from distill.objectives import Objective, Outputs, Pair, objectives
from distill.signals import CachedTeacher, LiveTeacher, Signals, TeacherSignals

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
