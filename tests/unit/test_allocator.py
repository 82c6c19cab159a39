"""The memory that a training frees is returned to the kernel, at the latest when it has grown."""

from __future__ import annotations

import subprocess
import sys

import pytest

from glore.training import allocator
from glore.training.allocator import LEAST_GROWTH, STEPS_BETWEEN_RELEASES, KeptMemory


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The size that the process seems to have, and the number of releases. `after`: the size that a
    release leaves.
    """
    seen = {"bytes": 100, "releases": 0, "after": 100}
    monkeypatch.setattr(allocator, "resident_bytes", lambda: seen["bytes"])
    monkeypatch.setattr(allocator, "available_bytes", lambda: 6 * LEAST_GROWTH)

    def release() -> None:
        seen["releases"] += 1
        seen["bytes"] = seen["after"]

    monkeypatch.setattr(allocator, "release_freed_memory", release)
    return seen


def test_memory_that_grew_by_a_third_of_what_was_free_is_released(seen: dict[str, int]) -> None:
    kept = KeptMemory(True)
    for _ in range(8):
        seen["bytes"] += LEAST_GROWTH // 4
        kept.after_step()
    assert seen["releases"] == 0
    seen["bytes"] += 1
    kept.after_step()
    assert seen == {"bytes": 100, "releases": 1, "after": 100}


def test_growth_counts_from_what_a_release_left(seen: dict[str, int]) -> None:
    """Weights and optimiser states are not freed, so they don't count as grown."""
    kept = KeptMemory(True)
    seen["after"] = seen["bytes"] = 8 * LEAST_GROWTH
    kept.after_step()
    kept.after_step()
    assert seen["releases"] == 1


def test_memory_that_did_not_grow_is_released_now_and_then(seen: dict[str, int]) -> None:
    kept = KeptMemory(True)
    for _ in range(2 * STEPS_BETWEEN_RELEASES):
        kept.after_step()
    assert seen["releases"] == 2


def test_nothing_is_released_where_nothing_is_kept(seen: dict[str, int]) -> None:
    kept = KeptMemory(False)
    seen["bytes"] = 10 * LEAST_GROWTH
    for _ in range(2 * STEPS_BETWEEN_RELEASES):
        kept.after_step()
    assert seen["releases"] == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="malloc_trim is glibc's")
def test_large_blocks_take_few_page_faults_inside_and_are_returned_after() -> None:
    """In a process of its own: what other tests freed would count, too."""
    code = """
import resource
from glore.own_process import resident_bytes
from glore.training.allocator import keep_freed_memory
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def churn():
    before = faults()
    for _ in range(20):
        block = bytearray(50 * 2**20)
        block[::4096] = block[::4096]
        del block
    return faults() - before
outside = churn()
start = resident_bytes()
with keep_freed_memory() as kept:
    churn()
    print(outside, churn(), kept.is_kept)
print(resident_bytes() - start < 10 * 2**20, churn() > 10_000)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    outside, inside, is_kept = first.split()
    if is_kept == "False":
        pytest.skip("the C library is not glibc")
    assert int(outside) > 10_000
    assert int(inside) < 1000
    assert second == "True True"


def test_the_process_knows_its_size() -> None:
    before = allocator.resident_bytes()
    block = bytearray(64 * 1024**2)
    assert allocator.resident_bytes() >= before + len(block) // 2 > 0
    assert allocator.available_bytes() > 0
