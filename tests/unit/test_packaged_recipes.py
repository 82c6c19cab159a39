"""`glore run NAME`: recipes that come with glore, and files beside them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from glore.config import load_config
from glore.config.packaged import packaged_recipes, recipe_path, recipe_summary
from glore.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_name_is_the_recipe_in_any_folder() -> None:
    assert load_config("quickstart") == load_config(ROOT / "recipes" / "quickstart.yaml")
    assert load_config("quickstart", ["labels.rollouts=3"]).labels.rollouts == 3


@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "recipes").glob("*.yaml")))
def test_every_recipe_has_a_name_and_says_what_it_is(name: str) -> None:
    assert recipe_path(name) == packaged_recipes()[name]
    assert len(recipe_summary(packaged_recipes()[name])) > 20


@pytest.mark.parametrize("file", ["quickstart", "quickstart.yaml", "quickstart.yml"])
def test_neither_a_file_nor_the_recipe_hides_the_other(file: str) -> None:
    Path(file).write_text("name: mine\n")
    with pytest.raises(ConfigError, match=f"write ./{file} for the file"):
        load_config("quickstart")
    assert load_config(f"./{file}").name == "mine"
    assert load_config(Path(file)).name == "mine"
    assert load_config(packaged_recipes()["quickstart"]).name == "quickstart"


def test_a_folder_of_that_name_is_no_recipe() -> None:
    Path("quickstart").mkdir()
    assert load_config("quickstart").name == "quickstart"


def test_a_file_without_suffix_is_read_as_before() -> None:
    Path("mine").write_text("name: x\n")
    assert load_config("mine").name == "x"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("quickstrat", "did you mean quickstart?"),
        ("nothing-like-it", "there are gsm8k-llama2-13b, "),
        ("recipes/small.yaml", "glore has that recipe inside: glore run small"),
        ("other/small.yaml", "or the name of a recipe"),
    ],
)
def test_what_is_no_recipe_is_refused_with_what_there_is(given: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(given)
    assert message in str(caught.value)


def test_a_name_beside_a_file_with_a_suffix_asks_for_that_file() -> None:
    Path("mine.yaml").write_text("name: x\n")
    with pytest.raises(ConfigError, match=r"did you mean mine\.yaml\?"):
        load_config("mine")


def glore(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "glore", "recipes", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_lists_and_prints_recipes() -> None:
    listed = glore().stdout.splitlines()
    assert [line.split()[0] for line in listed] == list(packaged_recipes())
    assert glore("small").stdout == packaged_recipes()["small"].read_text(encoding="utf-8")
    assert Path(glore("accelerate/ddp", "--path").stdout.strip()).is_file()
    refused = glore("../pyproject")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: there is no recipe '../pyproject'; there are accel")
