"""The reference of settings: every setting of a recipe, each with its meaning; as text and as a
page; and the pages of the documentation.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from glore import load_config
from glore.cli import app
from glore.config.reference import all_sections, as_lines, as_markdown

ROOT = Path(__file__).parents[2]


def known() -> dict[str, str]:
    """Path of every setting → its meaning."""
    return {
        f"{path}.{s.name}".lstrip("."): s.meaning
        for section in all_sections()
        for path in section.paths
        for s in section.settings
    }


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_setting_of_a_recipe_is_there(recipe: Path) -> None:
    paths = known()

    def leaves(data: object, path: str = "") -> list[str]:
        if not isinstance(data, dict) or (path in paths and path != "student.sft.lora"):
            return [path]
        return [p for k, v in data.items() for p in leaves(v, f"{path}.{k}".lstrip("."))]

    given = leaves(load_config(recipe).model_dump(mode="json"))
    assert [p for p in given if p not in paths] == []


def test_every_setting_has_a_meaning_or_is_a_section() -> None:
    assert [
        f"{section.paths[0]}.{s.name}"
        for section in all_sections()
        for s in section.settings
        if not s.meaning and s.values != "section or null"
    ] == []
    assert all(section.meaning for section in all_sections())


def test_a_class_that_many_sections_use_is_described_once() -> None:
    [training] = [s for s in all_sections() if "student.sft" in s.paths]
    assert {"student.ei_train", "reward.orm", "refiner.train"} <= set(training.paths)
    epochs = next(s for s in training.settings if s.name == "epochs")
    assert (epochs.values, epochs.default) == ("number > 0", "1.0")


def test_the_command_prints_what_is_asked_for() -> None:
    done = CliRunner().invoke(app, ["settings", "labels.rollouts"])
    assert done.stdout.splitlines() == as_lines("labels.rollouts")
    assert done.stdout.splitlines()[:2] == ["labels.rollouts", "    integer ≥ 1; default 8"]
    refused = CliRunner().invoke(app, ["settings", "nothing-like-it"])
    assert refused.exit_code == 2
    assert len(as_lines()) > 300


def test_the_page_is_a_table_for_every_section() -> None:
    page = as_markdown()
    assert page.count("\n## ") == len(all_sections())
    for line in page.splitlines():
        assert not line.startswith("|") or len(re.findall(r"(?<!\\)\|", line)) == 5, line


def site() -> object:
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / "docs" / "site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_site_has_every_page_and_no_link_leads_out_of_it(tmp_path: Path) -> None:
    site().gather(tmp_path)  # type: ignore[attr-defined]
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed = re.findall(r"[\w-]+\.md", str(nav))
    assert sorted(listed) == sorted(p.name for p in tmp_path.glob("*.md"))
    for page in tmp_path.glob("*.md"):
        for link in re.findall(r"\]\(([^)#:]+)[)#]", page.read_text(encoding="utf-8")):
            assert (page.parent / link).is_file(), f"{page.name}: {link}"
