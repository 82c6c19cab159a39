"""`__all__` is the public surface: complete, true, lazy, and every module has one."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import glore

SOURCE = Path(__file__).parents[2] / "src" / "glore"
SCRIPTS = ("__main__.py", "latex_worker.py")
"""Started, never imported."""
MODULES = [p for p in sorted(SOURCE.rglob("*.py")) if p.name not in SCRIPTS]


def declared(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets
        ):
            return (
                [ast.literal_eval(e) for e in node.value.elts]
                if isinstance(node.value, ast.List | ast.Tuple)
                else None
            )
    return None


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}


def bound_names(tree: ast.Module) -> set[str]:
    """What a module defines, imports or sets."""
    bound: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
    return bound


def test_every_module_says_what_is_public_and_has_it() -> None:
    for module, tree in TREES.items():
        names = declared(tree)
        if names is None:
            assert not [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)], (
                f"{module} has no __all__"
            )
            continue
        assert len(set(names)) == len(names), module
        assert set(names) <= bound_names(tree), module


def test_modules_use_only_what_others_declare_public() -> None:
    public = {
        module: {
            *(declared(tree) or ()),
            *(m.rpartition(".")[2] for m in TREES if m.startswith(f"{module}.")),
        }
        for module, tree in TREES.items()
    }
    private = [
        (module, node.module, alias.name)
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in public
        for alias in node.names
        if alias.name not in public[node.module]
    ]
    assert private == [], "(module, other, name): the name is not in the other's __all__"


def test_every_public_name_of_the_package_is_there() -> None:
    for name in glore.__all__:
        if name == "Refiner":
            continue
        assert getattr(glore, name) is not None, name
    assert importlib.import_module("glore.refiner").Refiner is glore.Refiner
    assert set(glore.__all__) <= set(dir(glore))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = glore.nonsense


def test_names_for_the_type_checker_and_for_the_reader_are_the_same() -> None:
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {
        (node.module, alias.name)
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    lazy = {(module, name) for module, names in glore._HOMES.items() for name in names}
    assert typed == lazy
    assert {name for _, name in lazy} | {"run"} == set(glore.__all__)


def test_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import sys, glore\nfound = [m for m in sys.modules if m.startswith('glore.') or m in "
        "('torch', 'pydantic', 'pyarrow')]\nassert not found, found\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
