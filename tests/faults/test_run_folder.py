"""Damage, other people's folders, full disks, two processes, SIGKILL: one line each, and nothing finished is lost."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from glore.config import RunConfig
from glore.errors import RunError
from glore.pipeline import Stage, StageContext, plan_stages, run_stages
from glore.runfolder import locked, read_done
from small_stages import contents, small_config, small_stages

TESTS = Path(__file__).parents[1]


class Notes:
    """A Progress that keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def begin(self, what: str, total: int, unit: str) -> None: ...

    def advance(self, n: int = 1, tokens: int = 0) -> None: ...

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture
def finished(tmp_path: Path) -> RunConfig:
    config = small_config(tmp_path)
    run_stages(small_stages(), config)
    return config


def run_script(*arguments: str, limit: float = 120) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent / 'src'}", "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=limit, check=False)


def test_killed_by_sigkill_and_run_again_gives_the_same_bytes(tmp_path: Path) -> None:
    done = run_script(str(TESTS / "faults" / "kill_everywhere.py"), str(tmp_path), "9")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 15


@pytest.mark.slow
def test_killed_by_sigkill_at_every_file_operation(tmp_path: Path) -> None:
    done = run_script(str(TESTS / "faults" / "kill_everywhere.py"), str(tmp_path), "1", limit=600)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 100


@pytest.mark.parametrize("damage", ["truncate", "empty", "remove", "garbage"])
def test_a_damaged_shard_of_a_finished_stage_is_made_again_with_a_note(finished: RunConfig, damage: str) -> None:
    before = contents(finished.run_dir)
    shard = finished.run_dir / "stages" / "sample" / "train-00001.parquet"
    data = shard.read_bytes()
    if damage == "remove":
        shard.unlink()
    else:
        shard.write_bytes({"truncate": data[:-9], "empty": b"", "garbage": b"x" * len(data)}[damage])
    notes = Notes()
    plans = run_stages(small_stages(), finished, progress=notes)
    assert [p.state for p in plans] == ["reused", "computed", "reused", "reused"]
    assert any("stage 2/4 sample: computed (" in n and "train-00001.parquet" in n for n in notes.notes)
    assert contents(finished.run_dir) == before


def test_a_damaged_shard_of_an_unfinished_stage_is_made_again_with_a_note(finished: RunConfig) -> None:
    before = contents(finished.run_dir)
    config = small_config(Path(finished.runs_dir) / "again")
    ticks = iter(range(1000))

    def tick() -> None:
        if next(ticks) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stages(small_stages(tick), config)
    shard = config.run_dir / "stages" / "sample" / "train-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-4])
    notes = Notes()
    run_stages(small_stages(), config, progress=notes)
    assert "  train-00000.parquet can't be read, so it is made again" in notes.notes
    got = contents(config.run_dir)
    del got["config.yaml"], before["config.yaml"]
    assert got == before


def test_a_missing_model_file_makes_its_stage_anew(finished: RunConfig) -> None:
    before = contents(finished.run_dir)
    (finished.run_dir / "models" / "student-1" / "weights").unlink()
    plans = run_stages(small_stages(), finished)
    assert [p.state for p in plans] == ["reused", "reused", "computed", "reused"]
    assert contents(finished.run_dir) == before


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"stage": "task"', "\x00"])
def test_an_unreadable_mark_makes_its_stage_anew(finished: RunConfig, text: str) -> None:
    before = contents(finished.run_dir)
    (finished.run_dir / "stages" / "task" / "done.json").write_text(text)
    assert [p.state for p in run_stages(small_stages(), finished)] == ["computed", "reused", "reused", "reused"]
    assert contents(finished.run_dir) == before


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    config.run_dir.mkdir()
    (config.run_dir / "thesis.tex").write_text("years of work")
    for dry_run in (False, True):
        with pytest.raises(RunError, match=r"not a run folder \(it holds thesis.tex"):
            run_stages(small_stages(), config, dry_run=dry_run)
    assert [p.name for p in config.run_dir.iterdir()] == ["thesis.tex"]


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    config.run_dir.write_text("")
    with pytest.raises(RunError, match="is a file"):
        run_stages(small_stages(), config)
    below = small_config(config.run_dir)
    with pytest.raises(RunError, match="choose another name or runs_dir"):
        run_stages(small_stages(), below)


@pytest.mark.parametrize("moment", range(0, 24, 3))
def test_a_full_disk_is_one_line_and_running_again_goes_on(tmp_path: Path, moment: int, monkeypatch: pytest.MonkeyPatch) -> None:
    config, whole = small_config(tmp_path / "cut"), small_config(tmp_path / "whole")
    run_stages(small_stages(), whole)
    writes = iter(range(1000))

    def full(descriptor: int) -> None:
        if next(writes) >= moment:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device; free some space") as caught:
        run_stages(small_stages(), config)
    assert "\n" not in str(caught.value)
    finished = [p.name for p in plan_stages(small_stages(), config) if p.state == "reused"]
    monkeypatch.undo()
    assert [p.name for p in run_stages(small_stages(), config) if p.state == "reused"] == finished
    got, expected = contents(config.run_dir), contents(whole.run_dir)
    del got["config.yaml"], expected["config.yaml"]
    assert got == expected


def test_a_full_disk_inside_a_stage_names_the_stage(tmp_path: Path) -> None:
    def run(context: StageContext) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/some/checkpoint")

    with pytest.raises(RunError, match=r"no space left while computing orm \(/some/checkpoint\).*run the same command"):
        run_stages([Stage("orm", (), lambda c: (), run)], small_config(tmp_path))


@pytest.mark.parametrize("free", [0, 2**30])
def test_a_full_disk_that_torch_does_not_name_is_known_by_its_free_space(
    tmp_path: Path, free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(context: StageContext) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    error, message = (RuntimeError, "failed writing") if free else (RunError, "no space left while computing orm .*run the same command")
    with pytest.raises(error, match=message):
        run_stages([Stage("orm", (), lambda c: (), run)], small_config(tmp_path))


def test_another_process_holds_the_folder(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    code = (
        "import sys, pathlib\nfrom glore.runfolder import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(config.run_dir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=f"in use by process {holder.pid}"):
            run_stages(small_stages(), config)
        # A dry run only reads.
        assert len(run_stages(small_stages(), config, dry_run=True)) == 4
        holder.kill()
        holder.wait()
    assert (config.run_dir / ".lock").read_text() == f"{holder.pid}\n"
    run_stages(small_stages(), config)
    assert read_done(config.run_dir / "stages" / "evaluate") is not None


def test_the_lock_is_dropped_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path):
        pass
