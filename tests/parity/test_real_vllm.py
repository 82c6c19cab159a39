"""What only a real vLLM shows (`make test-vllm`): its texts are the torch engine's, long prompts
can be drawn from with a seed, two engines share the memory, and a closed one leaves nothing.

Its protocol is held by test_engine_protocol.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from glore.config import EngineSettings
from glore.engines.local.engine import TorchEngine
from glore.engines.open import open_engine
from glore.engines.protocol import Engine, Request, SamplingParams
from glore.engines.vllm import VllmEngine
from glore.errors import EngineError
from glore.own_process import resident_bytes
from support.engine_kinds import by_id, requests_of, save_tiny_model, seeds
from support.processes import descendants
from support.real_vllm import IN_PROCESS, served, small_cache

pytestmark = pytest.mark.vllm
GREEDY = SamplingParams(0.0, max_new_tokens=20, logprobs=True)
KEPT_BYTES = 30e6
"""What this process may keep of a second engine after its end; the first brings vLLM itself."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    small_cache()
    return save_tiny_model(tmp_path_factory.mktemp("models") / "student", wide=True)


@pytest.fixture(scope="module", params=["in process", "server"])
def engine(request: pytest.FixtureRequest, folder: Path) -> Iterator[Engine]:
    if request.param == "in process":
        with open_engine(folder, IN_PROCESS) as engine:
            yield engine
    else:
        with served(folder, "student") as settings, open_engine(folder, settings) as engine:
            yield engine


def test_greedy_texts_and_log_probabilities_are_those_of_torch(
    engine: Engine, folder: Path
) -> None:
    items = requests_of(64, 1, GREEDY)
    got = {r.request.id: r.completions[0] for r in engine.run(items)}
    with TorchEngine(folder, EngineSettings(device="cpu")) as reference:
        expected = {r.request.id: r.completions[0] for r in reference.run(items)}
    assert {i: c.text.lstrip() for i, c in got.items()} == {
        i: c.text.lstrip() for i, c in expected.items()
    }
    for name, one in got.items():
        other = expected[name]
        assert (one.n_tokens, one.stop, one.seed) == (other.n_tokens, other.stop, other.seed)
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-3)


def test_more_tokens_of_prompts_than_a_step_reads_can_be_drawn_from_with_seeds(
    engine: Engine,
) -> None:
    """The CPU build fails here where prompts are read in parts."""
    params = SamplingParams(temperature=1.0, max_new_tokens=8)
    items = [
        Request(f"l{i}", tuple(f"w{3 + (i * j) % 58} " for j in range(110)), seeds(i, 2), params)
        for i in range(24)
    ]
    got = by_id(list(engine.run(items)))
    assert got == by_id(list(engine.run(items[::-1])))
    assert len({text for completions in got.values() for text, *_ in completions}) > 40


def test_a_closed_engine_leaves_no_process_and_no_memory(folder: Path) -> None:
    before = descendants()
    sizes = []
    for _ in range(2):
        with open_engine(folder, IN_PROCESS) as engine:
            list(engine.run(requests_of(8, 2)))
            stream = engine.run(requests_of(8, 2))
            next(stream)  # a run in progress
            assert len(descendants()) > len(before)
        begin = time.monotonic()
        while descendants().keys() - before.keys():
            assert time.monotonic() - begin < 10, descendants()
            time.sleep(0.1)
        sizes.append(resident_bytes())
        with pytest.raises(EngineError, match="is closed"):
            next(stream)
    assert sizes[1] - sizes[0] < KEPT_BYTES, sizes


def test_two_engines_share_what_there_is(folder: Path) -> None:
    settings = IN_PROCESS.model_copy(update={"gpu_memory": 0.2})
    items = requests_of(4, 2)
    with (
        VllmEngine(folder, settings.shared_by(2)) as one,
        VllmEngine(folder, settings.shared_by(2)) as other,
    ):
        assert sorted(VllmEngine.shares.values()) == [0.1, 0.1]
        assert by_id(list(one.run(items))) == by_id(list(other.run(items)))
    assert not VllmEngine.shares
