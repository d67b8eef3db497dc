"""An objective that does not care how sure the teacher is."""

from __future__ import annotations

from typing import ClassVar

from distill import Objective, objectives


@objectives.register("angle")
class Angle(Objective):
    """One minus the cosine between the centered logits of student and teacher."""

    needs: ClassVar[frozenset[str]] = frozenset({"logits"})

    def loss(self, student, teacher, labels, mask, parts):
        """Return the mean over the batch, between 0 and 2."""
        from torch.nn.functional import cosine_similarity

        own, target = (x - x.mean(-1, keepdim=True) for x in (student.logits, teacher.logits))
        return 1 - cosine_similarity(own, target).mean()
