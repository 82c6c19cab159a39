"""Model cards: what a training writes, and the numbers that an evaluation adds."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import glore
from glore.config import TrainSettings
from glore.evaluation.card_metrics import card_metrics, write_card_metrics
from glore.model_cards import NOT_MEASURED, model_card, with_metrics
from glore.statistics import Estimate
from glore.training.examples import TrainReport

REPORT = TrainReport(n_rows=7, n_dropped=1, n_tokens=50, n_steps=3, final_loss=0.25, seconds=9.0)
EVALUATION: Any = SimpleNamespace(
    table5=[
        SimpleNamespace(
            student="EI",
            k=8,
            greedy=Estimate(0.56, 0.511, 0.608, 400),
            sampled=None,
            majority=Estimate(None, None, None, 0),
            pass_k=Estimate(1.0, 1.0, 1.0, 400),
        )
    ],
    table1=[
        SimpleNamespace(
            model="sorm",
            against="labels",
            scope=scope,
            natural=Estimate(0.9, 0.8, 0.95, 1199),
            balanced=Estimate(0.7, 0.6, 0.75, 1199),
        )
        for scope in ("intermediate", "all")
    ],
    table2=[],
    table3=[
        SimpleNamespace(refiners=("global",), fixed=Estimate(0.5, 0.25, 0.75, 8)),
        SimpleNamespace(refiners=("global", "local_orm"), fixed=Estimate(0.6, 0.3, 0.8, 8)),
    ],
)


def card(kind: str, about: tuple[str, ...] = ("data: x",)) -> str:
    return model_card("sorm", "From base.", kind, TrainSettings(), REPORT, 5, about)


@pytest.mark.parametrize("kind", ["causal", "steps", "pairs"])
def test_a_card_says_what_from_how_and_what_not(kind: str) -> None:
    text = card(kind)
    heads = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert heads == [
        "Data and recipe",
        "Training",
        "Settings",
        "Metrics",
        "How to load it",
        "What it is not good for",
    ]
    assert "From base." in text
    assert "- data: x" in text
    assert "- seed: 5" in text
    assert "- learning_rate: " in text
    assert NOT_MEASURED in text
    assert "9.0" not in text  # no times: equal trainings write equal cards


@pytest.mark.parametrize("kind", ["causal", "steps", "pairs"])
def test_its_code_compiles_and_names_what_there_is(kind: str) -> None:
    [code] = re.findall(r"```python\n(.*?)```", card(kind), re.DOTALL)
    tree = ast.parse(code)
    named = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "glore"
    }
    assert named
    assert named <= set(glore.__all__)
    assert {"transformers", "vllm"} <= {
        n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)
    }


def test_metrics_replace_their_section_alone() -> None:
    text = card("steps")
    once = with_metrics(text, ["- a: 1"])
    assert NOT_MEASURED not in once
    assert "## Metrics\n- a: 1\n\n## How to load it" in once
    assert with_metrics(once, ["- a: 1"]) == once
    assert with_metrics(once, [NOT_MEASURED]) == text
    assert with_metrics("# My own card\n", ["- a: 1"]) == "# My own card\n"


def test_an_evaluation_becomes_lines_with_intervals() -> None:
    found = card_metrics(EVALUATION)
    assert found.keys() == {"student", "sorm", "refiner"}
    assert "- right, greedy: 56.0 % [51.1, 60.8], n = 400" in found["student"]
    assert "- right, sampled: not measured" in found["student"]
    assert "- right, majority of 8: not measured" in found["student"]
    assert [line for line in found["sorm"] if line.startswith("- ")] == [
        "- accuracy on steps before the answer, against labels from rollouts: 90.0 % "
        "[80.0, 95.0], n = 1,199",
        "- class-balanced accuracy on steps before the answer, against labels from rollouts: "
        "70.0 % [60.0, 75.0], n = 1,199",
    ]
    assert found["refiner"][-1] == "- wrong drafts fixed (global): 50.0 % [25.0, 75.0], n = 8"


def test_cards_below_a_run_get_their_numbers(tmp_path: Path) -> None:
    for model in ("sorm", "student"):
        (tmp_path / model).mkdir()
        (tmp_path / model / "README.md").write_text(card("steps"), encoding="utf-8")
    (tmp_path / "student" / "README.md").write_text("Mine.\n", encoding="utf-8")
    write_card_metrics(tmp_path, EVALUATION)
    assert "90.0 % [80.0, 95.0]" in (tmp_path / "sorm" / "README.md").read_text()
    assert (tmp_path / "student" / "README.md").read_text() == "Mine.\n"
    assert not (tmp_path / "refiner").exists()
