"""Random damage to a run folder: only errors of ours, nothing outside touched, nothing removed
unasked, no other records.

Short by default; `GLORE_FUZZ_SECONDS=900 pytest tests/fuzz/test_fuzz_run_folder.py` goes on for
fifteen minutes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from glore.cli.display import stages_table
from glore.config import RunConfig, load_run
from glore.errors import GloreError
from glore.pipeline import run_stages
from glore.pipeline.integrity import check_belongs_together, makers
from glore.pipeline.recorded import made_with
from support.small_stages import everything, small_config, small_stages

SECONDS = float(os.environ.get("GLORE_FUZZ_SECONDS", "0"))
EXAMPLES = 60
CANARY = "years of work"
STAGES = [stage.name for stage in small_stages()]


@pytest.fixture(scope="module", autouse=True)
def _no_flushing() -> Iterator[None]:
    """No power is lost here, and flushing takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A finished run, and one stopped in each of its stages."""
    found = []
    for stop_at in (None, 0, 3, 7, 9, 11):
        config = small_config(tmp_path_factory.mktemp("template"))
        ticks = iter(range(1000))

        def tick(stop_at: int | None = stop_at, ticks: Iterator[int] = ticks) -> None:
            if next(ticks) == stop_at:
                raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            run_stages(small_stages(tick), config)
        found.append(config.run_dir)
    return found


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["../../outside", "/etc", "..", "a/b"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=5,
)


def truncated(path: Path, data: st.DataObject) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, max(0, len(content) - 1)))])


def flipped(path: Path, data: st.DataObject) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)


def overwritten(path: Path, data: st.DataObject) -> None:
    path.write_bytes(data.draw(st.binary(max_size=40)))


def removed(path: Path, data: st.DataObject) -> None:
    path.unlink()


def made_a_folder(path: Path, data: st.DataObject) -> None:
    path.unlink()
    path.mkdir()
    if data.draw(st.booleans()):
        (path / "x").write_text("x")


def linked_out(path: Path, data: st.DataObject) -> None:
    path.unlink()
    path.symlink_to(
        path.parents[len(path.parts) - len(_root(path).parts) - 1] / "outside" / "thesis.tex"
    )


def other_json(path: Path, data: st.DataObject) -> None:
    """One value of the file's JSON is another, or has another name."""
    try:
        value = json.loads(path.read_text())
    except ValueError:
        return
    spots: list[tuple[object, object]] = []

    def walk(node: object) -> None:
        if isinstance(node, dict):
            spots.extend((node, key) for key in node)
            for child in node.values():
                walk(child)

    walk(value)
    if not spots:
        return
    node, key = spots[data.draw(st.integers(0, len(spots) - 1))]
    assert isinstance(node, dict)
    if data.draw(st.booleans()):
        node[key] = data.draw(JSON)
    else:
        node[
            data.draw(
                st.text(max_size=4) | st.sampled_from(["../../../outside", "/etc/passwd", ".."])
            )
        ] = node.pop(key)
    path.write_text(json.dumps(value))


DAMAGES: list[Callable[[Path, st.DataObject], None]] = [
    *(truncated, flipped, overwritten, removed, made_a_folder, linked_out),
    *([other_json] * 4),
]


def _root(path: Path) -> Path:
    return next(p for p in path.parents if p.name == "small").parent


def records(run_dir: Path) -> dict[str, bytes]:
    return {n: b for n, b in everything(run_dir).items() if n.endswith((".parquet", "/weights"))}


def attempt(config: RunConfig, redo: bool) -> bool:
    """Run, then read the run in every way; True if it succeeded. Raises only errors of ours."""
    with contextlib.suppress(GloreError):
        load_run(config.run_dir)
        made_with(config.run_dir, ["evaluate"])
    with contextlib.suppress(GloreError):
        check_belongs_together(config.run_dir, STAGES)
        makers(config.run_dir, ["student-1"])
    with contextlib.suppress(GloreError):
        stages_table(run_stages(small_stages(), config, dry_run=True, redo=redo), config.run_dir)
    said = None
    try:
        run_stages(small_stages(), config, redo=redo)
    except GloreError as error:
        said = str(error)
    assert said is None or "\n" not in said
    return said is None


def one_example(templates: list[Path], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        config = small_config(root)
        shutil.copytree(data.draw(st.sampled_from(templates), label="run"), config.run_dir)
        (root / "outside").mkdir()
        (root / "outside" / "thesis.tex").write_text(CANARY)
        for _ in range(data.draw(st.integers(1, 3))):
            files = sorted(
                p for p in config.run_dir.rglob("*") if p.is_file() and not p.is_symlink()
            )
            path = files[data.draw(st.integers(0, len(files) - 1))]
            damage = data.draw(st.sampled_from(DAMAGES))
            damage(path, data)
        before, whole = everything(config.run_dir), records(templates[0])
        if attempt(config, redo=False):
            for name, content in records(config.run_dir).items():
                assert content == whole.get(name) or content == before.get(name), (
                    f"{name} has other content"
                )
        else:
            now = everything(config.run_dir)
            lost = [
                name
                for name in before
                if name not in now and not name.endswith(("started.json", ".json"))
            ]
            assert not [name for name in lost if before[name] == whole.get(name)], (
                "records that were whole are gone"
            )
        attempt(config, redo=True)
        assert sorted(p.name for p in (root / "outside").iterdir()) == ["thesis.tex"]
        assert (root / "outside" / "thesis.tex").read_text() == CANARY


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damage_of_any_kind_gives_errors_of_ours_and_loses_nothing(
    templates: list[Path], data: st.DataObject
) -> None:
    one_example(templates, data)


@pytest.mark.skipif(SECONDS <= 0, reason="GLORE_FUZZ_SECONDS says how long")
def test_for_a_while(templates: list[Path]) -> None:
    end = time.monotonic() + SECONDS
    n = 0
    while time.monotonic() < end:

        @settings(
            max_examples=200,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
            phases=[Phase.generate],
        )
        @given(data=st.data())
        def some(data: st.DataObject) -> None:
            one_example(templates, data)

        some()
        n += 200
    print(f"{n} damaged run folders")
