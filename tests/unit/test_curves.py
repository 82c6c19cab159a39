"""Live curves: points by time and by shard, shares of the shard, nothing without a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from glore.curves import Curves
from glore.training.trackers import both

pytest.importorskip("tensorboard")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found = EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_a_rate_has_a_point_every_few_seconds_and_a_share_one_a_shard(tmp_path: Path) -> None:
    now = [0.0]
    curves = Curves(tmp_path / "samples", clock=lambda: now[0])
    curves.begin("part", 10)
    for _ in range(3):  # 1 s each, so the second closes a point of 2 s
        now[0] += 1
        curves.advance(2, 100)
    curves.share("right", 3, 4)
    curves.share("right", 0, 2)
    curves.end_shard()
    now[0] += 4
    curves.advance(4, 40)
    curves.end_shard()
    curves.close()
    assert points(tmp_path / "samples") == {
        "sampling/items_per_second": [(14, 2), (16, 2), (20, 1)],
        "sampling/tokens_per_second": [(14, 100), (16, 100), (20, 10)],
        "sampling/right": [(16, 0.5)],
    }


def test_parts_have_curves_of_their_own(tmp_path: Path) -> None:
    curves = Curves(tmp_path)
    for part in ("global", "local"):
        curves.begin(part, 0)
        curves.share("right", 1, 1)
        curves.end_shard()
    curves.close()
    assert {"sampling/right/global", "sampling/right/local"} <= points(tmp_path).keys()


def test_without_a_folder_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    curves = Curves()
    curves.begin("part", 0)
    curves.advance(1, 1)
    curves.share("right", 1, 1)
    curves.end_shard()
    curves.close()
    assert not any(tmp_path.iterdir())


def test_a_full_or_forbidden_disk_ends_no_run(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file where the folder should be")
    curves = Curves(tmp_path / "log" / "samples")
    curves.begin("part", 0)
    curves.share("right", 1, 1)
    curves.end_shard()
    curves.close()


@pytest.mark.parametrize(
    ("own", "of_run", "all_of_them"),
    [
        ((), (), ["none"]),
        ((), ("tensorboard",), ["tensorboard"]),
        (("none",), ("tensorboard",), ["tensorboard"]),
        (("trackio", "tensorboard"), ("tensorboard",), ["tensorboard", "trackio"]),
        (("all",), ("tensorboard",), ["all"]),
        (("trackio",), (), ["trackio"]),
    ],
)
def test_trackers_of_a_training_and_of_its_run(
    own: tuple[str, ...], of_run: tuple[str, ...], all_of_them: list[str]
) -> None:
    assert both(own, of_run) == all_of_them
