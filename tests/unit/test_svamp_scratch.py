"""Base documents for SVAMP: sound, deterministic, and free of dev and test wordings."""

from __future__ import annotations

import json
import random
import re
from fractions import Fraction
from pathlib import Path

import pytest

from glore.config import TaskSettings
from glore.errors import DataError
from glore.prompts import BAD_MARK
from glore.tasks import ScratchTask, open_task
from glore.tasks.protocol import Document
from glore.tasks.svamp.equations import parse_infix, parse_prefix, worked_lines
from glore.tasks.svamp.scratch import SvampFromScratch, redrawn
from glore.tasks.svamp.templates import Template, lettered, wording

HEADER = "Question,Numbers,Equation,Answer\n"
SHARE = (
    '"jo \'s mom shares number0 pens , among number1 kids . how many each ?",'
    "56.0 9.0,/ number0 number1,6.2\n"
)
NAMES = ("Ann", "Bea", "Cem")
LEAK = "Tom had number0 pens . How many of kind number1 ?,7 10,+ number0 number1,17\n"
LINE = re.compile(
    r"(?:(?P<given>[A-Z] \d+(?:, [A-Z] \d+)*): )?(?:(?P<said>\w+ [-+*/] \w+) = )?"
    r"(?P<a>\d+) (?P<sign>[-+*/]) (?P<b>\d+)(?: \(.*\))? = (?P<c>\d+)\n"
)


def svamp_row(i: int, wording: str = "Ann", answer: float | None = None) -> dict[str, object]:
    numbers = f"{wording} had {3 * i + 5} pens and lost {i + 1}"
    return {
        "ID": f"chal-{i}",
        "Body": numbers + "." * (i % 2),
        "Question": f"How many of kind {wording} are left?",
        "Equation": f"( {3 * i + 5}.0 - {i + 1}.0 )",
        "Answer": 2.0 * i + 4 if answer is None else answer,
    }


def opened(tmp_path: Path, csv: str) -> SvampFromScratch:
    rows = [svamp_row(i, f"Ann{chr(97 + i)}", answer=99 if i == 0 else None) for i in range(10)]
    rows[9] |= {
        "Body": "Tom had 31 pens",
        "Question": "How many of kind 11?",
        "Equation": "( 31.0 + 11.0 )",
        "Answer": 42,
    }
    (tmp_path / "SVAMP.json").write_text(json.dumps(rows))
    (tmp_path / "given.csv").write_text(csv, encoding="utf-8")
    settings = TaskSettings(
        kind="svamp", path=str(tmp_path), n_dev=1, scratch_path=str(tmp_path / "given.csv")
    )
    task = open_task(settings, seed=0)
    assert isinstance(task, SvampFromScratch)
    assert isinstance(task, ScratchTask)
    return task


def drawn(task: SvampFromScratch, seed: int, n: int) -> list[Document]:
    rng = random.Random(seed)
    return [task.base_document(rng, i / n) for i in range(n)]


def pieces(document: Document, learnt: bool) -> list[str]:
    return [text for text, flag in document if flag == learnt]


def test_templates_are_untokenised_and_leaks_and_contradictions_left_out(tmp_path: Path) -> None:
    task = opened(tmp_path, HEADER + SHARE + LEAK)
    templates = task.templates
    assert [t.text for t in templates.given] == [
        "Jo's mom shares number0 pens, among number1 kids. How many each?"
    ]
    assert (templates.n_leaks, templates.n_unusable, len(templates.svamp)) == (1, 1, 5)
    assert task.left_out() == {
        "duplicates": 0,
        "in_another_split": 0,
        "templates_like_test": 1,
        "templates_unusable": 1,
    }
    assert re.fullmatch(
        r"Ann\w had number0 pens and lost number1\. How many of kind Ann\w are left\?",
        templates.svamp[0].text,
    )


def test_documents_are_deterministic_and_every_worked_line_is_true(tmp_path: Path) -> None:
    task = opened(tmp_path, HEADER + SHARE)
    documents = drawn(task, 1, 600)
    assert documents == drawn(task, 1, 600)
    assert documents != drawn(task, 2, 600)
    compute = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": lambda a, b: a / b}
    marked = drafts = drills = early = 0
    for i, document in enumerate(documents):
        read, steps = pieces(document, learnt=False), pieces(document, learnt=True)
        assert "number0" not in "".join(read)
        drill = not read[0].startswith("Question: ")
        lines = [a + b for a, b in zip(read, steps, strict=True)] if drill else steps[:-1]
        numbers: dict[str, str] = {}
        for line in lines:
            match = LINE.fullmatch(line)
            assert match, line
            assert compute[match["sign"]](int(match["a"]), int(match["b"])) == int(match["c"])
            if match["given"]:
                numbers = dict(part.split() for part in match["given"].split(", "))
                assert list(numbers.values()) == re.findall(
                    r"\b\d+\b", read[0].partition("Draft:")[0]
                )
            if match["said"]:
                said = re.sub(
                    r"[A-Z]", lambda letter, given=numbers: given[letter[0]], match["said"]
                )
                assert said == f"{match['a']} {match['sign']} {match['b']}"
        assert drill or numbers
        drills += drill and i >= 90
        early += drill and i < 90
        if drill:
            assert len(lines) == 8
            assert all(re.fullmatch(r"\d+ [-+*/] \d+", text) for text in read), (
                "a drill's question is read, all after it is learnt"
            )
            continue
        assert steps[-1] == f"#### {steps[-2].split()[-1]}\n"
        if "Draft:" in read[0]:
            drafts += 1
            marked += BAD_MARK in read
            assert (read[1:-1] == steps) == (BAD_MARK not in read)
            assert read[-1] == "Answer:\n"
    assert 0.1 < drills / 510 < 0.2
    assert 0.5 < early / 90 < 0.7, "sums first"
    assert 0.1 < drafts / len(documents) < 0.2
    assert 0.35 < marked / drafts < 0.65


def test_problems_come_in_other_words_and_never_in_those_of_dev_or_test(tmp_path: Path) -> None:
    names = "".join(
        f'"{name} had number0 pens. She lost number1. How many of kind {name} are left?",'
        "9 1,- number0 number1,8\n"
        for name in NAMES
    )
    task = opened(tmp_path, HEADER + names * 3)
    closed = {wording(p.question) for split in ("dev", "test") for p in task.problems(split)}
    task.templates = task.templates._replace(
        closed=frozenset(
            {*closed, wording("Bea had # pens. She lost #. How many of kind Bea are left?")}
        )
    )
    wordings = set()
    for document in drawn(task, 3, 1500):
        text = document[0][0]
        if text.startswith("Question: "):
            wordings.add(wording(text.removeprefix("Question: ").splitlines()[0]))
    assert not wordings & task.templates.closed
    assert len([w for w in wordings if "cem had # pens" in w]) > 1, (
        "with a sentence more, and without"
    )


def test_every_number_of_a_wording_has_a_letter_and_its_slot_s_leaf() -> None:
    numbers, letters = lettered(
        "number0 pens, 12 kids, number0 and number1 of number7?",
        {"number0": Fraction(5), "number1": Fraction(12)},
    )
    assert numbers == (5, 12, 5, 12)
    assert letters == {"number0": "A", Fraction(12): "B", "number1": "D"}
    assert lettered("Write number7.", {}) == ((), {})


def test_redrawn_numbers_keep_their_size_and_give_positive_whole_results() -> None:
    rng = random.Random(0)
    tree = parse_prefix("/ - number0 number1 number2")
    template = Template(
        "", tree, {"number0": Fraction(48), "number1": Fraction(6), "number2": Fraction(7)}
    )
    fresh = [redrawn(rng, template) for _ in range(50)]
    assert len({tuple(slots.values()) for slots in fresh if slots}) > 25
    for slots in fresh:
        assert slots is not None
        results = [line.split("= ")[-1] for line in worked_lines(tree, slots)[:-1]]
        assert all(result.isdecimal() and int(result) > 0 for result in results)
        assert len(str(slots["number1"])) == len(str(slots["number2"])) == 1
    assert redrawn(rng, Template("", parse_infix("( 5.0 - 7.0 )"), {})) is None


@pytest.mark.parametrize(
    ("csv", "complaint"),
    [
        ("", "line 1: the column Question, Numbers, Equation, Answer is missing"),
        ("Question,Numbers\n", "line 1: the column Equation, Answer is missing"),
        (HEADER, "has no usable problem"),
        (HEADER + LEAK, "has no usable problem"),
        (
            HEADER + SHARE + "q number0,,number0,1\n",
            "line 3: Question, Numbers and Equation must not be empty",
        ),
        (HEADER + "q number0,x,number0,1\n", "line 2: the column 'Numbers' has 'x'"),
        (HEADER + "q number1,1,number0,1\n", "line 2: there is no number for number1"),
        (HEADER + "q number0,1,+ number0,1\n", "line 2: the column 'Equation': the equation"),
    ],
)
def test_malformed_csv(tmp_path: Path, csv: str, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint) as caught:
        opened(tmp_path, csv)
    assert str(tmp_path / "given.csv") in str(caught.value)


@pytest.mark.parametrize(
    ("equation", "complaint"),
    [
        ("( 3 + )", "'( 3 + )' has ')' where a number should be"),
        ("( 3 / 0 )", "the equation divides by zero"),
        ("3 + 4", "goes on after its end"),
        ("( number0 + 4 )", "uses 'number0', for which there is no number"),
        (" ", "is empty"),
    ],
)
def test_a_malformed_equation_is_reported_with_its_place(
    tmp_path: Path, equation: str, complaint: str
) -> None:
    rows = [svamp_row(i, f"Ann{chr(97 + i)}") for i in range(10)]
    rows[2]["Equation"] = equation
    (tmp_path / "SVAMP.json").write_text("[" + ",\n".join(map(json.dumps, rows)) + "]")
    (tmp_path / "given.csv").write_text(HEADER + SHARE, encoding="utf-8")
    settings = TaskSettings(
        kind="svamp", path=str(tmp_path), n_dev=1, scratch_path=str(tmp_path / "given.csv")
    )
    with pytest.raises(DataError) as caught:
        open_task(settings, seed=0)
    assert str(caught.value).startswith(f"{tmp_path / 'SVAMP.json'}, line 3: the field 'Equation'")
    assert complaint in str(caught.value)
    if equation.strip():
        assert str(caught.value).endswith("; correct it or remove the problem")


def test_the_real_files_share_no_wording_with_the_test_set(data_dir: Path) -> None:
    folder = data_dir / "svamp"
    task = open_task(
        TaskSettings(
            kind="svamp",
            path=str(folder),
            n_dev=100,
            scratch_path=str(folder / "mawps_asdiv_train.csv"),
        ),
        seed=0,
    )
    assert isinstance(task, SvampFromScratch)
    assert len(task.templates.given) == 3138
    assert task.templates.n_leaks == 0
    held = {
        re.sub(r"\d+", "#", p.question) for split in ("dev", "test") for p in task.problems(split)
    }
    for document in drawn(task, 0, 3000):
        wording = document[0][0].removeprefix("Question: ").split("\n")[0]
        assert re.sub(r"\d+", "#", wording) not in held
