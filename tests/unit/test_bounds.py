"""The versions that are declared: lowest ones in one list, exact ones in the lock."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pinned(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found = (re.fullmatch(r"([\w.-]+)==([\w.+]+).*", line) for line in lines)
    return {m[1].lower().replace("_", "-"): m[2] for m in found if m}


def lower_bounds() -> dict[str, str]:
    out = {}
    for text in PROJECT["dependencies"]:
        requirement = Requirement(text)
        (bound,) = [s.version for s in requirement.specifier if s.operator in (">=", "==")]
        out[requirement.name.lower()] = bound
    return out


def test_the_lowest_versions_are_the_declared_bounds() -> None:
    lowest, bounds = pinned("requirements-lowest.txt"), lower_bounds()
    assert lowest.keys() == bounds.keys()
    assert {name: Version(lowest[name]).release[:2] for name in bounds} == {
        name: (*Version(bounds[name]).release, 0)[:2] for name in bounds
    }
    assert all(Version(lowest[name]) >= Version(bounds[name]) for name in bounds)


def test_the_lock_meets_every_bound() -> None:
    lock = pinned("requirements.lock")
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    for text in wanted:
        requirement = Requirement(text)
        version = lock[requirement.name.lower().replace("_", "-")]
        assert requirement.specifier.contains(version), text
