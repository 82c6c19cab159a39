"""`glore label`, `glore train` and `glore score`: files of solutions, without a run."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore.config import LabelSettings
from glore.engines.protocol import Request
from glore.engines.scripted import ScriptedEngine
from glore.errors import ConfigError, DataError, RunError
from glore.formats import LabelledSolution, read_solutions, write_solutions
from glore.progress import SilentProgress
from glore.records import PrefixTrials, Solution
from glore.reward_models.open import open_reward_model
from glore.solution_files.answers import answer_of, read_answers
from glore.solution_files.cost import rollout_cost, scanned_tokens
from glore.solution_files.examples import LabelRule, training_pairs, training_solutions
from glore.solution_files.graded import graded_solutions
from glore.solution_files.judging import Agreement
from glore.solution_files.label import LabelJob, label_config, label_file
from glore.solution_files.score import Scored, ScoreJob, score_config, score_file
from glore.solution_files.train import train_config, train_file
from glore.step_layouts.parts import Item
from glore.where import expected_rollouts
from support.command_line import environment, glore_here
from support.tiny_training import save_base

GOOD, BAD = "Ana : 12 + 7 = 19", "Ana : 12 - 7 = 5"
NUMBERS = re.compile(r"Ana has (\d+)")


def solutions_of(n: int, n_right: int = 2) -> list[LabelledSolution]:
    """Three steps; every `n_right`-th is right, the others go wrong at the second step."""
    made = []
    for i in range(n):
        is_right = i % n_right == 0
        steps = (GOOD, "Tom : 19 - 4 = 15" if is_right else "Tom : 19 - 4 = 14")
        last = f"#### {15 + i}" if is_right else "#### 1"
        made.append(
            LabelledSolution(f"Ana has {i} pens.", (*steps, last), id=f"s{i}", answer=str(15 + i))
        )
    return made


def write(path: Path, solutions: list[LabelledSolution], layout: str = "jsonl") -> Path:
    write_solutions(path, solutions, layout)
    return path


def script(request: Request, seed: int) -> str:
    """Right from a prefix without a wrong step, in three of four rollouts; else never."""
    prompt = "".join(request.segments)
    number = NUMBERS.search(prompt)
    assert number is not None
    is_good = "= 14" not in prompt and seed % 4
    return f"19 and so 15\n#### {15 + int(number[1])}" if is_good else "19 14\n#### 1"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture
def engines(monkeypatch):
    """Every engine that is opened is a script; they are returned."""
    opened: list[ScriptedEngine] = []

    def open_engine(*_: object, **__: object) -> ScriptedEngine:
        opened.append(ScriptedEngine(script, shuffle=3))
        return opened[-1]

    monkeypatch.setattr("glore.engines.open.open_engine", open_engine)
    return opened


def label(job: LabelJob, base: Path, *overrides: str, **options: object) -> list[LabelledSolution]:
    label_file(job, label_config(job, str(base), overrides), SilentProgress(), **options)
    return list(read_solutions(job.output))


def test_labels_hard_soft_and_counts(tmp_path, base, engines):
    source = write(tmp_path / "a.jsonl", solutions_of(6))
    found = label(LabelJob(source, tmp_path / "lazy.jsonl"), base, "rollouts=8", "balance=false")
    assert [s.labels for s in found] == [(True,) * 3, (True, False, False)] * 3
    assert [s.correct for s in found] == [True, False] * 3
    assert found[0].counts is None  # right: no rollout is needed
    for wrong in found[1::2]:
        first, second, last = wrong.counts
        assert last is None
        assert second == (0, 8)
        assert first[0] == 1 <= first[1] <= 8
    full = label(LabelJob(source, tmp_path / "full.jsonl"), base, "full_counts=true")
    rows = [json.loads(line) for line in (tmp_path / "full.jsonl").read_text().splitlines()]
    for solution, row in zip(full, rows, strict=True):
        shares = [right / drawn for right, drawn in solution.counts[:2]]
        assert row["soft_labels"] == [*shares, float(solution.correct)]
    soft = label(LabelJob(source, tmp_path / "soft.jsonl", labels="soft"), base)
    assert [list(s.labels) for s in soft] == [row["soft_labels"] for row in rows]
    assert all(type(x) is float for s in soft for x in s.labels)


def test_labels_depend_on_no_other_solution(tmp_path, base, engines):
    """Nor on their order, on shards, or on the layout of the file."""
    every = solutions_of(8)
    whole = label(LabelJob(write(tmp_path / "a.jsonl", every), tmp_path / "a.out.jsonl"), base)
    some = label(
        LabelJob(write(tmp_path / "b.jsonl", every[5:2:-1]), tmp_path / "b.out.jsonl"), base
    )
    key = {s.id: (s.labels, s.counts) for s in whole}
    assert {s.id: (s.labels, s.counts) for s in some} == {s.id: key[s.id] for s in every[3:6]}


def test_a_killed_labelling_goes_on_to_the_same_bytes(tmp_path, base, monkeypatch):
    source = write(tmp_path / "a.jsonl", solutions_of(80, n_right=100))
    overrides = ("rollouts=128", "full_counts=true")  # 32 solutions per shard
    engine = ScriptedEngine(script)
    monkeypatch.setattr("glore.engines.open.open_engine", lambda *_, **__: engine)
    label(LabelJob(source, tmp_path / "whole.jsonl"), base, *overrides)
    n_whole = engine.n_tokens

    class StoppedError(Exception):
        """Stands for the end of the process."""

    def stops(request: Request, seed: int) -> str:
        if "Ana has 50 " in "".join(request.segments) and request.id.startswith("s50"):
            raise StoppedError
        return script(request, seed)

    job = LabelJob(source, tmp_path / "again.jsonl")
    monkeypatch.setattr("glore.engines.open.open_engine", lambda *_, **__: ScriptedEngine(stops))
    with pytest.raises(StoppedError):
        label(job, base, *overrides)
    assert not job.output.exists()
    rest = ScriptedEngine(script)
    monkeypatch.setattr("glore.engines.open.open_engine", lambda *_, **__: rest)
    label(job, base, *overrides)
    assert job.output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert 0 < rest.n_tokens < 0.7 * n_whole  # a shard of 32 was there
    before = rest.n_tokens
    label(job, base, *overrides)  # all is there: nothing is drawn
    assert rest.n_tokens == before
    with pytest.raises(RunError, match="rollouts"):
        label(job, base, "rollouts=4", "full_counts=true")


def assert_a_kill_changes_nothing(folder: Path, command: list[str], stage: str) -> None:
    """Run a command to its end, and again with kill -9 after the first shard of `stage`."""
    place = {"cwd": folder, "env": environment()}
    subprocess.run([*command, "whole.jsonl"], check=True, timeout=300, **place)
    process = subprocess.Popen([*command, "again.jsonl"], **place)
    shard = folder / f"again.jsonl.work/{stage}/.part-00000.json"
    while process.poll() is None and not shard.exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "again.jsonl").exists()
    subprocess.run([*command, "again.jsonl"], check=True, timeout=300, **place)
    assert (folder / "again.jsonl").read_bytes() == (folder / "whole.jsonl").read_bytes()


@pytest.mark.slow
def test_kill_dash_nine_of_the_command(tmp_path, base):
    """Two shards of 32 solutions with one prefix each; the model is random, so none is right."""
    given = [dataclasses.replace(s, steps=s.steps[1:]) for s in solutions_of(64, n_right=100)]
    write(tmp_path / "a.jsonl", given)
    command = [sys.executable, "-m", "glore", "label", "a.jsonl", "--policy", str(base)]
    command += ["rollouts=128", "full_counts=true", "max_new_tokens=8", "--output"]
    assert_a_kill_changes_nothing(tmp_path, command, "label/stages/rollouts")


def test_the_gold_answer_of_a_solution(tmp_path, base):
    answers = tmp_path / "answers.jsonl"
    rows = [{"question": "Ana  has 1 pens.", "answer": "19 - 4 = 15\n#### 16"}]
    answers.write_text("".join(json.dumps(r) + "\n" for r in rows))
    known = read_answers(answers)
    assert known == {"Ana has 1 pens.": "16"}
    foreign = LabelledSolution("Ana has 1 pens.", ("#### 16",))
    assert answer_of(foreign, known) == "16"
    assert answer_of(LabelledSolution("Q", ("a",), answer="1,234"), {}) == "1,234"
    kept = LabelledSolution("Q", ("a",), layout="trl", fields={"answer": 7})
    assert answer_of(kept, {}) == "7"
    rows.append({"question": "Ana has 1 pens.", "answer": "17"})
    answers.write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(DataError, match="line 2: the answer is '17', but '16' to the same"):
        read_answers(answers)


def test_what_a_file_lacks_is_said_before_a_model_is_opened(tmp_path, base, engines):
    config = label_config(LabelJob(tmp_path / "a", tmp_path / "b"), str(base))
    lacking = [*solutions_of(2), LabelledSolution("Who?", ("me",))]
    with pytest.raises(DataError, match=r"1 of 3 solutions have no gold answer.* number 3 .'Who\?"):
        graded_solutions(lacking, {}, config.task, 0, "a.jsonl")
    for answer, rule in (("18 and 3 pens in words", "numbers among words"), ("nan", "missing")):
        odd = LabelledSolution("Q", ("a",), answer=answer)
        with pytest.raises(DataError, match=f"a.jsonl, solution 1: .*{rule}"):
            graded_solutions([odd], {}, config.task, 0, "a.jsonl")
    twice = [LabelledSolution("Q", ("a",), answer=x) for x in ("3", "4")]
    with pytest.raises(DataError, match="solution 2: the answer is '4', but '3'"):
        graded_solutions(twice, {}, config.task, 0, "a.jsonl")
    assert not engines


def test_drafts_of_a_file(base, tmp_path):
    config = label_config(LabelJob(tmp_path / "a", tmp_path / "b"), str(base))
    given = [
        LabelledSolution("Q", ("so", "#### 3"), id="x", answer="3.0"),
        LabelledSolution("Q ", ("so", "#### 4"), id="x", answer="3"),
        LabelledSolution("R", ("the answer is five",), correct=True, answer="5", generator="g"),
    ]
    problems, drafts, n_other = graded_solutions(given, {}, config.task, 0, "a.jsonl")
    assert [(p.question, p.answer) for p in problems] == [("Q", "3"), ("R", "5")]
    assert [d.id for d in drafts] == ["x#1", "x#2", "solution#3"]
    assert [d.correct for d in drafts] == ["right", "wrong", "right"]  # the file's word counts
    assert n_other == 1
    assert drafts[2].source == "g"
    assert drafts[0].problem_id == drafts[1].problem_id != drafts[2].problem_id


def test_settings_of_labelling(tmp_path, base):
    job = LabelJob(tmp_path / "a", tmp_path / "b.jsonl")
    config = label_config(job, str(base), ["rollouts=3", "engine.max_rows=7", "temperature=0.5"], 9)
    assert (config.labels.rollouts, config.engine.max_rows, config.seed) == (3, 7, 9)
    assert config.labels.temperature == 0.5
    assert config.run_dir == tmp_path / "b.jsonl.work" / "label"
    for wrong, rule in (
        ("rollout=3", "override 'rollout=3': this command reads"),
        ("labels.rollout=3", "unknown key 'labels.rollout'; did you mean rollouts"),
        ("reward.samples=3", "this command reads the settings of labels, engine"),
        ("rollouts=0", "labels.rollouts"),
    ):
        with pytest.raises(ConfigError, match=re.escape(rule)):
            label_config(job, str(base), [wrong])
    with pytest.raises(ConfigError, match="soft labels need labels"):
        label_config(
            LabelJob(job.source, job.output, labels="soft"), str(base), ["full_counts=false"]
        )


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.integers(1, 6),
    st.floats(0, 1, allow_subnormal=False),
)
def test_expected_tokens_of_a_scan(rest, k, p):
    """The mean over the places of the first wrong step, each by the exact formula of the scan."""
    by_place = []
    for n_good in range(len(rest) + 1):
        total = reach = 0.0
        reach = 1.0
        for i in range(len(rest) - 1, n_good - 2, -1):
            if i < 0:
                break
            rate = p if i < n_good else 0.0
            total += reach * expected_rollouts([rate], k) * rest[i]
            reach *= (1 - rate) ** k
        by_place.append(total)
    assert np.isclose(scanned_tokens(rest, k, p), np.mean(by_place))


def test_cost_counts_the_tokens_that_are_left(base):
    def draft(name: str, correct: str, *steps: str) -> Solution:
        return Solution(name, "q", steps, None, correct, "s", None, 0, "eos", 0, 1.0)

    drafts = [draft("a", "wrong", GOOD, GOOD, "#### 15"), draft("b", "right", GOOD, "#### 15")]
    drafts.append(draft("c", "unknown", GOOD, GOOD))
    from glore.models import load_tokenizer

    tokenizer = load_tokenizer(base)
    line, last = (len(tokenizer(s + "\n")["input_ids"]) for s in (GOOD, "#### 15"))
    full = rollout_cost(drafts, LabelSettings(rollouts=4, full_counts=True), base)
    assert full.expected == full.at_most == full.full == 4 * ((line + last + 1) + 2 * (last + 1))
    lazy = rollout_cost(drafts, LabelSettings(rollouts=4), base)
    assert (lazy.n_drafts, lazy.n_drawn, lazy.full) == (3, 1, full.full)
    assert lazy.at_most == 4 * (line + 2 * (last + 1))
    assert 0 < lazy.expected < lazy.at_most
    assert "3 solutions, 1 of which need rollouts" in lazy.said(10.0)
    short = rollout_cost(drafts, LabelSettings(rollouts=4, max_new_tokens=8), base)
    assert short.at_most < lazy.at_most


def labelled(n: int) -> list[LabelledSolution]:
    """Solutions whose labels a tiny model can see: every second one takes away."""
    return [
        LabelledSolution(
            f"Ana has {i} pens.",
            (BAD if i % 2 else GOOD, "#### 15"),
            (i % 2 == 0,) * 2,
            id=f"s{i}",
            answer="15",
            correct=i % 2 == 0,
            kept=(True, i % 3 != 0),
        )
        for i in range(n)
    ]


def test_labels_to_train_on():
    steps = ("a", "b", "c")
    given = [
        LabelledSolution("Q", steps, (True, "neutral", False), correct=True),
        LabelledSolution("Q", steps, (True, False, None), correct=False, kept=(False, True, True)),
        LabelledSolution("Q", steps, None, correct=None),
    ]
    found, left_out = training_solutions(given, LabelRule("sorm"), "f")
    assert [s.labels for s in found] == [(True, True, False), (True, False, False)]
    assert [s.kept for s in found] == [(True,) * 3, (False, True, False)]
    assert left_out == {"without step labels to learn": 1}
    found, _ = training_solutions(given, LabelRule("prm", neutral="missing"), "f")
    assert found[0].kept == (True, False, True)
    found, left_out = training_solutions(given, LabelRule("orm"), "f")
    assert [s.labels for s in found] == [(True,) * 3, (False,) * 3]
    assert sum(left_out.values()) == 1
    assert all(all(s.kept) for s in found)
    soft = [LabelledSolution("Q", steps, (1.0, 0.25, 0.0))]
    found, _ = training_solutions(soft, LabelRule("prm"), "f")
    assert found[0].labels == (1.0, 0.25, 0.0)
    found, _ = training_solutions(soft, LabelRule("prm", threshold=0.0), "f")
    assert found[0].labels == (True, True, False)
    with pytest.raises(ConfigError, match="a reward model can be orm, sorm, prm, contrastive"):
        LabelRule("dpo")
    with pytest.raises(DataError, match="no solution has labels for the sorm: 1 without step"):
        training_solutions(given[2:], LabelRule("sorm"), "f")


SMALL = ("learning_rate=0.01", "batch_size=4", "epochs=2", "max_length=96", "engine.device=cpu")


def train(rule: str, solutions, base: Path, output: Path, *overrides: str, **options: object):
    config = train_config(LabelRule(rule), str(base), output, (*SMALL, *overrides))
    return train_file(
        solutions, LabelRule(rule), config, output, SilentProgress(), where="f", **options
    )


def test_train_then_score(tmp_path, base):
    made = train("sorm", labelled(48), base, tmp_path / "sorm", "epochs=8", held_out=0.3)
    assert made.good_steps + made.bad_steps < 96
    assert made.held_out is not None
    assert made.held_out.natural.n > 0
    card = (tmp_path / "sorm" / "README.md").read_text()
    assert f"n={made.held_out.natural.n} steps" in card
    assert "Not measured" not in card
    assert not (tmp_path / "sorm.work").exists()
    with pytest.raises(RunError, match="is there already"):
        train("sorm", labelled(48), base, tmp_path / "sorm")
    scored = score(tmp_path / "sorm", labelled(12), tmp_path / "s.jsonl")
    with open_reward_model(tmp_path / "sorm") as scorer:
        single = [scorer.score([(s.question, s.steps)])[0] for s in labelled(12)]
    rows = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert np.allclose([r["scores"] for r in rows], single, atol=1e-5)
    assert (scored.n_solutions, scored.n_steps, scored.steps.natural.n) == (12, 24, 24)
    assert scored.steps.natural.value > 0.9  # it has learned what a tiny model can see
    assert [r["first_bad"] for r in rows] == [-1, 0] * 6
    assert [s.labels for s in read_solutions(tmp_path / "s.jsonl")] == [
        s.labels for s in labelled(12)
    ]


def test_soft_labels_are_learned_as_they_are(tmp_path, base):
    """p is what a tiny model sees in a step: it learns 0.8 for one that adds, 0.3 for the other."""
    soft = [
        LabelledSolution(
            s.question, s.steps[:1], (0.8 if s.labels[0] else 0.3,), id=s.id, correct=s.correct
        )
        for s in labelled(48)
    ]
    made = train("prm", soft, base, tmp_path / "prm", "epochs=12", held_out=0.3)
    assert (made.good_steps, made.bad_steps) == (0, 0)
    assert made.soft_steps + made.held_out.natural.n == 48
    assert made.held_out.natural.value > 0.9
    card = (tmp_path / "prm" / "README.md").read_text()
    assert "A soft label above 0.5 counts as good." in card
    with open_reward_model(tmp_path / "prm") as scorer:
        scores = scorer.score([(s.question, s.steps) for s in labelled(12)])
    assert np.allclose([p[0] for p in scores], [0.8, 0.3] * 6, atol=0.1)
    same = [dataclasses.replace(s, labels=(0.3,)) for s in soft]
    with pytest.raises(DataError, match=r"0 good and 0 bad .* 48 steps of the soft label 0\.3,"):
        train("prm", same, base, tmp_path / "same")


def several(n: int) -> list[LabelledSolution]:
    """Four solutions of each question, one or two of them wrong: they take away."""
    made = []
    for i in range(n):
        for k in range(4):
            right = k >= 1 + i % 2
            steps = (GOOD if right else BAD, f"Tom : {k}", "#### 15")
            made.append(
                LabelledSolution(f"Ana has {i} pens.", steps, id=f"q{i}-{k}", correct=right)
            )
    return made


def test_pairs_of_a_file(tmp_path, base):
    given = several(6)
    lone = LabelledSolution("Who?", ("me",), correct=True)
    found, left_out = training_solutions(
        [*given, lone, dataclasses.replace(lone, correct=None)], LabelRule("contrastive"), "f"
    )
    assert left_out == {"that don't say whether the final answer is right (field correct)": 1}
    pairs = training_pairs(found, 0, "f")
    assert len(pairs) == 3 * (1 + 2)  # min(right, wrong) of each question
    for right, wrong in pairs:
        assert right.question == wrong.question
        assert (right.labels[-1], wrong.labels[-1]) == (True, False)
    assert len({s.id for pair in pairs for s in pair}) == 2 * len(pairs)
    backwards, _ = training_solutions(given[::-1], LabelRule("contrastive"), "f")
    assert {(a.id, b.id) for a, b in training_pairs(backwards, 0, "f")} == {
        (a.id, b.id) for a, b in pairs
    }
    with pytest.raises(
        DataError, match=r"none of 1 questions has both \(1 right and 0 wrong solutions\)"
    ):
        train("contrastive", [lone], base, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_train_a_contrastive_model_then_rank(tmp_path, base):
    made = train("contrastive", several(24), base, tmp_path / "rm", "epochs=12", held_out=0.3)
    assert (made.good_steps, made.bad_steps) == (0, 0)
    n_held = made.held_out.above.n
    assert 0 < n_held < 24
    assert made.held_out.n_pairs in range(3 * n_held, 4 * n_held + 1)
    assert made.held_out.above.value > 0.9  # it has learned what a tiny model can see
    card = (tmp_path / "rm" / "README.md").read_text()
    assert f"n={n_held} questions with {made.held_out.n_pairs} pairs" in card
    assert "in pairs of a right and a wrong solution" in card
    scored = score(tmp_path / "rm", several(8), tmp_path / "s.jsonl")
    assert scored.ranked.above.value > 0.9
    assert (scored.ranked.above.n, scored.ranked.n_pairs) == (8, 4 * 3 + 4 * 4)


def test_ranking_by_hand():
    found = agreed(
        ["p", "p", "p", "q", "q", "r"],
        [None] * 6,
        [(0.1, 0.5), (0.9, 0.5), (0.2,), (0.1,), (0.3,), (0.9,)],
        correct=[True, False, False, True, False, True],
    ).ranked()
    assert (found.above.value, found.above.n, found.n_pairs) == ((0.5 + 1 + 0) / 3, 2, 3)
    assert agreed(["p"], [None], [(0.5,)], correct=[True]).ranked().above.value is None


def test_a_training_goes_on_from_its_checkpoint(tmp_path, base, monkeypatch):
    train("orm", labelled(32), base, tmp_path / "whole", "save_steps=3")
    from glore.training import resume

    complete, n_steps = resume.complete, []

    def stops(folder: Path, step: int) -> None:
        complete(folder, step)
        n_steps.append(step)
        if step == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr("glore.training.watch.complete", stops)
    with pytest.raises(KeyboardInterrupt):
        train("orm", labelled(32), base, tmp_path / "again", "save_steps=3")
    assert not (tmp_path / "again").exists()
    assert (tmp_path / "again.work").exists()
    n_steps.clear()
    monkeypatch.setattr(
        "glore.training.watch.complete", lambda f, s: (n_steps.append(s), complete(f, s))
    )
    train("orm", labelled(32), base, tmp_path / "again", "save_steps=3")
    assert min(n_steps) > 6
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_mistakes_of_a_training_are_said_before_it(tmp_path, base):
    with pytest.raises(DataError, match="f: the sorm has 2 good and 0 bad steps"):
        train("sorm", [LabelledSolution("Q", ("a", "b"), (True, True))], base, tmp_path / "m")
    with pytest.raises(ConfigError, match="did you mean learning_rate"):
        train("sorm", labelled(4), base, tmp_path / "m", "reward.sorm.learning_rat=1.0")
    with pytest.raises(ConfigError, match="labels"):
        train("sorm", labelled(4), base, tmp_path / "m", "labels.rollouts=3")
    with pytest.raises(ConfigError, match="held-out is a share"):
        train("sorm", labelled(4), base, tmp_path / "m", held_out=1.0)
    assert not (tmp_path / "m").exists()


def score(
    model: Path,
    given: list[LabelledSolution] | Path,
    output: Path,
    *overrides: str,
    **options: object,
) -> Scored:
    source = given if isinstance(given, Path) else write(output.with_suffix(".in.jsonl"), given)
    redo = bool(options.pop("redo", False))
    job = ScoreJob(source, output, str(model), **options)
    return score_file(job, score_config(job, ("engine.device=cpu",)), SilentProgress(), redo=redo)


class Knows:
    """A scorer by function; it counts the solutions that it was asked for."""

    backend, warning = "a function", ""

    def __init__(self, says: Callable[[Item], tuple[float, ...]]) -> None:
        self.says, self.n_scored = says, 0

    def fits(self, items: Sequence[Item]) -> list[bool]:
        return [len(steps) < 9 for _, steps in items]

    def score(self, items: Sequence[Item]) -> list[tuple[float, ...]]:
        self.n_scored += len(items)
        return list(map(self.says, items))

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def rm(base, tmp_path_factory):
    """A reward model of ours."""
    folder = tmp_path_factory.mktemp("rm") / "rm"
    train("sorm", labelled(4), base, folder, "max_steps=1")
    return folder


@pytest.fixture
def scorer(monkeypatch):
    """Every reward model that is opened is a function: the numbers of its question and step."""

    def says(item: Item) -> tuple[float, ...]:
        return tuple(1 / (2 + len(item[0]) + i) for i in range(len(item[1])))

    found = Knows(says)
    monkeypatch.setattr("glore.reward_models.open.open_reward_model", lambda *_: found)
    return found


def test_a_solution_that_does_not_fit_is_counted(tmp_path, rm, scorer):
    given = [LabelledSolution("Q", ("a",) * n, (True,) * n) for n in (2, 9, 1)]
    scored = score(rm, given, tmp_path / "s.jsonl", threshold=0.1)
    rows = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert [r["scores"] for r in rows] == [[1 / 3, 1 / 4], None, [1 / 3]]
    assert [r["first_bad"] for r in rows] == [-1, None, -1]
    assert (scored.n_solutions, scored.n_steps, scored.n_too_long) == (3, 3, 1)
    assert not (tmp_path / "s.jsonl.work").exists()


def test_a_killed_scoring_goes_on_to_the_same_bytes(tmp_path, rm, scorer, monkeypatch):
    monkeypatch.setattr("glore.solution_files.score.SCORED_TOGETHER", 16)
    source = write(tmp_path / "a.jsonl", labelled(50))
    score(rm, source, tmp_path / "whole.jsonl")
    assert scorer.n_scored == 50

    class StoppedError(Exception):
        """Stands for the end of the process."""

    says = scorer.says

    def stops(item: Item) -> tuple[float, ...]:
        if "Ana has 40 " in item[0]:
            raise StoppedError
        return says(item)

    scorer.says, output = stops, tmp_path / "again.jsonl"
    with pytest.raises(StoppedError):
        score(rm, source, output)
    assert not output.exists()
    scorer.says, scorer.n_scored = says, 0
    with pytest.raises(RunError, match=r"scores.*redo"):  # of another file
        score(rm, write(tmp_path / "b.jsonl", labelled(49)), output)
    with pytest.raises(RunError, match=r"layout of the model"):
        score(rm, source, output, layout="trl")
    assert scorer.n_scored == 0
    score(rm, source, output)
    assert scorer.n_scored == 18  # two shards of 16 were there
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not (tmp_path / "again.jsonl.work").exists()
    scored = score(rm, source, output, threshold=0.01)  # again, from the beginning
    assert (scorer.n_scored, scored.steps.natural.value) == (68, 0.5)


@pytest.mark.slow
def test_kill_dash_nine_of_a_scoring(tmp_path, rm):
    """Two shards; the second is under way when the process is killed."""
    source = write(tmp_path / "a.jsonl", [labelled(300)[i % 300] for i in range(2500)])
    command = [sys.executable, "-m", "glore", "score", str(source), "--model", str(rm), "--output"]
    assert_a_kill_changes_nothing(tmp_path, command, "score/stages/scores")


def test_memory_of_a_scoring_does_not_grow_with_the_file(tmp_path, rm, scorer, monkeypatch):
    monkeypatch.setattr("glore.solution_files.score.SCORED_TOGETHER", 32)
    steps = ("x" * 60_000, "#### 1")
    source = tmp_path / "a.jsonl"
    with source.open("w") as file:
        for i in range(640):  # 38 MB
            row = {"question": f"Q{i % 50}", "steps": steps, "labels": [True, False]}
            file.write(json.dumps(row) + "\n")
    score(rm, source, tmp_path / "warm.jsonl")
    tracemalloc.start()
    try:
        scored = score(rm, source, tmp_path / "s.jsonl")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert scored.n_solutions == 640
    assert peak < 20e6  # 16 MiB of it are a buffer for a model's config.json


def test_processbench_is_read_scored_and_written(tmp_path, data_dir, rm, scorer):
    """A scorer that knows the labels finds every first error; the file comes back as it was."""
    source = data_dir / "processbench" / "gsm8k.json"
    first = {(s.question, s.steps): s.labels for s in read_solutions(source)}
    scorer.says = lambda item: tuple(0.9 * (x is True) for x in first[item])
    scorer.fits = lambda items: [True] * len(items)
    scored = score(rm, source, tmp_path / "s.jsonl")
    found = scored.first
    assert (found.wrong.n, found.right.n, found.f1.n) == (207, 193, 400)
    assert (found.f1.value, scored.steps.natural.value) == (1.0, 1.0)
    write_solutions(tmp_path / "back.json", read_solutions(tmp_path / "s.jsonl"), "processbench")
    kept = json.loads(source.read_text(encoding="utf-8"))
    assert json.loads((tmp_path / "back.json").read_text(encoding="utf-8")) == kept


def agreed(
    questions: list[str],
    labels: list[Any],
    scores: list[tuple[float, ...]],
    threshold: float = 0.5,
    correct: list[bool | None] | None = None,
) -> Agreement:
    found = Agreement(threshold)
    for q, x, c, p in zip(questions, labels, correct or [None] * len(scores), scores, strict=True):
        found.add(q, x, c, p)
    return found


def test_accuracy_and_f1_by_hand():
    questions = ["p", "q", "r", "s"]
    labels = [(True, True), (True, False, None), (False, None), None]
    scores = [(0.9, 0.6), (0.8, 0.2, 0.1), (0.7, 0.1), (0.5,)]
    judged = agreed(questions, labels, scores).steps()
    assert (judged.natural.value, judged.natural.n) == (4 / 5, 5)
    assert judged.balanced.value == pytest.approx((3 / 3 + 1 / 2) / 2)
    found = agreed(questions, labels, scores).first_errors()
    assert (found.wrong.value, found.wrong.n, found.right.value, found.right.n) == (0.5, 2, 1.0, 1)
    assert found.f1.value == pytest.approx(2 * 0.5 / 1.5)
    strict = agreed(questions, labels, scores, threshold=0.75).first_errors()
    assert (strict.wrong.value, strict.right.value, strict.f1.value) == (1.0, 0.0, 0.0)
    assert agreed(["q"], [None], [(0.5,)]).steps().natural.value is None
    unlabelled_before = agreed(["q"], [(None, False)], [(0.9, 0.1)]).first_errors()
    assert unlabelled_before.f1.n == 0


def test_a_command_says_mistakes_in_one_line(tmp_path, base):
    write(tmp_path / "a.jsonl", solutions_of(2))
    write(tmp_path / "b.jsonl", [LabelledSolution("Q", ("a", "b"), (True, False))])
    for command, rule in (
        (["label", "a.jsonl", "--policy", "none/here/x", "--output", "o.jsonl"], "none/here/x"),
        (["label", "a.jsonl", "--policy", str(base), "--output", "a.jsonl"], "is the file that"),
        (["label", "b.jsonl", "--policy", str(base), "--output", "o.jsonl"], "no gold answer"),
        (["label", "c.jsonl", "--policy", str(base), "--output", "o.jsonl"], "c.jsonl"),
        (["train", "dpo", "b.jsonl", "--base", str(base), "--output", "m"], "orm, sorm, prm"),
        (["train", "orm", "b.jsonl", "--base", str(base), "--output", "m"], "field correct"),
        (["score", "b.jsonl", "--model", str(base), "--output", "o.jsonl"], "language model"),
    ):
        ended = glore_here(tmp_path, *command)
        assert (ended.returncode, ended.stdout) == (2, ""), ended
        assert rule in ended.stderr.splitlines()[-1], ended.stderr
        assert sum(line.startswith("error:") for line in ended.stderr.splitlines()) == 1
    assert not (tmp_path / "m").exists()
    assert not (tmp_path / "o.jsonl").exists()


def test_trials_are_records_of_a_run(tmp_path, base, engines):
    """The texts of the rollouts are kept beside the output, as a run keeps them."""
    from glore.records import read_records

    job = LabelJob(write(tmp_path / "a.jsonl", solutions_of(2)), tmp_path / "b.jsonl")
    label(job, base)
    folder = tmp_path / "b.jsonl.work/label/stages/rollouts"
    trials = read_records(sorted(folder.glob("*.parquet")), PrefixTrials)
    assert {t.solution_id for t in trials} == {"s1"}
    assert all(len(t.completions) == len(t.correct) for t in trials)
