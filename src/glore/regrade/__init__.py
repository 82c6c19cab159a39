"""`glore regrade`: the current graders applied to the records of a run. Draws nothing.

run       grades every stage, and writes what changes
verdicts  solutions and rollouts → the same records with new verdicts
stored    which stages hold verdicts, and which stage was made from which
rewrite   the new folder of a stage that changes
"""

from __future__ import annotations

from glore.regrade.run import RegradedStage, Regrading, regrade
from glore.regrade.verdicts import Example

__all__ = ["Example", "RegradedStage", "Regrading", "regrade"]
