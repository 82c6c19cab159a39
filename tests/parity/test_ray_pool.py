"""A pool of engines on a simulated cluster: the same records as one process, whatever dies, hangs
or is left early.
"""

from __future__ import annotations

import itertools
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from glore.config import EngineSettings, LoraSettings, TrainSettings
from glore.engines.local.engine import TorchEngine
from glore.engines.open import open_engine
from glore.engines.protocol import Request, Result
from glore.engines.ray import engine as ray_engine
from glore.engines.ray.engine import RayEngine
from glore.errors import EngineError, ModelError
from glore.progress import SilentProgress
from glore.reward_models.pool import open_here_or_in_pool
from glore.training.finetune import train_causal_lm
from glore.training.training_setup import TrainingSetup
from support import toy_engine
from support.engine_kinds import WARM, by_id, requests_of, save_tiny_model, seeds
from support.tiny_models import tiny_step_model, tiny_tokenizer
from support.tiny_training import lm_examples, save_base
from support.toy_engine import OpenToy, ToyEngine, notes

ray = pytest.importorskip("ray", reason="the extra ray is not installed")

from ray.cluster_utils import Cluster  # noqa: E402  (only where there is Ray)

TWO = EngineSettings(
    kind="ray", workers=2, retries=2, inner=EngineSettings(device="cpu", max_rows=4)
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without room for workers, and two machines for one worker each."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        cluster.add_node(num_cpus=1)
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    ray.cloudpickle.register_pickle_by_value(toy_engine)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def pool(tmp_path: Path, settings: EngineSettings = TWO, **toy: object) -> RayEngine:
    return RayEngine.of(OpenToy(str(tmp_path), **toy), settings)


def expected(items: list[Request]) -> dict[str, object]:
    return by_id(list(ToyEngine().run(items)))


def test_results_are_those_of_one_process(cluster: Cluster, tmp_path: Path) -> None:
    items = [
        Request(f"q{i}.{j}", (f"question {i}\n", f"step {j}\n"), seeds(i, 2), WARM)
        for i in range(20)
        for j in range(4)
    ]
    engine = pool(tmp_path)
    assert by_id(list(engine.run(items))) == expected(items)
    assert len(notes(tmp_path, "drawn-")) >= len(items)
    empty = Request("empty", ("x",), (), WARM)
    assert [len(r.completions) for r in engine.run([empty, items[0], items[0]], lambda r: [])] == [
        0,
        2,
        2,
    ]


def test_follow_ups_run_here_and_are_drawn_there(cluster: Cluster, tmp_path: Path) -> None:
    asked: list[str] = []

    def one(i: int, kept: int) -> Request:
        return Request(f"{i}:{kept}", (f"question {i}", f"{kept}"), seeds(i, kept % 2), WARM)

    def backwards(result: Result) -> list[Request]:
        asked.append(result.request.id)
        i, kept = map(int, result.request.id.split(":"))
        return [one(i, kept - 1)] if kept > 1 else []

    got = by_id(list(pool(tmp_path).run((one(i, 6) for i in range(10)), backwards)))
    assert got == expected([one(i, kept) for i in range(10) for kept in range(1, 7)])
    assert sorted(asked) == sorted(got)


@pytest.mark.slow
def test_a_request_that_kills_every_worker_is_an_error_in_the_end(
    cluster: Cluster, tmp_path: Path
) -> None:
    items = [Request(name, (name,), (1,), WARM) for name in ("a", "poison", "b")]
    with pytest.raises(
        EngineError, match=r"was lost with its worker 2 times, the last: .*finished shards are kept"
    ) as caught:
        list(pool(tmp_path, TWO.model_copy(update={"retries": 1})).run(items))
    assert len(str(caught.value)) < 900


def test_errors_of_the_engine_come_through_as_they_are(cluster: Cluster, tmp_path: Path) -> None:
    engine = pool(tmp_path)
    with pytest.raises(EngineError, match=r"^request 'bad': the prompt is empty$"):
        list(engine.run([Request("bad", ("",), (1,), WARM)]))
    assert len(list(engine.run([Request("good", ("x",), (1,), WARM)]))) == 1


@pytest.mark.slow
def test_workers_that_can_not_start_are_an_error_in_the_end(
    cluster: Cluster, tmp_path: Path
) -> None:
    with pytest.raises(
        EngineError, match=r"could be started, the last: 'OSError: worker . has no disk'"
    ):
        list(
            pool(tmp_path, TWO.model_copy(update={"retries": 1}), n_failing=99).run(
                [Request("a", ("x",), (1,), WARM)]
            )
        )


def test_a_slow_worker_does_not_hold_the_end(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "IDLE_SECONDS", 0.2)
    items = [Request(f"r{i}", (f"question {i}",), (i,), WARM) for i in range(12)]
    engine = pool(tmp_path, first_seconds=6.0)
    list(engine.run(items[:1]))  # whoever is ready first
    begin = time.monotonic()
    got = list(engine.run(items))
    assert time.monotonic() - begin < 20, "about six of twelve requests at 6 s each"
    assert by_id(got) == expected(items)
    assert len(got) == 12


def test_an_endless_source_left_early_stops_the_workers(cluster: Cluster, tmp_path: Path) -> None:
    taken = 0

    def endless() -> Iterator[Request]:
        nonlocal taken
        for taken in itertools.count(1):
            yield Request(f"e{taken}", (f"question {taken}",), (taken,), WARM)

    engine = pool(tmp_path, seconds=0.02)
    stream = engine.run(endless())
    for _ in range(30):
        next(stream)
    stream.close()  # type: ignore[attr-defined]  # a generator
    assert taken <= 30 + 2 * 3 * 4 + 4
    time.sleep(0.5)
    before = len(notes(tmp_path, "drawn"))
    time.sleep(0.3)
    assert len(notes(tmp_path, "drawn")) == before
    items = [Request("a", ("x",), (1,), WARM)]
    assert by_id(list(engine.run(items))) == expected(items)


def test_no_room_in_the_cluster(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(
        EngineError, match="takes 1 CPU and 1 GPU, and the Ray cluster has 2 CPU and 0 GPU"
    ):
        RayEngine.of(OpenToy(str(tmp_path)), TWO.model_copy(update={"gpus_per_worker": 1.0}))
    with pytest.raises(ModelError, match="sends a folder"):
        RayEngine("some/hub-name", TWO.model_copy(update={"ship_models": True}))


def test_a_machine_is_removed_in_the_middle(cluster: Cluster, tmp_path: Path) -> None:
    third = cluster.add_node(num_cpus=2)
    items = [
        Request(f"q{i}.{j}", (f"question {i}\n", f"step {j}\n"), seeds(i, 2), WARM)
        for i in range(30)
        for j in range(3)
    ]
    engine = pool(tmp_path, TWO.model_copy(update={"workers": 4}), seconds=0.03)
    got = []
    for result in engine.run(items):
        got.append(result)
        if len(got) == 20:
            cluster.remove_node(third, allow_graceful=False)
    assert by_id(got) == expected(items)
    assert len(got) == len(items)


def test_workers_that_die_or_fail_are_replaced_and_nothing_is_missing(
    cluster: Cluster, tmp_path: Path
) -> None:
    items = [
        Request(name, (f"question {i}",), seeds(i, 2), WARM)
        for i, name in enumerate([*map(str, range(30)), "die", "raise", "last"])
    ]
    got = list(pool(tmp_path, n_failing=1).run(items))
    assert by_id(got) == expected(items)
    assert len(got) == len(items)
    assert len(notes(tmp_path, "opened")) >= 4


@pytest.mark.slow
def test_a_model_sent_to_two_machines_one_of_which_is_removed(
    cluster: Cluster, tmp_path: Path
) -> None:
    third = cluster.add_node(num_cpus=1)
    folder = save_tiny_model(tmp_path / "student")
    items = requests_of(150, 4)
    one = by_id(list(TorchEngine(folder, EngineSettings(device="cpu", max_rows=4)).run(items)))
    engine = open_engine(folder, TWO.model_copy(update={"ship_models": True, "workers": 3}))
    got = []
    for result in engine.run(items):
        got.append(result)
        if len(got) == 40:
            cluster.remove_node(third, allow_graceful=False)
    assert by_id(got) == one
    assert len(got) == len(items)


def test_a_pool_of_reward_models_gives_the_scores_of_one(cluster: Cluster, tmp_path: Path) -> None:
    tiny_step_model().save_pretrained(tmp_path / "orm")
    tiny_tokenizer().save_pretrained(tmp_path / "orm")
    items = [
        (f"w{3 + i % 7} ", tuple(f"w{3 + (5 * i + j) % 50}" for j in range(i % 4)))
        for i in range(40)
    ]
    too_long = ("w3 ", ("w4 " * 5000,))
    here = EngineSettings(device="cpu")
    for with_question, ship_models in ((False, False), (True, True)):
        scored = [item for item in items if item[1] or not with_question]
        with open_here_or_in_pool(tmp_path / "orm", here, with_question=with_question) as scorer:
            expected_scores, reads = scorer.score(scored), scorer.backend
            fitting = scorer.fits([*scored, too_long])
        assert fitting == [True] * len(scored) + [False]
        pooled = TWO.model_copy(update={"scoring": "pool", "ship_models": ship_models})
        with open_here_or_in_pool(tmp_path / "orm", pooled, with_question=with_question) as scorer:
            assert scorer.score(scored) == expected_scores
            assert scorer.fits([*scored, too_long]) == fitting
            assert scorer.backend == f"ray × 2 ({reads})"
        with pytest.raises(EngineError, match="is closed"):
            scorer.score(scored)


def test_reward_models_that_can_not_be_loaded_are_an_error_of_one_line(
    cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "orm").mkdir()
    with (
        open_here_or_in_pool(
            tmp_path / "orm", TWO.model_copy(update={"scoring": "pool"})
        ) as scorer,
        pytest.raises(ModelError, match="orm"),
    ):
        scorer.score([("w3", ("w4",))])


@pytest.mark.parametrize("ship_models", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_pool_opens_adapters(cluster: Cluster, tmp_path: Path, ship_models: bool) -> None:
    """Workers load after the pool is opened, and again when one is lost, so a folder that was
    merged for the opening would be gone.
    """
    base = save_base(tmp_path / "models" / "base")
    lora = LoraSettings(r=4, save="adapter")
    trained = TrainSettings(max_steps=2, batch_size=4, max_length=64, lora=lora)
    folder = tmp_path / "models" / "student"
    where = TrainingSetup(
        out_dir=folder,
        work_dir=tmp_path / "work",
        seed=1,
        progress=SilentProgress(),
        device="cpu",
    )
    train_causal_lm(base, lm_examples(), trained, where)
    items = [Request("q", ("Question: Ana has 3 pens.\n",), (1, 2), WARM)]
    one = by_id(list(TorchEngine(folder, EngineSettings(device="cpu", max_rows=4)).run(items)))
    with open_engine(folder, TWO.model_copy(update={"ship_models": ship_models})) as engine:
        assert by_id(list(engine.run(items))) == one
    assert not [p for p in folder.parent.iterdir() if p.name.startswith(".")]
