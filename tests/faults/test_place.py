"""A run is the folder it lies in: copied, moved, renamed or linked, its config.yaml means that
folder and no other.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from glore.config import RunConfig, load_config, load_run, resolved_recipe
from glore.errors import ConfigError, RunError
from glore.pipeline import plan_stages, run_stages
from support.command_line import glore
from support.small_stages import everything, small_config, small_stages


@pytest.fixture
def original(tmp_path: Path) -> RunConfig:
    """A finished run in `runs/small`."""
    config = small_config(tmp_path / "runs")
    run_stages(small_stages(), config)
    return config


def copied(run_dir: Path, place: Path) -> None:
    shutil.copytree(run_dir, place)


def copied_without_hidden_files(run_dir: Path, place: Path) -> None:
    subprocess.run(
        ["sh", "-c", 'mkdir -p "$2" && cp -r "$1"/* "$2"', "sh", str(run_dir), str(place)],
        check=True,
    )


def hard_linked(run_dir: Path, place: Path) -> None:
    shutil.copytree(run_dir, place, copy_function=os.link)


def moved(run_dir: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    run_dir.rename(place)


def linked(run_dir: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(run_dir)


WAYS = [copied, copied_without_hidden_files, hard_linked, moved, linked]
PLACES = ["other/place", "runs/small-2", "runs/a name with spaces", "runs/déjà vu", "-x", "a" * 120]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", PLACES)
def test_the_settings_of_a_run_mean_the_folder_they_lie_in(
    original: RunConfig, tmp_path: Path, way: Callable[..., None], name: str
) -> None:
    place = tmp_path / name
    way(original.run_dir, place)
    before = everything(original.run_dir) if original.run_dir.exists() else {}
    for config in (
        load_config(place / "config.yaml"),
        load_config(str(place / "config.yaml"), []),
        load_run(place),
    ):
        assert config.run_dir == place
    assert {p.state for p in plan_stages(small_stages(), config)} == {"reused"}
    assert [p.state for p in run_stages(small_stages(), config)] == ["reused"] * 4
    changed = load_config(place / "config.yaml", ["seed=7"])
    with pytest.raises(RunError, match=r"holds results of other settings") as caught:
        run_stages(small_stages(), changed)
    assert str(place) in str(caught.value)
    assert str(tmp_path / "runs" / "small") + "/" not in str(caught.value).replace(str(place), "")
    run_stages(small_stages(), changed, redo=True)
    assert load_run(place).seed == 7
    if original.run_dir.exists() and way is not linked:
        assert everything(original.run_dir) == before
    again = load_config(place / "config.yaml")
    assert again.run_dir == place, "what was written there can be read there"
    assert load_config(place.with_name(place.name) / "config.yaml") == again


def test_name_or_runs_dir_start_another_run(original: RunConfig, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere" / "copy"
    copied(original.run_dir, place)
    recipe = place / "config.yaml"
    assert load_config(recipe, ["name=b"]).run_dir == tmp_path / "elsewhere" / "b"
    assert load_config(recipe, [f"runs_dir={tmp_path / 'x'}"]).run_dir == tmp_path / "x" / "copy"
    assert (
        load_config(recipe, [f"runs_dir={tmp_path / 'x'}", "name=b"]).run_dir
        == tmp_path / "x" / "b"
    )
    assert load_config(recipe, ["name=copy"]).run_dir == place
    with pytest.raises(ConfigError, match="name"):
        load_config(recipe, ["name=../small"])


def test_a_run_that_was_started_and_nothing_more_is_a_run(tmp_path: Path) -> None:
    for there in ([], ["log"], [".lock"], ["stages"]):
        place = tmp_path / f"copy{len(there)}{there}"
        place.mkdir()
        (place / "config.yaml").write_text(resolved_recipe(RunConfig(name="original")))
        for name in there:
            (place / name).mkdir()
        assert load_config(place / "config.yaml").run_dir == place


def test_a_recipe_is_a_recipe_whatever_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("name: r\n")
    assert load_config(tmp_path / "config.yaml").run_dir == Path("runs/r")
    (tmp_path / "config.yaml").write_text(resolved_recipe(RunConfig(name="r")))
    (tmp_path / "pyproject.toml").write_text("")
    assert load_config(tmp_path / "config.yaml").run_dir == Path("runs/r"), (
        "a run's settings taken for a recipe in a project"
    )
    shutil.copyfile(tmp_path / "config.yaml", tmp_path / "mine.yaml")
    assert load_config(tmp_path / "mine.yaml").run_dir == Path("runs/r")


def test_a_run_written_by_an_earlier_release_is_in_its_place_too(original: RunConfig) -> None:
    path = original.run_dir / "config.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "name": "elsewhere"}))
    assert load_config(path).run_dir == original.run_dir


def test_links_to_the_file_lead_to_the_run_and_links_in_a_run_do_not_lead_out(
    original: RunConfig, tmp_path: Path
) -> None:
    (tmp_path / "link.yaml").symlink_to(original.run_dir / "config.yaml")
    assert load_config(tmp_path / "link.yaml").run_dir == original.run_dir
    place = tmp_path / "copy"
    copied(original.run_dir, place)
    (place / "config.yaml").unlink()
    (place / "config.yaml").symlink_to(original.run_dir / "config.yaml")
    assert load_config(place / "config.yaml").run_dir == place


def test_from_inside_the_folder(
    original: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved(original.run_dir, tmp_path / "b")
    monkeypatch.chdir(tmp_path / "b")
    for config in (
        load_config("config.yaml"),
        load_config("./config.yaml"),
        load_run("."),
        load_config("stages/../config.yaml"),
    ):
        assert config.run_dir.resolve() == tmp_path / "b"
        assert config.name == "b"


def test_relative_paths_in_the_settings_still_start_from_where_the_command_runs(
    tmp_path: Path,
) -> None:
    config = small_config(
        tmp_path / "runs", task={"kind": "jsonl", "path": "data/x"}, base={"model": "models/small"}
    )
    run_stages(small_stages(), config)
    copied(config.run_dir, tmp_path / "deep" / "copy")
    again = load_config(tmp_path / "deep" / "copy" / "config.yaml")
    assert (again.task.path, again.base.model) == ("data/x", "models/small")


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.5, 0.9, 0.999])
def test_a_cut_config_is_noticed(original: RunConfig, share: float) -> None:
    path = original.run_dir / "config.yaml"
    text = path.read_text()
    for cut in (
        text[: int(len(text) * share)],
        "".join(text.splitlines(keepends=True)[: int(len(text.splitlines()) * share)]),
    ):
        path.write_text(cut)
        for load in (lambda: load_config(path), lambda: load_run(original.run_dir)):
            with pytest.raises(ConfigError, match=r"config\.yaml was cut short"):
                load()


def test_every_command_acts_on_the_copy(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("name: small\n")
    assert glore(tmp_path, "run", "r.yaml").returncode == 0
    copied(tmp_path / "runs" / "small", tmp_path / "my copy")
    before = everything(tmp_path / "runs" / "small")
    done = glore(tmp_path, "run", "my copy/config.yaml", "seed=3")
    assert done.returncode == 2
    assert "glore run 'my copy/config.yaml'" in done.stderr
    assert "runs/small" not in done.stderr
    done = glore(tmp_path, "run", "my copy/config.yaml", "seed=3", "--redo")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("report: my copy/report/index.html\n")
    for command in ("show", "report"):
        assert "my copy" in glore(tmp_path, command, "my copy").stdout
    assert glore(tmp_path, "refine", "my copy", "What is 1 + 1?").returncode == 0
    assert everything(tmp_path / "runs" / "small") == before
    (tmp_path / "my copy" / "config.yaml").write_text("name: sm")
    (tmp_path / "my copy" / "stages" / "train" / "done.json").write_text("{")
    done = glore(tmp_path, "show", "my copy")
    assert done.returncode == 2
    assert "my copy/stages/train/done.json can't be read" in done.stderr
    assert done.stderr.count("\n") == 1
