"""task.kind=reasoning_gym: with a made-up package, and with the real one where it is installed."""

import importlib.util
import time

import pytest

from glore.config import ReasoningGymTaskSettings, TaskSettings
from glore.errors import ConfigError, DataError
from glore.tasks import open_task
from glore.tasks.open import open_grader
from glore.tasks.reasoning_gym import task as gym

FAKE = """
import random, time

class Data:
    def __init__(self, name, size, seed, offset=0):
        self.name, self.size, self.seed, self.offset = name, size, seed, offset

    def __getitem__(self, i):
        print("noise on stdout")
        rng = random.Random(f"{self.seed}/{i}")
        a, b = rng.randint(0, 30), rng.randint(0, 30)
        question, answer = f"What is {a} + {b}?", str(a + b + self.offset)
        metadata = {"answer_cot": f"{a} + {b} = {a + b}\\n#### {a + b}", "never": object()}
        if self.name == "words":
            return {"question": question, "answer": "even" if (a + b) % 2 == 0 else "odd"}
        if self.name == "differs":
            question = f"Which comes first of {a}, {b}: {list({str(k) for k in range(50)})}?"
        if self.name == "none":
            answer = None
        return {"question": question, "answer": answer, "metadata": metadata}

    def score_answer(self, answer, entry):
        if answer == "slow":
            time.sleep(60)
        if answer == "fails":
            raise ValueError(answer)
        return 1.0 if answer == entry["answer"] else 0.5

def create_dataset(name, **kwargs):
    if name not in ("sums", "words", "differs", "none"):
        raise ValueError(f"Dataset {name!r} not registered")
    return Data(name, **kwargs)
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    (tmp_path / "reasoning_gym.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(gym, "is_installed", lambda name: name == "reasoning_gym")
    gym._splits.cache_clear()
    yield tmp_path / "reasoning_gym.py"
    gym._splits.cache_clear()


def settings(**more):
    return ReasoningGymTaskSettings(**{"name": "sums", "size": 100, "n_dev": 10, **more})


def test_items_become_three_splits_without_a_common_question(fake):
    task = open_task(settings(), seed=3)
    parts = {split: task.problems(split) for split in ("train", "dev", "test")}
    questions = [p.question for part in parts.values() for p in part]
    assert len(set(questions)) == len(questions) == 100 - task.left_out()["duplicates"]
    assert task.left_out()["duplicates"] > 0
    assert [p.split for p in parts["dev"]] == ["dev"] * 10
    problem = parts["train"][0]
    assert problem.solution is not None
    assert problem.solution[-1] == f"#### {problem.answer}"
    assert task.grade(problem, problem.solution).verdict == "right"
    assert task.grade(problem, (f"#### {problem.answer}.5",)).verdict == "wrong"
    assert open_task(settings(), seed=4).problems("test") == parts["test"]
    assert open_task(settings(seed=1), seed=4).problems("test") != parts["test"]
    assert len(open_task(settings(max_test=5), 0).problems("test")) == 5


def test_a_worked_solution_with_another_answer_is_left_out(fake):
    task = open_task(settings(config={"offset": 1}), seed=0)
    assert all(p.solution is None for p in task.problems("train"))


def test_its_own_score_grades_within_a_limit(fake, monkeypatch):
    task = open_task(settings(name="words", grader="own"), seed=0)
    problem = task.problems("test")[0]
    assert task.grade(problem, ("x", f"#### {problem.answer}")).verdict == "right"
    assert task.grade(problem, ("#### neither",)).verdict == "wrong"
    assert task.grade(problem, ("no answer",)).verdict == "wrong"
    assert task.grade(problem, ("#### fails",)).verdict == "unknown"
    monkeypatch.setattr(gym, "SCORE_SECONDS", 0.5)
    started = time.monotonic()
    assert task.grade(problem, ("#### slow",)).verdict == "unknown"
    assert time.monotonic() - started < 20
    monkeypatch.setattr(gym, "SCORE_SECONDS", 20.0)
    again = open_grader(settings(name="words", grader="own"), 0, [problem])
    for known in (task, again):
        assert known.grade(problem, (f"#### {problem.answer}",)).verdict == "right"
        known.close()


def test_sets_that_cannot_be_used_are_refused(fake):
    for name, message in {
        "differs": "differ between two calls with one seed",
        "none": "names no answer of its own",
        "nothing": "Dataset 'nothing' not registered",
        "words": r"100 of 100 items don't have their own answer graded right \(words-00000 'even'|"
        r"100 of 100 items don't have their own answer graded right \(words-00000 'odd'",
    }.items():
        with pytest.raises(ConfigError, match=message):
            open_task(settings(name=name), seed=0)
    fake.write_text(FAKE + "\n\ndef other(answer):\n    return eval(answer)\n")
    with pytest.raises(ConfigError, match="evaluating its text as code"):
        open_task(settings(grader="own", size=20), seed=0)
    with pytest.raises(DataError, match="n_dev"):
        open_task(settings(size=10, n_dev=50), seed=0)


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(gym, "is_installed", lambda name: False)
    gym._splits.cache_clear()
    with pytest.raises(ConfigError, match=r"pip install 'glore\[reasoning-gym\]'"):
        open_task(settings(), seed=0)


def test_its_settings_are_of_its_kind_alone():
    found = TaskSettings(kind="reasoning_gym", name="chain_sum", config={"max_terms": 3})
    assert isinstance(found, ReasoningGymTaskSettings)
    assert found.fingerprint_fields()["name"] == "chain_sum"
    with pytest.raises(ValueError, match="size is for tasks of kind reasoning_gym"):
        TaskSettings(kind="gsm8k", size=5)
    with pytest.raises(ValueError, match="name"):
        TaskSettings(kind="reasoning_gym", name="../x")
    assert "size" not in TaskSettings(kind="jsonl", path="x").fingerprint_fields()


@pytest.mark.skipif(
    importlib.util.find_spec("reasoning_gym") is None,
    reason="reasoning-gym is not installed (pip install 'glore[reasoning-gym]')",
)
def test_the_real_package():
    task = open_task(ReasoningGymTaskSettings(size=300, n_dev=20), seed=0)
    train = task.problems("train")
    assert len(train) + len(task.problems("dev")) + len(task.problems("test")) > 250
    worked = [p for p in train if p.solution is not None]
    assert len(worked) > 0.95 * len(train)
    assert all(task.grade(p, p.solution).verdict == "right" for p in worked)
    for name in ("list_functions", "boxnet"):
        with pytest.raises(ConfigError):
            open_task(ReasoningGymTaskSettings(name=name, size=20, n_dev=2), seed=0)
