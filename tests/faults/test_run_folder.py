"""Damage, other people's folders, full disks, two processes, SIGKILL: one line each, and nothing
finished is lost.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from glore.config import RunConfig
from glore.errors import RunError
from glore.pipeline import Stage, StageContext, plan_stages, run_stages
from glore.pipeline.folder import locked
from glore.pipeline.integrity import check_belongs_together, makers
from glore.pipeline.marks import read_done
from glore.records import Solution, read_records
from support.small_stages import contents, everything, small_config, small_stages

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
    environment = {
        **os.environ,
        "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent / 'src'}",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )


def test_killed_by_sigkill_and_run_again_gives_the_same_bytes(tmp_path: Path) -> None:
    done = run_script(str(TESTS / "faults" / "kill_everywhere.py"), str(tmp_path), "9")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 15


@pytest.mark.slow
def test_killed_by_sigkill_at_every_file_operation(tmp_path: Path) -> None:
    done = run_script(str(TESTS / "faults" / "kill_everywhere.py"), str(tmp_path), "1", limit=600)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 100


def damaged(path: Path, damage: str) -> None:
    data = path.read_bytes()
    path.write_bytes({"truncate": data[:-9], "empty": b"", "garbage": b"x" * len(data)}[damage])


@pytest.mark.parametrize("damage", ["truncate", "empty", "garbage"])
@pytest.mark.parametrize("name", ["stages/sample/train-00001.parquet", "models/student-1/weights"])
def test_a_damaged_file_of_a_finished_stage_is_an_error_and_redone_where_asked(
    finished: RunConfig, name: str, damage: str
) -> None:
    before, whole = contents(finished.run_dir), everything(finished.run_dir)
    path = finished.run_dir / name
    if name.startswith("models") and damage == "garbage":
        return  # of the right size: found when the model is loaded
    damaged(path, damage)
    found = everything(finished.run_dir)
    with pytest.raises(
        RunError,
        match=rf"{path.name} (has changed on disk|is unreadable). Nothing was removed; .*--redo",
    ):
        run_stages(small_stages(), finished)
    assert everything(finished.run_dir) == found
    notes = Notes()
    plans = run_stages(small_stages(), finished, progress=notes, redo=True)
    assert [p.state for p in plans].count("computed") == 1
    assert any("computed (" in n and path.name in n for n in notes.notes)
    assert contents(finished.run_dir) == before
    damaged(path, damage)
    path.write_bytes(whole[name])
    assert {p.state for p in run_stages(small_stages(), finished)} == {"reused"}, (
        "a copy that is put back is as good"
    )


def test_a_column_whose_name_is_no_text_is_an_error(finished: RunConfig) -> None:
    """A flipped byte in a Parquet file's own list of columns. Found by the fuzz target."""
    path = finished.run_dir / "stages" / "sample" / "train-00001.parquet"
    data = path.read_bytes()
    assert b"problem_id" in data
    path.write_bytes(data.replace(b"problem_id", b"pr\xe5blem_id"))
    with pytest.raises(RunError, match=r"train-00001\.parquet is unreadable. Nothing was removed"):
        run_stages(small_stages(), finished)
    with pytest.raises(RunError, match=r"can't read .*train-00001\.parquet"):
        read_records(path, Solution)


def test_a_shard_that_was_flipped_in_place_is_noticed_when_it_is_read(finished: RunConfig) -> None:
    path = finished.run_dir / "stages" / "task" / "part-00000.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    shutil.rmtree(finished.run_dir / "stages" / "sample")
    with pytest.raises(RunError, match=r"part-00000\.parquet has changed since its stage wrote it"):
        run_stages(small_stages(), finished)


def test_a_stage_that_cannot_be_made_again_is_not_cleared(finished: RunConfig) -> None:
    path = finished.run_dir / "stages" / "task" / "part-00000.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    (finished.run_dir / "stages" / "sample" / "train-00001.parquet").unlink()
    found = everything(finished.run_dir)
    with pytest.raises(RunError, match=r"part-00000\.parquet has changed since its stage wrote it"):
        run_stages(small_stages(), finished)
    assert everything(finished.run_dir) == found


def test_a_missing_shard_makes_its_stage_anew_with_a_note(finished: RunConfig) -> None:
    before = contents(finished.run_dir)
    (finished.run_dir / "stages" / "sample" / "train-00001.parquet").unlink()
    notes = Notes()
    plans = run_stages(small_stages(), finished, progress=notes)
    assert [p.state for p in plans] == ["reused", "computed", "reused", "reused"]
    assert any(
        "stage 2/4 sample: computed (" in n and "train-00001.parquet is missing" in n
        for n in notes.notes
    )
    assert contents(finished.run_dir) == before


def test_a_shard_that_no_mark_names_is_not_taken_for_a_record(finished: RunConfig) -> None:
    folder = finished.run_dir / "stages" / "sample"
    shutil.copyfile(folder / "train-00003.parquet", folder / "train-00004.parquet")
    with pytest.raises(
        RunError, match=r"train-00004\.parquet is not among the files that done\.json names"
    ):
        run_stages(small_stages(), finished)


@pytest.fixture
def unfinished(tmp_path: Path) -> RunConfig:
    """A run that was interrupted while it drew samples."""
    config = small_config(tmp_path)
    ticks = iter(range(1000))

    def tick() -> None:
        if next(ticks) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stages(small_stages(tick), config)
    return config


@pytest.mark.parametrize("name", ["train-00000.parquet", ".train-00000.json", "started.json"])
@pytest.mark.parametrize("damage", ["truncate", "empty", "garbage"])
def test_a_damaged_file_of_an_unfinished_stage_is_an_error_and_redone_where_asked(
    unfinished: RunConfig, name: str, damage: str, tmp_path: Path
) -> None:
    damaged(unfinished.run_dir / "stages" / "sample" / name, damage)
    found = everything(unfinished.run_dir)
    with pytest.raises(RunError, match=f"{name}"):
        run_stages(small_stages(), unfinished)
    assert everything(unfinished.run_dir) == found
    run_stages(small_stages(), unfinished, redo=True)
    whole = small_config(tmp_path / "whole")
    run_stages(small_stages(), whole)
    got, expected = contents(unfinished.run_dir), contents(whole.run_dir)
    del got["config.yaml"], expected["config.yaml"]
    assert got == expected


def test_shards_without_any_mark_are_not_removed_unasked(unfinished: RunConfig) -> None:
    (unfinished.run_dir / "stages" / "sample" / "started.json").unlink()
    found = everything(unfinished.run_dir)
    with pytest.raises(
        RunError,
        match=r"holds records or has made models, "
        r"but no done\.json or started\.json says from what",
    ):
        run_stages(small_stages(), unfinished)
    assert everything(unfinished.run_dir) == found


@pytest.mark.parametrize("stage", ["sample", "train"])
def test_what_lost_its_mark_alone_is_not_removed_unasked(finished: RunConfig, stage: str) -> None:
    before = contents(finished.run_dir)
    (finished.run_dir / "stages" / stage / "done.json").unlink()
    found = everything(finished.run_dir)
    with pytest.raises(RunError, match=r"holds records or has made models, but no done\.json"):
        run_stages(small_stages(), finished)
    assert everything(finished.run_dir) == found
    shutil.rmtree(finished.run_dir / "stages" / stage)  # that is asking
    run_stages(small_stages(), finished)
    assert contents(finished.run_dir) == before


def test_a_missing_model_file_makes_its_stage_anew(finished: RunConfig) -> None:
    before = contents(finished.run_dir)
    (finished.run_dir / "models" / "student-1" / "weights").unlink()
    plans = run_stages(small_stages(), finished)
    assert [p.state for p in plans] == ["reused", "reused", "computed", "reused"]
    assert contents(finished.run_dir) == before


def mark_with(**changes: object) -> Callable[[dict[str, object]], str]:
    return lambda mark: json.dumps({**mark, **changes})


MARKS: dict[str, Callable[[dict[str, object]], str]] = {
    "empty": lambda mark: "",
    "a list": lambda mark: "[]",
    "no field": lambda mark: "{}",
    "cut short": lambda mark: json.dumps(mark)[:-40],
    "NUL": lambda mark: "\x00",
    "deep": lambda mark: "[" * 100_000,
    "a later release's field": mark_with(novelty=1),
    "a text for a number": mark_with(tokens="100"),
    "true for a number": mark_with(seconds=True),
    "an earlier release's sizes": lambda mark: json.dumps(
        {**mark, "files": {"part-00000.parquet": 1234}}
    ),
    "another stage's": mark_with(stage="evaluate"),
}


@pytest.mark.parametrize("kind", MARKS)
def test_an_unreadable_mark_is_not_an_absent_one(finished: RunConfig, kind: str) -> None:
    before = contents(finished.run_dir)
    path = finished.run_dir / "stages" / "train" / "done.json"
    path.write_text(MARKS[kind](json.loads(path.read_text())))
    found = everything(finished.run_dir)
    for dry_run in (True, False):
        with pytest.raises(
            RunError,
            match=r"done\.json can't be read as the mark of a finished stage .*--redo",
        ) as caught:
            run_stages(small_stages(), finished, dry_run=dry_run)
    assert "\n" not in str(caught.value)
    for ask in (
        lambda: makers(finished.run_dir, ["student-1"]),
        lambda: check_belongs_together(finished.run_dir, ["evaluate"]),
    ):
        with pytest.raises(RunError, match="can't be read as the mark"):
            ask()
    assert everything(finished.run_dir) == found
    plans = run_stages(small_stages(), finished, redo=True)
    assert [p.state for p in plans] == ["reused", "reused", "computed", "reused"]
    assert contents(finished.run_dir) == before


@pytest.mark.parametrize(
    "change",
    [
        {"models": {"OUTSIDE": {}}},
        {"models": {"../../outside": {}}},
        {"models": {"..": {}}},
        {"models": {"a/b": {}}},
        {"models": {"student-1": {"../../../outside/thesis.tex": {"bytes": 1, "digest": "0"}}}},
        {"files": {"../../../outside/x.parquet": {"bytes": 1, "digest": "0"}}},
        {"files": {"OUTSIDE/x.parquet": {"bytes": 1, "digest": "0"}}},
    ],
)
@pytest.mark.parametrize("redo", [False, True])
def test_what_a_mark_names_outside_the_run_is_never_touched(
    finished: RunConfig, change: dict[str, object], redo: bool, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "thesis.tex").write_text("years of work")
    path = finished.run_dir / "stages" / "train" / "done.json"
    text = json.dumps({**json.loads(path.read_text()), **change}).replace("OUTSIDE", str(outside))
    path.write_text(text)
    found = everything(finished.run_dir)
    with (
        nullcontext()
        if redo
        else pytest.raises(RunError, match=r"done\.json names .*, which is not a file of this run")
    ):
        run_stages(small_stages(), finished, redo=redo)
    assert (outside / "thesis.tex").read_text() == "years of work"
    assert redo or everything(finished.run_dir) == found


@pytest.mark.parametrize(
    "name", ["stages/train", "models/student-1", "models", "stages/sample/train-00000.parquet"]
)
@pytest.mark.parametrize("stale", [False, True])
def test_links_out_of_the_run_are_refused(
    finished: RunConfig, name: str, stale: bool, tmp_path: Path
) -> None:
    place, outside = finished.run_dir / name, tmp_path / "outside"
    place.rename(outside)
    place.symlink_to(outside)
    before = everything(outside) if outside.is_dir() else outside.read_bytes()
    config = small_config(tmp_path, seed=5) if stale else finished
    with (
        pytest.raises(RunError, match="symbolic link out of the run folder")
        if name != "stages/sample/train-00000.parquet" or not stale
        else nullcontext()
    ):
        run_stages(small_stages(), config, redo=stale)
    assert (everything(outside) if outside.is_dir() else outside.read_bytes()) == before


def test_leftovers_of_killed_processes_are_swept_and_nothing_else(finished: RunConfig) -> None:
    before = everything(finished.run_dir)
    leftovers = [
        "models/.orm.999999.tmp/w",
        "models/.orm.999999.old/w",
        "stages/task/.part-00000.parquet.4.tmp",
        ".config.yaml.7.tmp",
    ]
    leftovers += ["report/.index.html.999999.tmp", "stages/.sample.12.old/part-00000.parquet"]
    kept = [
        "notes.tmp",
        ".vimrc.tmp",
        "models/mine.12.old/w",
        f"report/.index.html.{os.getppid()}.tmp",
    ]
    for name in (*leftovers, *kept):
        (finished.run_dir / name).parent.mkdir(exist_ok=True)
        (finished.run_dir / name).write_text("x")
    (finished.run_dir / "models" / ".link.999999.old").symlink_to(finished.run_dir / "stages")
    notes = Notes()
    run_stages(small_stages(), finished, progress=notes)
    assert everything(finished.run_dir) == before | dict.fromkeys(kept, b"x")
    assert not (finished.run_dir / "models" / ".link.999999.old").is_symlink()
    assert any(
        n.startswith("left behind by a killed process, and removed: .config.yaml.7.tmp, ")
        for n in notes.notes
    )


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
def test_a_full_disk_is_one_line_and_running_again_goes_on(
    tmp_path: Path, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
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

    with pytest.raises(
        RunError,
        match=r"no space left while computing orm \(/some/checkpoint\).*run the same command",
    ):
        run_stages([Stage("orm", run)], small_config(tmp_path))


@pytest.mark.parametrize("free", [0, 2**30])
def test_a_full_disk_that_torch_does_not_name_is_known_by_its_free_space(
    tmp_path: Path, free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(context: StageContext) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    error, message = (
        (RuntimeError, "failed writing")
        if free
        else (RunError, "no space left while computing orm .*run the same command")
    )
    with pytest.raises(error, match=message):
        run_stages([Stage("orm", run)], small_config(tmp_path))


def test_another_process_holds_the_folder(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    code = (
        "import sys, pathlib\nfrom glore.pipeline.folder import locked\nwith "
        "locked(pathlib.Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(config.run_dir)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
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


def test_one_process_takes_the_lock_once(tmp_path: Path) -> None:
    """In a thread, over a link, and after the lock's file is gone; a record lock alone holds in
    none of these.
    """
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with ThreadPoolExecutor(1) as pool, locked(tmp_path / "run"):
        for place in (tmp_path / "run", tmp_path / "link"):
            with pytest.raises(RunError, match=f"in use by this process, {os.getpid()}"):
                pool.submit(lambda place=place: ExitStack().enter_context(locked(place))).result()
        (tmp_path / "run" / ".lock").unlink()
        with pytest.raises(RunError, match="in use by this process"), locked(tmp_path / "run"):
            pass
    with locked(tmp_path / "link"):
        pass


FORKED = """
import os, pathlib, subprocess, sys
from glore.errors import RunError
from glore.pipeline.folder import locked

run_dir = pathlib.Path(sys.argv[1])
def refused():
    try:
        with locked(run_dir):
            return 0
    except RunError:
        return 1

with locked(run_dir):
    pid = os.fork()
    if pid == 0:
        os._exit(refused())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1, "the child took its parent's lock"
    other = (
        "import pathlib, sys, glore.pipeline.folder as r; "
        "r.locked(pathlib.Path(sys.argv[1])).__enter__()"
    )
    locks = subprocess.run(
        [sys.executable, "-c", other, str(run_dir)], stderr=subprocess.DEVNULL
    )
    assert locks.returncode, "the child dropped it"
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(read, 1)
        os._exit(refused())
os.write(write, b"x")
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
assert status == 0, "the child believes in a lock that its parent has dropped"
"""


def test_a_forked_child_neither_has_nor_drops_its_parents_lock(tmp_path: Path) -> None:
    done = run_script("-c", FORKED, str(tmp_path))
    assert done.returncode == 0, done.stderr
