"""forward.c: compiled where it can be, else sampling goes on without it; and its drawing, token for
token that of torch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glore.engines.local.draw import DrawSettings, draw, draw_each
from glore.engines.local.native import build, call
from glore.engines.local.native.call import draw_natively
from glore.errors import EngineError


@pytest.fixture(scope="module")
def code() -> build.Library:
    """The compiled code. A machine without a C compiler samples with torch alone, so there is
    nothing to compare then.
    """
    found = build.library()
    if found is None:
        pytest.skip("no C compiler here, or switched off")
    return found


@pytest.fixture
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    build.library.cache_clear()
    yield
    build.library.cache_clear()


def compiler(tmp_path: Path, body: str) -> str:
    path = tmp_path / "cc"
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


@pytest.mark.usefixtures("_fresh")
def test_switched_off_or_without_a_compiler_there_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GLORE_NATIVE", "0")
    assert build.library() is None
    monkeypatch.setenv("GLORE_NATIVE", "1")
    build.library.cache_clear()
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build.library() is None


@pytest.mark.usefixtures("_fresh")
@pytest.mark.parametrize(
    "body", ["[ $1 = --version ] || { echo no such flag >&2; exit 1; }", "exit 3"]
)
def test_a_compiler_that_fails_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, body: str
) -> None:
    monkeypatch.delenv("GLORE_NATIVE", raising=False)
    monkeypatch.setenv("CC", compiler(tmp_path, body))
    with caplog.at_level(logging.WARNING):
        assert build.library() is None
    assert "sampling runs on torch alone" in caplog.text


@pytest.mark.usefixtures("_fresh")
def test_it_is_compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GLORE_NATIVE", raising=False)
    if build.library() is None:
        pytest.skip("no C compiler here")
    (made,) = (tmp_path / "cache" / "glore").iterdir()
    before = made.stat().st_mtime_ns
    build.library.cache_clear()
    assert build.library() is not None
    assert [p.stat().st_mtime_ns for p in (tmp_path / "cache" / "glore").iterdir()] == [before]


@given(
    seed=st.integers(0, 2**32 - 1),
    n_vocab=st.sampled_from([1, 2, 15, 16, 17, 61, 512, 5003]),
    spread=st.sampled_from([0.0, 0.1, 3.0, 40.0]),
    temperature=st.sampled_from([1.0, 0.7, 0.05, 3.0]),
    shared=st.booleans(),
)
@settings(max_examples=120, deadline=None)
def test_drawing_natively_is_drawing_with_torch(
    code: build.Library, seed: int, n_vocab: int, spread: float, temperature: float, shared: bool
) -> None:
    rng = np.random.default_rng(seed)
    n = 300
    logits = torch.from_numpy((rng.standard_normal((n, n_vocab)) * spread).astype(np.float32))
    logits[rng.random((n, n_vocab)) < 0.1] = -torch.inf
    logits[:, rng.integers(n_vocab)] = 0.5
    noise = (rng.integers(0, 2**24, n) * 2.0**-24).astype(np.float32)
    noise[:3] = 0.0, 2.0**-24, 1 - 2.0**-24
    greedy = rng.random(n) < 0.2
    rows = DrawSettings(
        np.where(greedy, 0, temperature).astype(np.float32),
        np.zeros(n, np.int64),
        np.ones(n, np.float32),
    )
    row = rng.integers(0, n, n) if shared else np.arange(n)
    row.sort()
    assert (
        draw_natively(code, logits, row, noise, rows).tolist()
        == draw(logits[row], noise, rows).tolist()
    )


def test_a_point_on_a_step_is_left_to_torch_and_others_are_not(
    code: build.Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def careful(
        logits: torch.Tensor, row: np.ndarray, noise: np.ndarray, rows: DrawSettings
    ) -> torch.Tensor:
        asked.extend(noise.tolist())
        return draw_each(logits, row, noise, rows)

    monkeypatch.setattr(call, "draw_each", careful)
    noise = np.array([0.0, 0.1, 0.25, 0.25 + 2.0**-24, 0.4, 0.5, 0.75 - 2.0**-24, 0.9], np.float32)
    rows = DrawSettings(np.ones(8, np.float32), np.zeros(8, np.int64), np.ones(8, np.float32))
    logits = torch.zeros(8, 4)
    assert (
        draw_natively(code, logits, np.arange(len(noise)), noise, rows).tolist()
        == draw(logits, noise, rows).tolist()
        == [0, 0, 1, 1, 1, 2, 2, 3]
    )
    assert asked == noise[[0, 2, 3, 5, 6]].tolist()


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_broken_logits_are_an_error_natively_too(
    code: build.Library, temperature: float, value: float
) -> None:
    rows = DrawSettings(
        np.full(2, temperature, np.float32), np.zeros(2, np.int64), np.ones(2, np.float32)
    )
    logits = torch.zeros(2, 7)
    logits[1, :] = value
    with pytest.raises(EngineError, match="NaN"):
        draw_natively(code, logits, np.arange(2), np.array([0.3, 0.3], np.float32), rows)
