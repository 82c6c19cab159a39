"""The weakest part of a run's refinement, as one sentence.

A part that fails as such comes first: a student that is hardly ever right, a refiner that copies, a
reward model at chance. The limits are those of `glore.stages.diagnoses`. Without such a sign, it is
the part at which most drafts are lost (`glore.evaluation.decomposition`). Marks that miss the first
wrong step count as lost by *where* only if the right place is shown to help.
"""

from __future__ import annotations

from glore.decisions import CANDIDATES
from glore.evaluation import Evaluation
from glore.evaluation.decomposition import (
    HOW,
    RIGHT_PLACE,
    WHERE,
    WHICH,
    Decomposition,
)
from glore.evaluation.headline import sorm_steps
from glore.evaluation.inputs import ORM
from glore.report.views import REFINER_NAMES, percent, points
from glore.stages.diagnoses import COPIED, MIN_N, RARE
from glore.statistics import Estimate

__all__ = ["weakest_part"]


def weakest_part(e: Evaluation) -> str | None:
    """An evaluation → the sentence. None: nothing was refined, or too few drafts to tell."""
    found = e.decomposition
    if found is None or e.counts.n_drafts < MIN_N:
        return None
    failing = [sign for sign in (_student(e), _refiner(found), _orm(e), _sorm(e)) if sign]
    if failing:
        return f"Weakest part: {'; '.join(failing)}."
    most_lost = _most_lost(found)
    return most_lost and f"Weakest part: {most_lost}."


def _student(e: Evaluation) -> str | None:
    c = e.counts
    if c.n_drafts_right > RARE * c.n_drafts:
        return None
    return f"the student is too weak ({c.n_drafts_right} of {c.n_drafts} drafts are right)"


def _refiner(found: Decomposition) -> str | None:
    copies = [
        f"{REFINER_NAMES[r.refiner]} {percent(r.copied)} %"
        for r in found.copies
        if r.refiner in CANDIDATES and r.copied.n >= MIN_N and (r.copied.value or 0) >= COPIED
    ]
    if not copies:
        return None
    return f"the refiner copies the wrong draft ({', '.join(copies)} of its refinements)"


def _orm(e: Evaluation) -> str | None:
    row = next((r for r in e.table2 if r.model == ORM), None)
    if row is not None and _at_chance(row.balanced):
        return (
            f"the ORM is at chance on final answers (class-balanced {percent(row.balanced)} %, "
            "chance 50), so it can't say when to refine or which answer to take"
        )
    ranks = next((r for r in e.ranking if r.model == ORM), None)
    if ranks is not None and _at_chance(ranks.above):
        return (
            f"the ORM ranks the samples of one question at chance ({percent(ranks.above)} % of "
            "pairs), so it can't say which answer to take; at most it knows which questions are "
            "hard"
        )
    return None


def _sorm(e: Evaluation) -> str | None:
    row = sorm_steps(e)
    if row is None or not _at_chance(row.balanced):
        return None
    return (
        f"the SORM is at chance on steps (class-balanced {percent(row.balanced)} %, chance 50), "
        "so it can't say where to refine"
    )


def _at_chance(balanced: Estimate) -> bool:
    return balanced.low is not None and balanced.low <= 0.5 and balanced.n >= MIN_N


def _most_lost(found: Decomposition) -> str | None:
    shares = {row.outcome: row.share for row in found.losses}
    lost = {part: round((shares[part].value or 0) * shares[part].n) for part in (WHERE, HOW)}
    choice = next((row.gain for row in found.oracles if row.oracle == WHICH), None)
    lost[WHICH] = choice.gained if choice else 0
    if not _place_helps(found):
        lost[HOW], lost[WHERE] = lost[HOW] + lost[WHERE], 0
    part = max(lost, key=lambda name: lost[name])
    if not lost[part]:
        return None
    n_wrong = shares[HOW].n
    if part == WHICH:
        return (
            "when and which, the ORM's choice: with the gold answer's choice among the same "
            f"candidates, {points(choice)} points"
        )
    hit = next((row.fixed for row in found.places if row.place == RIGHT_PLACE), None)
    if part == WHERE:
        return (
            f"where: {lost[part]} of {n_wrong} wrong drafts stay wrong with a mark that misses the "
            f"first wrong step; from there, {points(found.place_gain)} points more are fixed"
        )
    helps = f"; from the first wrong step, {percent(hit)} % are fixed" if hit and hit.n else ""
    return f"how, the refiner: {lost[part]} of {n_wrong} wrong drafts get no right candidate{helps}"


def _place_helps(found: Decomposition) -> bool:
    gain = found.place_gain
    return gain is not None and gain.excludes_zero and (gain.value or 0) > 0
