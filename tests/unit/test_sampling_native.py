"""Compiling native.c: where it can't be done, sampling goes on without it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from glore.sampling import native


@pytest.fixture
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    native.library.cache_clear()
    yield
    native.library.cache_clear()


def compiler(tmp_path: Path, body: str) -> str:
    path = tmp_path / "cc"
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


@pytest.mark.usefixtures("_fresh")
def test_switched_off_or_without_a_compiler_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GLORE_NATIVE", "0")
    assert native.library() is None
    monkeypatch.setenv("GLORE_NATIVE", "1")
    native.library.cache_clear()
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert native.library() is None


@pytest.mark.usefixtures("_fresh")
@pytest.mark.parametrize("body", ["[ $1 = --version ] || { echo no such flag >&2; exit 1; }", "exit 3"])
def test_a_compiler_that_fails_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, body: str
) -> None:
    monkeypatch.delenv("GLORE_NATIVE", raising=False)
    monkeypatch.setenv("CC", compiler(tmp_path, body))
    with caplog.at_level(logging.WARNING):
        assert native.library() is None
    assert "sampling runs on torch alone" in caplog.text


@pytest.mark.usefixtures("_fresh")
def test_it_is_compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GLORE_NATIVE", raising=False)
    if native.library() is None:
        pytest.skip("no C compiler here")
    (made,) = (tmp_path / "cache" / "glore").iterdir()
    before = made.stat().st_mtime_ns
    native.library.cache_clear()
    assert native.library() is not None
    assert [p.stat().st_mtime_ns for p in (tmp_path / "cache" / "glore").iterdir()] == [before]
