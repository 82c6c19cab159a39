"""The results of the second half: accuracy after PPO, and reward beside accuracy by round."""

from __future__ import annotations

from pathlib import Path

from glore.evaluation.rerank_curves import majority
from glore.pipeline import StageContext, declare
from glore.records import Solution
from glore.report.charts import Chart
from glore.report.views import TableView
from glore.solutions import by_problem
from glore.statistics import mean
from glore.studies.measured import Measured, line_chart, number, pivot, read_measured, share
from glore.studies.paired import differences, estimate, question_index, right
from glore.studies.ppo_rounds import of_rounds
from glore.studies.step_policy.settings import POLICIES
from glore.studies.step_policy.stages import TESTED

__all__ = ["policy_charts", "policy_results", "policy_tables"]

RESULTS = "shepherd_policy_results"
TABLE, DIFFERENCES = "shepherd-policy", "shepherd-policy-differences"
ROUNDS, CURVES = "shepherd-policy-rounds", "shepherd-policy-curves"
STUDENT = "student"


@declare(
    RESULTS,
    inputs=(TESTED, "test_drafts", "test_samples", *(p.model for p in POLICIES)),
    reads=("evaluation.bootstrap_samples", "evaluation.samples"),
    opens=lambda _: (),
    version=2,
)
def policy_results(ctx: StageContext) -> None:
    """All numbers of the tables."""
    made = {STUDENT: (ctx.read("test_drafts", Solution), ctx.read("test_samples", Solution))}
    for p in POLICIES:
        greedy, drawn = (
            ctx.read(TESTED, Solution, f"{kind}_{p.model}") for kind in ("greedy", "samples")
        )
        made[p.about] = (greedy, drawn)
    drafts = made[STUDENT][0]
    index, ids = question_index(ctx, drafts), [d.problem_id for d in drafts]
    voted = f"majority of {ctx.config.evaluation.samples}"
    values: dict[str, dict[str, list[float]]] = {"greedy": {}, voted: {}}
    found: list[Measured] = []
    for way, (greedy, drawn) in made.items():
        groups = by_problem(drawn)
        values["greedy"][way] = right(greedy)
        values[voted][way] = right(majority(groups.get(i, [])) for i in ids)
        found += [
            share(TABLE, way, column, estimate(index, ids, of_way[way]))
            for column, of_way in values.items()
        ]
        one = [float(s.correct == "right") for s in drawn]
        found.append(
            share(TABLE, way, "one sample", estimate(index, [s.problem_id for s in drawn], one))
        )
        found.append(number(TABLE, way, "steps", mean([len(s.steps) for s in greedy])))
        found.append(number(TABLE, way, "tokens", mean([s.n_tokens for s in greedy])))
    first = POLICIES[0].about
    pairs = [
        *((p.about, STUDENT) for p in POLICIES),
        *((first, p.about) for p in POLICIES[1:]),
    ]
    for column, of_way in values.items():
        found += differences(index, DIFFERENCES, ids, of_way, pairs, column)
    trained = {p.model: p.about for p in POLICIES}
    ctx.write([*found, *of_rounds(ctx, ROUNDS, CURVES, trained, ("right",))], Measured)


def policy_tables(folder: Path) -> list[TableView]:
    """The tables of this half, from the study's folder."""
    found = read_measured(folder, RESULTS)
    return [
        pivot(
            found,
            TABLE,
            "Math-Shepherd · the student after PPO",
            "Share of test questions answered right; steps and tokens of a greedy solution. The "
            "paper, greedy: Mistral-7B 77.9 → 84.1 % on GSM8K and 28.6 → 33.0 % on MATH with step "
            "scores.",
            "policy",
            n_column=True,
        ),
        pivot(
            found,
            DIFFERENCES,
            "Math-Shepherd · PPO, differences",
            "First minus second, paired on the same test questions.",
            ("first", "second"),
            n_column=True,
        ),
        pivot(
            found,
            ROUNDS,
            "Math-Shepherd · PPO, the first and the last round",
            "Solutions of training questions that the policy drew. Reward that rises while fewer "
            "answers are right is reward hacking.",
            ("policy", "round"),
        ),
    ]


def policy_charts(folder: Path) -> list[Chart]:
    """The charts of this half."""
    found = read_measured(folder, RESULTS)
    return [
        line_chart(
            found,
            CURVES,
            f"Math-Shepherd · PPO by round: {title}",
            "Solutions of training questions that the policy drew in each round. Bands: 95 % "
            "intervals.",
            "round",
            label,
            id=f"{CURVES}-{column}",
            column=column,
        )
        for column, title, label in (
            ("right", "right answers", "right, %"),
            ("reward", "mean reward", "mean reward, hundredths"),
        )
    ]
