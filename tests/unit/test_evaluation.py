"""The tables, on records small enough to compute by hand, and on a made-up run."""

import dataclasses
import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glore.config import LabelSettings
from glore.errors import RunError
from glore.evaluation import (
    EvaluationInputs,
    EvaluationOptions,
    evaluate,
    pool,
    read_evaluation,
    write_evaluation,
)
from glore.evaluation.ranking import concordant
from glore.evaluation.rerank_curves import majority, pass_at_k, rerank_at_k
from glore.records import Problem, StepLabels
from support.fake_records import fake_inputs, scores, solution

FAST = EvaluationOptions(bootstrap_samples=100)
STEPS = ("a", "b", "#### 7")


def problems(n):
    return tuple(Problem(f"q{i}", f"question {i}", "7", None, "test") for i in range(n))


def labels(item, *values, rule="sorm"):
    return StepLabels(
        item.id,
        values,
        (True,) * len(values),
        values.index(False) if False in values else None,
        rule,
    )


def by(rows, **wanted):
    found = [r for r in rows if all(getattr(r, k) == v for k, v in wanted.items())]
    assert len(found) == 1, found
    return found[0]


def test_tables_1_and_2_by_hand():
    right, wrong, lost = (
        solution("q0", "d", STEPS, "right"),
        solution("q1", "d", STEPS, "wrong"),
        solution("q2", "d", STEPS, "unknown"),
    )
    inputs = EvaluationInputs(
        name="hand",
        problems=problems(3),
        drafts=(right, wrong, lost),
        samples=(),
        draft_labels=(
            labels(right, True, True, True),
            labels(wrong, True, False, False),
            StepLabels(lost.id, None, None, None, "sorm"),
        ),
        scores=(
            *(scores(right, m, 0.9, p, 0.9) for m, p in (("orm", 0.2), ("sorm", 0.9))),
            *(
                scores(wrong, m, *p)
                for m, p in (("orm", (0.5, 0.6, 0.1)), ("sorm", (0.9, 0.4, 0.7)))
            ),
            *(scores(lost, m, 0.9, 0.9, 0.9) for m in ("orm", "sorm")),
        ),
    )
    e = evaluate(inputs, FAST)
    orm = by(e.table1, model="orm", scope="intermediate", against="labels")
    # Good steps: .9 (called good), .2 (bad), .5 (bad: at most the threshold). Bad step: .6 (called
    # good).
    assert (orm.natural.value, orm.natural.n) == (0.25, 4)
    assert orm.balanced.value == pytest.approx((1 / 3 + 0) / 2)
    assert (orm.false_positive_rate.value, orm.false_positive_rate.n) == (1.0, 1)
    assert (orm.false_negative_rate.value, orm.false_negative_rate.n) == (pytest.approx(2 / 3), 3)
    assert by(e.table1, model="sorm", scope="intermediate", against="labels").balanced.value == 1.0
    assert by(e.table1, model="orm", scope="all", against="labels").natural.value == pytest.approx(
        0.5
    )
    difference = by(e.table1_differences, first="sorm", second="orm", scope="intermediate")
    assert difference.balanced.value == pytest.approx(1 - 1 / 6)
    # The ungraded draft is in no cell of Table 2, and is counted.
    assert (by(e.table2, model="orm").natural.value, by(e.table2, model="orm").natural.n) == (
        1.0,
        2,
    )
    assert by(e.table2, model="sorm").false_positive_rate.value == 1.0
    assert (e.counts.n_drafts_unknown, e.counts.n_drafts_wrong, e.counts.n_drafts_labelled) == (
        1,
        1,
        2,
    )


def test_ranking_within_a_question_by_hand():
    """A model that only knows which question is hard is above chance over all, and at chance
    here.
    """
    verdicts = {"q0": ("right", "right", "wrong"), "q1": ("right", "wrong", "wrong"), "q2": ()}
    drafts = [solution(q, "d", STEPS, "right") for q in verdicts]
    samples = {
        q: [solution(q, f"s{i}", STEPS, v) for i, v in enumerate(found)]
        for q, found in (*verdicts.items(), ("q2", ("right", "unknown", "right")))
    }
    given_scores = {"q0": (0.9, 0.7, 0.8), "q1": (0.1, 0.1, 0.2), "q2": (0.5, 0.5, 0.5)}
    inputs = EvaluationInputs(
        name="hand",
        problems=problems(3),
        drafts=tuple(drafts),
        samples=tuple(s for found in samples.values() for s in found),
        scores=tuple(
            scores(s, "orm", 0.3, 0.3, p)
            for q, found in samples.items()
            for s, p in zip(found, given_scores[q], strict=True)
        ),
    )
    (row,) = evaluate(inputs, FAST).ranking
    # q0: 1 of 2 pairs; q1: a tie and a miss; q2 has no wrong sample.
    assert (row.model, row.n_pairs, row.above.n) == ("orm", 4, 2)
    assert row.above.value == pytest.approx(1.5 / 4)


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=6),
    st.lists(st.integers(0, 4), min_size=1, max_size=6),
)
def test_concordant_pairs_by_counting(right, wrong):
    expected = sum((r > w) + (r == w) / 2 for r in right for w in wrong)
    assert concordant(right, wrong) == expected
    assert concordant(right, wrong) + concordant(wrong, right) == len(right) * len(wrong)


def hand_made_refinements():
    """q0 right and broken by global; q1 fixed by global; q2 fixed by local+SORM; q3 by none; q4
    ungraded.
    """
    verdicts = ["right", "wrong", "wrong", "wrong", "unknown"]
    drafts = [solution(f"q{i}", "d", STEPS, v) for i, v in enumerate(verdicts)]
    made = {
        "global": ["wrong", "right", "wrong", "unknown", "right"],
        "local_orm": ["right", "wrong", "wrong", None, "wrong"],
        "local_sorm": [None, "wrong", "right", "wrong", "wrong"],
    }
    refinements = [
        solution(f"q{i}", source, STEPS, verdict, source, drafts[i].id)
        for source, found in made.items()
        for i, verdict in enumerate(found)
        if verdict is not None
    ]
    samples = [
        solution(f"q{i}", f"s{k}", STEPS, "right" if (i, k) in {(3, 2), (0, 0)} else "wrong")
        for i in range(5)
        for k in range(4)
    ]
    # The ORM is right about global on q1, misled on q0, and ties on q2 (the draft, being first,
    # wins).
    orm = {
        "d": [0.6, 0.2, 0.5, 0.2, 0.2],
        "global": [0.7, 0.9, 0.1, 0.1, 0.1],
        "local_orm": [0.1] * 5,
        "local_sorm": [0.1, 0.1, 0.5, 0.1, 0.1],
    }
    scored = [
        scores(s, "orm", 0.1, 0.1, orm[s.id.split("/")[1]][int(s.problem_id[1])])
        for s in (*drafts, *refinements)
    ]
    scored += [scores(s, "orm", 0.9, 0.9, 0.8 if s.id.endswith("s2") else 0.3) for s in samples]
    return EvaluationInputs(
        "hand",
        problems(5),
        tuple(drafts),
        tuple(samples),
        refinements=tuple(refinements),
        scores=tuple(scored),
    )


def test_table_3_by_hand():
    e = evaluate(hand_made_refinements(), FAST)
    assert {r.refiners: (r.fixed.value, r.fixed.n, r.n_without, r.n_unknown) for r in e.table3} == {
        ("global",): (pytest.approx(1 / 3), 3, 0, 1),
        ("local_orm",): (0.0, 3, 1, 0),
        ("local_sorm",): (pytest.approx(1 / 3), 3, 0, 0),
        ("global", "local_orm"): (pytest.approx(1 / 3), 3, 1, 1),
        ("global", "local_sorm"): (pytest.approx(2 / 3), 3, 0, 1),
    }
    union = by(e.table3_differences, first=("global", "local_sorm"), second=("global",)).difference
    assert (union.value, union.gained, union.lost) == (pytest.approx(1 / 3), 1, 0)
    assert (e.overlap.both, e.overlap.only_global, e.overlap.only_local, e.overlap.neither) == (
        0,
        1,
        1,
        1,
    )


def test_a_local_refiner_that_marked_nothing_keeps_its_row():
    inputs = hand_made_refinements()
    kept = tuple(r for r in inputs.refinements if r.source != "local_sorm")
    marked = tuple(scores(d, "sorm", 0.9, 0.9, 0.9) for d in inputs.drafts)
    e = evaluate(dataclasses.replace(inputs, refinements=kept, scores=inputs.scores + marked), FAST)
    row = by(e.table3, refiners=("local_sorm",))
    assert (row.fixed.value, row.n_without) == (0.0, 3)
    assert by(e.figure3, refiner="local_sorm").unrefined == 5


def test_figure_3_by_hand():
    row = by(evaluate(hand_made_refinements(), FAST).figure3, refiner="global")
    # The ungraded draft became right: fixed, although it is no wrong draft of Table 3.
    assert (row.fixed, row.broken, row.still_right, row.still_wrong, row.unrefined) == (
        2,
        1,
        0,
        2,
        0,
    )
    assert (row.all_drafts.value, row.only_wrong.value) == (
        pytest.approx(2 / 5),
        pytest.approx(3 / 5),
    )
    # The ORM lets q0 (.6) alone; q2 at exactly the threshold is refined.
    assert row.orm_gated.value == pytest.approx(3 / 5)
    local = by(evaluate(hand_made_refinements(), FAST).figure3, refiner="local_sorm")
    assert (local.unrefined, local.still_right) == (1, 1)


def test_figure_4_by_hand():
    e = evaluate(hand_made_refinements(), FAST)
    assert {r.way: r.accuracy.value for r in e.figure4} == {
        "greedy": pytest.approx(1 / 5),
        "reranked": pytest.approx(1 / 5),
        "perfect": pytest.approx(4 / 5),
        "best_of": pytest.approx(1 / 5),
        "perfect_best_of": pytest.approx(2 / 5),
    }
    against_greedy = by(e.figure4_differences, first="reranked", second="greedy").difference
    assert (against_greedy.value, against_greedy.gained, against_greedy.lost, against_greedy.p) == (
        0.0,
        1,
        1,
        1.0,
    )


@given(
    st.integers(1, 7).flatmap(
        lambda n: st.tuples(
            st.lists(st.booleans(), min_size=n, max_size=n), st.integers(1, n), st.integers(0, 99)
        )
    )
)
def test_curves_equal_the_mean_over_all_subsets(case):
    right, k, seed = case
    n, rng = len(right), random.Random(seed)
    score = [rng.choice((0.1, 0.5, 0.9)) for _ in range(n)]
    subsets = list(itertools.combinations(range(n), k))
    best = [right[max(s, key=lambda i: (score[i], -i))] for s in subsets]
    assert rerank_at_k(score, right, k) == pytest.approx(sum(best) / len(best))
    assert pass_at_k(n, sum(right), k) == pytest.approx(
        sum(any(right[i] for i in s) for s in subsets) / len(subsets)
    )


def test_majority_ties_go_to_the_answer_reached_first():
    answers = [None, "3", "4", "4", "3", None, None]
    votes = [solution("q", f"s{i}", STEPS, "wrong", answer=a) for i, a in enumerate(answers)]
    assert majority(votes).answer == "3"
    assert majority(votes[:4]).answer == "4"
    assert majority([votes[0]]) is None


def test_table_5_and_curves_agree_at_all_samples():
    e = evaluate(fake_inputs(12, 8), FAST)
    ei = by(e.table5, student="EI")
    curve = {(p.way, p.k): p.accuracy.value for p in e.curves}
    assert curve["pass", 8] == pytest.approx(ei.pass_k.value) == pytest.approx(ei.pass_8.value)
    assert curve["orm", 8] == pytest.approx(ei.reranked.value)
    assert curve["majority", 8] == pytest.approx(ei.majority.value)
    assert curve["sorm", 1] == pytest.approx(ei.sampled.value)
    assert e.ei_gain.value == pytest.approx(
        ei.greedy.value - by(e.table5, student="SFT").greedy.value
    )


def test_each_student_of_table_5_is_reranked_by_its_own_orm():
    inputs = fake_inputs(12, 4)
    sft = {s.id: s for s in inputs.sft_samples}
    perfect = tuple(
        dataclasses.replace(
            s, p_correct=(float(sft[s.solution_id].correct == "right"),) * len(s.p_correct)
        )
        if s.model == "sft_orm"
        else s
        for s in inputs.scores
    )
    e, before = (
        evaluate(dataclasses.replace(inputs, scores=x), FAST) for x in (perfect, inputs.scores)
    )
    row = by(e.table5, student="SFT")
    assert row.reranked.value == row.pass_k.value
    assert by(e.table5, student="EI") == by(before.table5, student="EI")
    run_orm = tuple(
        dataclasses.replace(s, model="orm") if s.model == "sft_orm" else s for s in inputs.scores
    )
    borrowed = by(evaluate(dataclasses.replace(inputs, scores=run_orm), FAST).table5, student="SFT")
    assert borrowed.reranked is None, "another student's ORM is not its own"


def test_label_agreement_and_its_ablation():
    e = evaluate(fake_inputs(30), FAST, LabelSettings())
    used, loose, none = (
        by(e.agreement, where="train", rule=r)
        for r in ("as used", "no consistency check", "no propagation")
    )
    # Rollouts that ignore the prefix reach the right answer everywhere, so without the check every
    # prefix looks good.
    assert loose.wrong_drafts.value < used.wrong_drafts.value
    assert loose.n_positive > used.n_positive
    assert used.n_kept_positive + used.n_kept_negative < used.n_positive + used.n_negative
    assert none.agreement.n == 0
    assert none.n_unlabelled > used.n_unlabelled
    tested, single = (by(e.agreement, where="test", rule=r) for r in ("as used", "no propagation"))
    assert tested.agreement.n > 0
    # A good prefix that failed four times is called bad without propagation; a false step only
    # where a wrong way led to the answer.
    assert single.called_bad.value > 0.1
    assert single.called_good.value < 0.1
    assert single.n_unlabelled == tested.n_unlabelled
    assert {r.rule for r in e.agreement if r.where == "test"} == {
        "as used",
        "no consistency check",
        "no propagation",
        "neither",
    }
    assert sum(b.n_positive for b in e.balance) == used.n_positive
    assert sum(b.n_kept_negative for b in e.balance) == used.n_kept_negative
    assert "no balancing" in {r.rule for r in e.agreement}
    unbalanced = evaluate(fake_inputs(30), FAST, LabelSettings(balance=False))
    balanced = by(unbalanced.agreement, rule="balanced")
    assert (
        balanced.n_kept_positive + balanced.n_kept_negative
        < balanced.n_positive + balanced.n_negative
    )


def test_pooling_runs_keeps_every_record_and_the_pairing():
    first, second = fake_inputs(10, seed=1), fake_inputs(10, seed=2)
    both = evaluate(pool([first, second]), FAST)
    parts = [evaluate(x, FAST) for x in (first, second)]
    assert both.counts.n_drafts_right == sum(e.counts.n_drafts_right for e in parts)
    ways = {r.way: r.accuracy.value for r in both.figure4}
    for way, value in ways.items():
        assert value == pytest.approx(sum(by(e.figure4, way=way).accuracy.value for e in parts) / 2)
    assert pool([first]) is first


def test_seeds_of_one_question_are_one_cluster():
    run = fake_inputs(15, seed=3)
    twice, once = evaluate(pool([run, run]), FAST), evaluate(run, FAST)
    doubled, single = (
        by(twice.figure4_differences, first="reranked", second="greedy"),
        by(once.figure4_differences, first="reranked", second="greedy"),
    )
    assert doubled.difference.n == 2 * single.difference.n
    assert (doubled.difference.low, doubled.difference.high) == pytest.approx(
        (single.difference.low, single.difference.high)
    )
    assert single.difference.p is not None
    assert doubled.difference.p is None


def test_records_that_are_missing_leave_tables_out():
    e = evaluate(
        EvaluationInputs("empty", problems(1), (solution("q0", "d", STEPS, "right"),), ()), FAST
    )
    assert (
        e.table1,
        e.table2,
        e.table3,
        e.figure3,
        e.figure4,
        e.curves,
        e.calibrations,
        e.agreement,
        e.overlap,
    ) == ((),) * 8 + (None,)
    assert by(e.table5, student="EI").greedy.value == 1.0
    assert evaluate(EvaluationInputs("none", (), (), ()), FAST).counts.n_drafts == 0


def made_run(cases):
    """One question per case: (draft, global, local) verdicts, none for no local refinement; ORM of
    draft, global, local; step of the SORM's mark; first wrong step by the truth.
    """
    parts = {"drafts": [], "refinements": [], "scores": [], "draft_truth": []}
    for i, (verdicts, orm, mark, error) in enumerate(cases):
        draft = solution(f"q{i}", "d", STEPS, verdicts[0])
        made = [draft]
        for kind, verdict in zip(("global", "local_sorm"), verdicts[1:], strict=True):
            if verdict is not None:
                made.append(solution(f"q{i}", kind, ("c", *STEPS), verdict, kind, draft.id))
        parts["drafts"].append(draft)
        parts["refinements"] += made[1:]
        parts["scores"] += [
            scores(s, "orm", *[0.9] * (len(s.steps) - 1), p)
            for s, p in zip(made, (p for p in orm if p is not None), strict=True)
        ]
        sorm = [0.9, 0.9, 0.9]
        if mark is not None:
            sorm[mark] = 0.1
        parts["scores"].append(scores(draft, "sorm", *sorm))
        truth = [error is None or k < error for k in range(3)]
        parts["draft_truth"].append(labels(draft, *truth, rule="truth"))
    return EvaluationInputs(
        "made", problems(len(cases)), samples=(), **{k: tuple(v) for k, v in parts.items()}
    )


CASES = {
    "fixed": (("wrong", "wrong", "right"), (0.1, 0.2, 0.9), 1, 1),
    "when": (("wrong", "right", "wrong"), (0.9, 0.5, 0.4), 1, 1),
    "which": (("wrong", "wrong", "right"), (0.2, 0.9, 0.4), 1, 1),
    "how": (("wrong", "wrong", "wrong"), (0.1, 0.2, 0.9), 1, 1),
    "where": (("wrong", "wrong", "wrong"), (0.1, 0.2, 0.9), 0, 1),
    "no mark": (("wrong", "wrong", None), (0.1, 0.9, None), None, 2),
    "broken": (("right", "wrong", "right"), (0.2, 0.9, 0.4), 1, None),
    "kept": (("right", "right", None), (0.9, 0.4, None), None, None),
}


def test_decomposition_by_hand():
    found = evaluate(made_run(CASES.values()), FAST).decomposition
    assert found.first_errors == "truth"
    n_of = {r.outcome: round(r.share.value * r.share.n) for r in found.losses}
    assert n_of == {"fixed": 1, "when": 1, "where": 2, "how": 1, "which": 1}
    assert {r.share.n for r in found.losses} == {6}
    rows = {r.oracle: r for r in found.oracles}
    # Right at last: fixed, kept. When: the refinement of `when` too, and `broken` is kept.
    assert (rows["pipeline"].accuracy.value, rows["pipeline"].gain) == (2 / 8, None)
    assert rows["when"].accuracy.value == 4 / 8
    # Which: fixed, when, which, broken, kept.
    assert rows["which"].accuracy.value == 5 / 8
    assert (rows["which"].gain.gained, rows["which"].gain.lost) == (3, 0)
    # Where: not known for the two marks that miss; without a local refinement, `broken` stays so.
    assert (rows["where"].accuracy.value, rows["where"].accuracy.n) == (2 / 6, 6)
    assert rows["where"].gain.value == 0
    places = {r.place: (round((r.share.value or 0) * 6), r.fixed.value) for r in found.places}
    assert places == {
        "right place": (4, 0.5),
        "elsewhere": (2, 0.0),
        "too early": (1, 0.0),
        "too late": (0, None),
        "no mark": (1, 0.0),
    }
    assert (found.place_gain.value, found.place_gain.n) == (0.5, 6)


def test_a_mark_of_the_orm_in_the_right_place_tells_what_the_sorms_would_have_made():
    run = made_run([CASES["where"]])
    draft = run.drafts[0]
    orm = solution("q0", "local_orm", ("c", *STEPS), "right", "local_orm", draft.id)
    kept = [s for s in run.scores if (s.solution_id, s.model) != (draft.id, "orm")]
    run = dataclasses.replace(
        run,
        refinements=(*run.refinements, orm),
        scores=(
            *kept,
            scores(draft, "orm", 0.9, 0.4, 0.1),
            scores(orm, "orm", 0.9, 0.9, 0.9, 0.95),
        ),
    )
    rows = {r.oracle: r for r in evaluate(run, FAST).decomposition.oracles}
    assert (rows["pipeline"].accuracy.value, rows["where"].accuracy.value) == (0.0, 1.0)


def test_copies_and_first_wrong_steps_from_labels():
    run = made_run([CASES["how"], CASES["fixed"]])
    copy = dataclasses.replace(run.refinements[0], steps=STEPS)
    run = dataclasses.replace(
        run,
        refinements=(copy, *run.refinements[1:]),
        draft_labels=tuple(dataclasses.replace(r, rule="sorm") for r in run.draft_truth),
        draft_truth=(),
    )
    found = evaluate(run, FAST).decomposition
    assert found.first_errors == "labels"
    assert [(r.refiner, r.copied.value) for r in found.copies] == [
        ("global", 0.5),
        ("local_sorm", 0.0),
    ]
    blind = evaluate(dataclasses.replace(run, draft_labels=()), FAST).decomposition
    assert (blind.first_errors, blind.places, blind.place_gain) == (None, (), None)
    assert {r.outcome: r.share.value for r in blind.losses}["unknown place"] == 0.5
    assert [r.oracle for r in blind.oracles] == ["pipeline", "when", "which"]


@settings(max_examples=30)
@given(st.integers(0, 50), st.integers(3, 12))
def test_oracles_of_choice_never_lose_and_outcomes_add_up(seed, n):
    e = evaluate(fake_inputs(n, 2, seed), EvaluationOptions(bootstrap_samples=20))
    rows = {r.oracle: r for r in e.decomposition.oracles}
    assert rows["which"].gain.lost == rows["when"].gain.lost == 0
    assert rows["when"].accuracy.value <= rows["which"].accuracy.value
    pipeline = by(e.figure4, way="reranked").accuracy
    assert rows["pipeline"].accuracy == pipeline
    if e.counts.n_drafts_wrong:
        assert sum(r.share.value for r in e.decomposition.losses) == pytest.approx(1.0)


def test_json_round_trip_and_damage(tmp_path):
    e = evaluate(fake_inputs(6), FAST, LabelSettings())
    path = tmp_path / "report" / "evaluation.json"
    write_evaluation(path, e)
    assert read_evaluation(path) == e
    path.write_text(path.read_text()[:-30])
    with pytest.raises(RunError, match="not an evaluation"):
        read_evaluation(path)
    with pytest.raises(RunError, match="run the evaluate stage"):
        read_evaluation(tmp_path / "nothing.json")
