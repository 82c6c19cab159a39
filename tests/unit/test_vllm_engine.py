"""The vLLM engine against a fake with vLLM's signatures. What it draws is held by
tests/parity/test_engine_protocol.py.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest

from glore.config import EngineSettings
from glore.engines.protocol import Request, SamplingParams
from glore.engines.vllm import VllmEngine
from glore.errors import EngineError, ModelError
from glore.models import load_tokenizer
from support import fake_vllm
from support.engine_kinds import WARM, by_id, requests_of, save_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "student")


def test_settings_reach_vllm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_vllm.install(monkeypatch)
    VllmEngine(
        folder,
        EngineSettings(
            kind="vllm", dtype="bfloat16", max_rows=7, tensor_parallel=2, gpu_memory=0.5, context=64
        ),
    )
    assert fake_vllm.LLMEngine.made.args == fake_vllm.EngineArgs(
        model=str(folder),
        trust_remote_code=False,
        load_format="safetensors",
        dtype="bfloat16",
        tensor_parallel_size=2,
        gpu_memory_utilization=0.5,
        max_model_len=64,
        max_num_seqs=7,
        enable_prefix_caching=True,
        disable_log_stats=True,
        use_tqdm_on_load=False,
    )


def test_a_revision_reaches_vllm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_vllm.install(monkeypatch)
    tokenizer, asked = load_tokenizer(folder), []
    monkeypatch.setattr("glore.models.load_tokenizer", lambda path: asked.append(path) or tokenizer)
    monkeypatch.setattr(
        "glore.model_folder._fetched",
        lambda name, what, revision, weights: asked.append((name, revision)) or folder,
    )
    monkeypatch.setattr(fake_vllm.LLMEngine, "from_engine_args", lambda args: asked.append(args))
    VllmEngine("a/b@v1", EngineSettings(kind="vllm"))
    assert asked[:2] == [("a/b", "v1"), "a/b@v1"]
    commit = folder.name  # in the cache, the folder is named by the commit
    assert (asked[2].model, asked[2].revision, asked[2].tokenizer_revision) == (
        "a/b",
        commit,
        commit,
    )


def test_leaving_early_aborts_what_is_in_progress_and_the_engine_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_vllm.install(monkeypatch)
    engine = VllmEngine(folder, EngineSettings(kind="vllm", max_rows=4))
    stream = engine.run(Request(str(i), ("w5",), (i,), WARM) for i in itertools.count())
    next(stream)
    stream.close()  # type: ignore[attr-defined]  # a generator
    inside = fake_vllm.LLMEngine.made
    assert inside.most_open == 8
    assert len(inside.aborted) >= 5
    assert not inside.open
    items = requests_of(3, 2)
    assert by_id(list(engine.run(items))) == by_id(
        list(VllmEngine(folder, EngineSettings(kind="vllm")).run(items))
    )


def test_what_vllm_refuses_is_an_error_that_names_the_request(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_vllm.install(monkeypatch)
    engine = VllmEngine(folder, EngineSettings(kind="vllm", context=16))
    with pytest.raises(
        EngineError,
        match=r"request 'long': vLLM refuses it: .*length 16.* is longer than the maximum",
    ):
        list(engine.run([*requests_of(2, 2), Request("long", ("w5 " * 16,), (1, 2), WARM)]))
    assert not fake_vllm.LLMEngine.made.open


def test_an_aborted_completion_no_log_probabilities_and_a_model_that_does_not_load(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_vllm.install(monkeypatch)
    engine = VllmEngine(folder, EngineSettings(kind="vllm"))
    completion = fake_vllm.CompletionOutput(0, "", [], finish_reason="abort")
    monkeypatch.setattr(
        fake_vllm.LLMEngine,
        "step",
        lambda self: [
            fake_vllm.RequestOutput(next(iter(self.open)), None, [], None, [completion], True)
        ],
    )
    with pytest.raises(EngineError, match="request 'r0': vLLM ended it with 'abort'"):
        list(engine.run(requests_of(1, 1)))

    completion = fake_vllm.CompletionOutput(0, "w3", [3], finish_reason="length")
    with pytest.raises(
        EngineError, match="request 'r0': vLLM gave no log-probabilities; sample without logprobs"
    ):
        list(
            VllmEngine(folder, EngineSettings(kind="vllm")).run(
                requests_of(1, 1, SamplingParams(logprobs=True))
            )
        )

    def out_of_memory(_: object) -> None:
        raise RuntimeError("CUDA out of\nmemory")

    monkeypatch.setattr(fake_vllm.LLMEngine, "from_engine_args", out_of_memory)
    with pytest.raises(ModelError, match=r"vLLM can't load .*CUDA out of memory"):
        VllmEngine(folder, EngineSettings(kind="vllm"))


def test_its_build_for_cpus_reads_every_prompt_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails at seeded sampling when a prompt is read in parts."""
    fake_vllm.install(monkeypatch, on_cpu=True)
    with VllmEngine(folder, EngineSettings(kind="vllm")) as engine:
        assert fake_vllm.LLMEngine.made.args.enable_chunked_prefill is False
        assert engine.backend == "vllm on a CPU"


def test_engines_that_are_open_at_once_share_the_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_vllm.install(monkeypatch)
    settings = EngineSettings(kind="vllm", gpu_memory=0.7)

    def share() -> float:
        return fake_vllm.LLMEngine.made.args.gpu_memory_utilization

    with VllmEngine(folder, settings):
        assert share() == 0.7
        with VllmEngine(folder, settings):
            assert share() == 0.3
            with pytest.raises(
                EngineError, match=r"hold 100% of the memory .* close one first, or set engine.gpu"
            ):
                VllmEngine(folder, settings)
    with VllmEngine(folder, settings):
        assert share() == 0.7
    assert settings.shared_by(2).gpu_memory == 0.35


def test_closing_ends_its_process_once_and_aborts_what_is_in_progress(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_vllm.install(monkeypatch)
    engine = VllmEngine(folder, EngineSettings(kind="vllm", max_rows=4))
    inside = fake_vllm.LLMEngine.made
    stream = engine.run(requests_of(20, 1))
    next(stream)
    for _ in range(2):
        engine.close()
    assert inside.engine_core.n_shutdowns == 1
    assert not inside.open
    assert inside.aborted


def test_a_process_that_died_is_an_error_that_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_vllm.install(monkeypatch)

    def die(_: object) -> None:
        raise fake_vllm.EngineDeadError("EngineCore encountered an issue.")

    monkeypatch.setattr(fake_vllm.LLMEngine, "step", die)
    engine = VllmEngine(folder, EngineSettings(kind="vllm"))
    with pytest.raises(EngineError, match=r"vLLM's process has died; .*engine\.gpu_memory"):
        list(engine.run(requests_of(1, 1)))


def test_without_vllm_the_error_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(
        EngineError, match=r"needs the package vllm.*pip install 'glore\[vllm\]'.*engine.kind=http"
    ):
        VllmEngine(folder, EngineSettings(kind="vllm"))
