"""The numbers of a study with the observations behind them, for pooling over runs.

The records of a study hold numbers and intervals alone. Stages that measure only read records, so
they are run once more here, which takes seconds, and their numbers are taken before they are
written. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow.parquet as pq

from glore.config import RunConfig
from glore.errors import RunError
from glore.pipeline import Stage, StageContext, ancestors
from glore.pipeline.chosen import with_engine
from glore.pipeline.integrity import part_files
from glore.pipeline.view import settings_view
from glore.progress import SilentProgress
from glore.records import schema_of
from glore.studies.measured import Measured, Observed, read_measured
from glore.studies.run import study_stages
from glore.studies.study import Study

__all__ = ["observations"]


def observations(study: Study, config: RunConfig) -> dict[str, list[Observed]]:
    """A study that has run → the numbers of each of its stages that measures.

    Raises RunError where it has none (a study may write records of its own instead), and where they
    are not those that the study wrote, such as those of an earlier release.
    """
    config = with_engine(config).config
    stages = study_stages(study, config)
    found = {
        stage.name: _measured_again(stage, stages, config)
        for stage in stages
        if stage.study == study.name and _holds_numbers(stage, config)
    }
    if not found:
        raise RunError(
            f"study {study.name} writes no records of the kind Measured, so its results can't be "
            "pooled over runs"
        )
    for stage, numbers in found.items():
        folder = config.run_dir / "studies" / study.name
        written = read_measured(folder, stage)
        if list(map(_content, numbers)) != list(map(_content, written)):
            raise RunError(
                f"{folder}: stage {stage} measures other numbers now than those it wrote, so they "
                f"are of another release; run it again: glore study {study.name} {config.run_dir} "
                "--redo"
            )
    return found


def _holds_numbers(stage: Stage, config: RunConfig) -> bool:
    files = part_files(stage.folder(config.run_dir), "part")
    return bool(files) and pq.read_schema(files[0]).names == schema_of(Measured).names


def _measured_again(stage: Stage, stages: Sequence[Stage], config: RunConfig) -> list[Observed]:
    sources = ancestors(stage, stages)
    context = _Measuring(
        settings_view(config, stage, sources),
        name=stage.name,
        run_dir=config.run_dir,
        folder=stage.folder(config.run_dir),
        inputs={source.name: source.folder(config.run_dir) for source in sources},
        models={},
        makes=(),
        progress=SilentProgress(),
    )
    stage.run(context)
    return context.numbers


def _content(measured: Measured) -> Mapping[str, object]:
    """What two of the same number agree in. Rounded: sums of another order differ in their last
    bits.
    """
    m = measured
    rounded = (x if x is None else round(x, 9) for x in (m.value, m.low, m.high, m.x))
    return {"cell": (m.table, m.row, m.column, m.kind, m.n), "numbers": tuple(rounded)}


class _Measuring(StageContext):
    """The argument of a stage that measures: what it writes is kept here instead."""

    numbers: list[Observed]

    def write(self, records: Sequence[object], kind: type[object], part: str = "part") -> None:
        """Keep numbers; other records are dropped."""
        if kind is not Measured:
            return
        self.numbers = [r for r in records if isinstance(r, Observed)]
        if len(self.numbers) < len(records):
            raise RunError(
                f"stage {self.name} makes its numbers without share, difference and number of "
                "glore.studies.measured, so they can't be pooled over runs"
            )
