"""What a stage gets: its settings, the records of its inputs, and storage that survives a kill.

`sharded` commits a long list of items shard by shard. `once` remembers that a piece of work, such
as a training inside a stage, is finished. Both store what was counted with `count`, so an
interrupted stage reports the same counts as an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from glore.config import RunConfig
from glore.curves import Curves
from glore.digests import file_digest
from glore.errors import RunError
from glore.pipeline.folder import write_json
from glore.pipeline.integrity import check_inside, part_files, recorded_files
from glore.pipeline.marks import Memory, read_memory
from glore.pipeline.open_models import M, OpenModels
from glore.progress import Progress
from glore.records import read_records, write_records

__all__ = ["StageContext"]

T = TypeVar("T")
R = TypeVar("R")


class StageContext:
    """The argument of a stage's `run`: all that the stage reads and writes goes through it."""

    def __init__(
        self,
        config: RunConfig,
        *,
        name: str,
        run_dir: Path,
        folder: Path,
        inputs: Mapping[str, Path],
        models: Mapping[str, Path],
        makes: Collection[str],
        progress: Progress,
        redo: bool = False,
        warned: set[str] | None = None,
        fingerprint: str = "",
        track: str = "none",
    ) -> None:
        """`config`: the settings that the stage declares. `inputs`: earlier stage → its folder.
        `models`: every model that the stage opens or makes → its folder. `warned`: models whose
        slow backend a stage before has warned of; this one adds to it. `fingerprint`: the short
        hash of what the result is made from. `track`: the tracker of live curves.
        """
        self.config = config
        self.fingerprint = fingerprint
        self.name = name
        self.seed = config.seed
        self.run_dir = run_dir
        self.folder = folder
        self.reused_seconds = 0.0
        """Wall time of earlier attempts whose work is reused."""
        self.track = track
        self.curves = Curves(run_dir / "log" / name if track == "tensorboard" else None)
        """Live curves of `sharded`; a stage adds shares to them."""
        self._watched = _Watched(progress, self.curves)
        self.progress: Progress = self._watched
        self._inputs, self._models, self._makes = inputs, models, makes
        self._redo = redo
        self._counters: list[Counter[str]] = [Counter()]
        self._warnings: list[str] = []
        self._spared: dict[str, tuple[str, ...]] = {}
        self._open = OpenModels(name, self.progress, self.warn, set() if warned is None else warned)

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the earlier stages that this one may read."""
        return tuple(self._inputs)

    @property
    def counts(self) -> dict[str, float]:
        """The totals of `count`."""
        return dict(self._counters[0])

    def count(self, **numbers: float) -> None:
        """Add to the stage's counts in `done.json`; `tokens` are those generated or trained on. A
        name counted twice adds up.
        """
        self._counters[-1].update(numbers)

    @property
    def warnings(self) -> tuple[str, ...]:
        """All that `warn` was called with."""
        return tuple(self._warnings)

    def warn(self, message: str | None) -> None:
        """Report a sign that the stage failed although it finishes (None: no sign). It is shown and
        kept in `done.json`.
        """
        if message is not None:
            self._warnings.append(message)
            self.progress.note(f"warning: {message}")

    @property
    def spared(self) -> dict[str, tuple[str, ...]]:
        """Model → the stages that `spare` named."""
        return dict(self._spared)

    def spare(self, model: str, *stages: str) -> None:
        """Say that these later stages, which declare that they open a model, will not, as the
        records show now. With `keep: final` the model can go sooner.
        """
        self._spared[model] = (*self._spared.get(model, ()), *stages)

    def keep(self, opened: M, model: str) -> M:
        """Take over an open model, under the name that `release` closes it by. Returns it.

        What is not released is closed when the stage ends, also when it fails. Its backend is
        shown and kept in `done.json`; a slow one is warned of once a model.
        """
        return self._open.keep(opened, model)

    def release(self, model: str) -> None:
        """Close what `keep` took over under this name. Does nothing if it is closed already."""
        self._open.release(model)

    def close(self) -> None:
        """Close every model that is open still, and the curves."""
        self._open.close()
        self.curves.close()

    @property
    def backends(self) -> dict[str, str]:
        """Model → what read it, of all that `keep` was called with."""
        return self._open.backends

    def read(self, stage: str, kind: type[R], part: str = "part") -> list[R]:
        """All records of one part of this or an earlier stage, in the order they were written.

        Raises RunError where there are none, or where one is not as its stage left it.
        """
        if stage != self.name and stage not in self._inputs:
            raise ValueError(f"stage {self.name} reads {stage}, which is not among its inputs")
        if stage == self.name:
            files = part_files(self.folder, part)
        else:
            files = recorded_files(self._inputs[stage], part)
        if not files:
            raise RunError(
                f"stage {stage} holds no {part}-*.parquet; run it again: glore run … --until "
                f"{stage}"
            )
        return read_records(files, kind)

    def write(self, records: Sequence[R], kind: type[R], part: str = "part") -> None:
        """Commit a part whole, as one shard."""
        write_records(self.folder / f"{part}-00000.parquet", kind, records)
        self._drop_shards_from(part, 1)

    def sharded(
        self,
        items: Sequence[T],
        shard_size: int,
        work: Callable[[Sequence[T]], Sequence[R]],
        kind: type[R],
        part: str = "part",
        unit: str = "items",
    ) -> list[R]:
        """All records of `shards`, in order."""
        found = self.shards(items, shard_size, work, kind, part, unit)
        return [record for records in found for record in records]

    def shards(
        self,
        items: Sequence[T],
        shard_size: int,
        work: Callable[[Sequence[T]], Sequence[R]],
        kind: type[R],
        part: str = "part",
        unit: str = "items",
    ) -> Iterator[Sequence[R]]:
        """`work` on `items`, `shard_size` at a time, each shard committed as `PART-00000.parquet`,
        …; shards already there are reused. Gives the records of each shard, in order.

        `work` must depend on nothing but its items and the stage's fingerprint; it reports tokens
        with `count(tokens=…)`, and may call `progress.advance` for a smoother line, but not
        `progress.begin`.
        """
        n_shards = max(1, -(-len(items) // shard_size))
        facts = {"n_items": len(items), "shard_size": shard_size}
        shards = [items[i * shard_size : (i + 1) * shard_size] for i in range(n_shards)]
        names = [f"{part}-{i:05}" for i in range(n_shards)]
        kept = [
            self._recall(name, facts) is not None and (self.folder / f"{name}.parquet").exists()
            for name in names
        ]
        if any(kept):
            self.progress.note(f"{part}: {sum(kept)} of {n_shards} shards are there already")
        if not all(kept):
            self.progress.begin(
                part, sum(len(s) for s, k in zip(shards, kept, strict=True) if not k), unit
            )
        n_kept = sum(len(s) for s, k in zip(shards, kept, strict=True) if k)
        self.curves.begin(part, n_kept)
        for name, shard, is_kept in zip(names, shards, kept, strict=True):
            records = self._reuse_shard(name, facts, kind) if is_kept else None
            yield self._make_shard(name, facts, shard, work, kind) if records is None else records
        self._drop_shards_from(part, n_shards)

    def once(self, name: str, work: Callable[[], None]) -> None:
        """Do `work` unless an earlier attempt at this stage finished it. For work that leaves its
        result in files by itself.
        """
        memory = self._recall(f"once-{name}", {})
        if memory is not None:
            self.progress.note(f"{name}: done already")
            self._adopt(memory)
            return
        with self._remembered(f"once-{name}", {}):
            work()

    def model_dir(self, name: str) -> Path:
        """The folder of a model that this stage makes, or that it opens. Raises ValueError for any
        other.
        """
        if name not in self._models:
            raise ValueError(
                f"stage {self.name} reads models/{name}, which none of its inputs makes, or which "
                "it does not declare that it opens"
            )
        return self._models[name]

    def new_model_dir(self, name: str) -> Path:
        """The folder to save a model in that this stage makes. Raises ValueError for any other."""
        if name not in self._makes:
            raise ValueError(
                f"stage {self.name} makes models/{name}, which is not among its models"
            )
        return self.model_dir(name)

    def work_dir(self) -> Path:
        """A scratch folder that outlives a kill and is removed when the stage is done (trainer
        checkpoints).
        """
        path = self.folder / "work"
        check_inside(path, self.run_dir)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _make_shard(
        self,
        name: str,
        facts: Mapping[str, int],
        shard: Sequence[T],
        work: Callable[[Sequence[T]], Sequence[R]],
        kind: type[R],
    ) -> Sequence[R]:
        units_before, tokens_before = self._watched.units, self._watched.tokens
        with self._remembered(name, facts) as counter:
            records = work(shard)
            write_records(self.folder / f"{name}.parquet", kind, records)
        # Only what `work` has not shown by itself.
        units = len(shard) - (self._watched.units - units_before)
        tokens = int(counter["tokens"]) - (self._watched.tokens - tokens_before)
        self.progress.advance(max(units, 0), max(tokens, 0))
        self.curves.end_shard()
        return records

    def _reuse_shard(self, name: str, facts: Mapping[str, int], kind: type[R]) -> list[R] | None:
        """The records of a committed shard. One that can't be read raises RunError; where that was
        asked for (`redo`) it is made again.
        """
        path, memory = self.folder / f"{name}.parquet", self._recall(name, facts)
        try:
            if memory is None or not path.is_file() or file_digest(path) != memory.digest:
                raise RunError(
                    f"{path} has changed since it was written; delete it, or add --redo, to make "
                    "it again"
                )
            records = read_records(path, kind)
        except RunError:
            if not self._redo:
                raise
            self.progress.note(f"{path.name} can't be read, so it is made again")
            return None
        self._adopt(memory)
        return records

    def _recall(self, name: str, facts: Mapping[str, int]) -> Memory | None:
        """What was remembered under `name`, if it is about the same facts. Raises RunError where it
        can't be read, but with `redo`.
        """
        try:
            memory = read_memory(self.folder, name)
        except RunError:
            if not self._redo:
                raise
            return None
        return memory if memory is not None and memory.facts == facts else None

    def _adopt(self, memory: Memory) -> None:
        """Take over counts and seconds from an earlier attempt."""
        self._counters[-1].update(memory.counts)
        self.reused_seconds += memory.seconds

    @contextlib.contextmanager
    def _remembered(self, name: str, facts: Mapping[str, int]) -> Iterator[Counter[str]]:
        """Count apart what is counted inside, and remember it when the work is over: the mark is
        written last.
        """
        counter: Counter[str] = Counter()
        self._counters.append(counter)
        begin, reused_before = time.monotonic(), self.reused_seconds
        try:
            yield counter
        finally:
            self._counters.pop()
            self._counters[-1].update(counter)
        seconds = time.monotonic() - begin + self.reused_seconds - reused_before
        shard = self.folder / f"{name}.parquet"
        memory = Memory(
            dict(facts),
            dict(counter),
            round(seconds, 3),
            file_digest(shard) if shard.is_file() else None,
        )
        write_json(self.folder / f".{name}.json", dataclasses.asdict(memory))

    def _drop_shards_from(self, part: str, n_shards: int) -> None:
        """Shards beyond the last come from an attempt with another shard size."""
        for path in part_files(self.folder, part)[n_shards:]:
            path.unlink()


class _Watched:
    """Passes progress on and adds up what was shown."""

    def __init__(self, inner: Progress, curves: Curves) -> None:
        self._inner, self._curves = inner, curves
        self.units = 0
        self.tokens = 0

    def begin(self, what: str, total: int, unit: str) -> None:
        self._inner.begin(what, total, unit)

    def advance(self, n: int = 1, tokens: int = 0) -> None:
        self.units += n
        self.tokens += tokens
        self._curves.advance(n, tokens)
        self._inner.advance(n, tokens)

    def note(self, message: str) -> None:
        self._inner.note(message)
