"""The shape of the code: imports go downwards, concepts don't know each other, torch stays where
models are.

Read from the source with `ast`, so late imports inside functions count too; imports for type
checkers only do not.
"""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "glore"

LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "statistics"),
    (
        "records",
        "config",
        "progress",
        "curves",
        "files",
        "digests",
        "adapter_folder",
        "own_process",
        "seeds",
        "engines.protocol",
        "step_head",
    ),
    ("tasks", "prompts", "pipeline", "solutions"),
    ("formats", "questions"),
    (
        "devices",
        "model_folder",
        "model_cards",
        "model_weights",
        "models",
        "step_classes",
        "lora",
        "gguf_model",
        "chat_template",
        "tokenization",
        "step_layouts",
        "reward_models",
        "engines",
        "training",
    ),
    ("student", "when", "where", "how", "rerank"),
    ("decisions", "scorer"),
    ("cascade",),
    ("refiner", "stages", "evaluation", "regrade", "rl_rewards"),
    ("report",),
    ("studies", "solution_files"),
    ("serve",),
    ("cli",),
)
"""`engines.protocol` is a contract like the records: it imports nothing of the engines behind it,
so tasks may know it.
"""
CONCEPTS = LAYERS[5]
MAY_USE_TORCH = (
    "devices",
    "lora",
    "engines",
    "training",
    "model_weights",
    "models",
    "step_classes",
    "gguf_model",
    "tokenization",
    "reward_models",
)
EVERYTHING = ("__init__", "__main__")
"""The package's front door and `python -m glore` may name any part."""

LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
FILES = sorted(SOURCE.rglob("*.py"))


def part_of_module(name: str) -> str:
    """The part of `LAYERS` that a module's dotted name (without `glore.`) belongs to."""
    return name if name in LEVEL else name.split(".")[0]


def part_of(path: Path) -> str:
    return part_of_module(".".join(path.relative_to(SOURCE).with_suffix("").parts))


@functools.cache
def imports(path: Path) -> frozenset[tuple[str, str]]:
    """(module, name) of all that a file imports when it runs; name "": the module itself."""
    found: set[tuple[str, str]] = set()

    class Visitor(ast.NodeVisitor):
        def visit_If(self, node: ast.If) -> None:  # ast's own naming
            if "TYPE_CHECKING" not in ast.unparse(node.test):
                self.generic_visit(node)

        def visit_Import(self, node: ast.Import) -> None:  # ast's own naming
            found.update((alias.name, "") for alias in node.names)

        def visit_ImportFrom(self, node: ast.ImportFrom) -> None:  # ast's own naming
            assert node.level == 0, (
                f"{path}: relative import; write glore.… so that this test can read it"
            )
            assert node.module is not None
            found.update((node.module, alias.name) for alias in node.names)

    Visitor().visit(ast.parse(path.read_text(encoding="utf-8")))
    return frozenset(found)


def imported_modules(path: Path) -> set[str]:
    """Absolute names of all modules a file imports when it runs."""
    return {
        f"glore.{name}" if module == "glore" and name else module for module, name in imports(path)
    } | {module for module, _ in imports(path)}


def imported_files(path: Path, modules: Collection[str]) -> set[str]:
    """Those of `modules` that a file imports; of `from package import module` the module alone."""
    names = {
        f"{module}.{name}" if f"{module}.{name}" in modules else module
        for module, name in imports(path)
    }
    return names & set(modules)


def imported_parts(path: Path) -> set[str]:
    """The parts of glore (top-level modules and packages) that a file imports from outside its own
    part.
    """
    parts = {
        part_of_module(name.removeprefix("glore."))
        for name in imported_modules(path)
        if name.startswith("glore.")
    }
    return parts - {part_of(path)}


def test_imports_go_only_downwards() -> None:
    parts = {path: part_of(path) for path in FILES if part_of(path) not in EVERYTHING}
    assert set(parts.values()) <= set(LEVEL), "give it a place in LAYERS and in CONTRIBUTING.md"
    upwards = {
        str(path.relative_to(SOURCE)): above
        for path, part in parts.items()
        if (above := [p for p in imported_parts(path) if LEVEL.get(p, -1) > LEVEL[part]])
    }
    assert upwards == {}, "these files import what stands above them"


def test_concept_modules_do_not_know_each_other() -> None:
    """`stages` and `refiner` compose them."""
    known = {
        str(path.relative_to(SOURCE)): others
        for path in FILES
        if part_of(path) in CONCEPTS and (others := imported_parts(path) & set(CONCEPTS))
    }
    assert known == {}


def test_parts_form_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path in FILES:
        if part_of(path) not in EVERYTHING:
            graph.setdefault(part_of(path), set()).update(imported_parts(path) & set(LEVEL))
    while graph:
        leaves = [part for part, needs in graph.items() if not needs & set(graph)]
        assert leaves, f"circle among {sorted(graph)}"
        for part in leaves:
            del graph[part]


def module_name(path: Path) -> str:
    """The dotted name of a file's module; a package's name for its `__init__`."""
    parts = ("glore", *path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def cycles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The sets of two or more nodes that reach each other."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            new = graph[todo.pop()] - seen
            seen |= new
            todo.extend(new)
        return seen

    reach = {node: reached(node) for node in graph}
    found: list[set[str]] = []
    for node, others in reach.items():
        if node in others and not any(node in cycle for cycle in found):
            found.append({other for other in others if node in reach[other]})
    return found


def test_no_two_files_import_each_other() -> None:
    """Nor through others. Late imports count."""
    modules = {module_name(path): path for path in FILES}
    graph = {name: imported_files(path, modules) - {name} for name, path in modules.items()}
    assert "glore.engines.protocol" in graph["glore.engines.http.engine"]
    assert cycles(graph) == []


def test_cycles_are_found() -> None:
    graph = {"a": {"b", "e"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"f"}, "f": {"e", "d"}}
    assert cycles(graph) == [{"a", "b", "c"}, {"e", "f"}]
    assert cycles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_torch_stays_where_models_are() -> None:
    heavy = {"torch", "transformers", "accelerate", "peft", "safetensors"}
    found = {
        str(path.relative_to(SOURCE)): used
        for path in FILES
        if part_of(path) not in MAY_USE_TORCH
        and (used := {name.split(".")[0] for name in imported_modules(path)} & heavy)
    }
    assert found == {}


def test_the_command_line_starts_without_heavy_packages() -> None:
    """`glore --help` must answer in under a second; these packages alone cost more."""
    heavy = ("torch", "transformers", "datasets", "pandas", "pyarrow", "pydantic", "numpy")
    code = (
        "import sys\nsys.argv = ['glore', '--help']\nimport glore.cli\n"
        "try:\n    glore.cli.main()\nexcept SystemExit:\n    pass\n"
        f"found = [m for m in {heavy} if m in sys.modules]\nassert not found, found\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Usage: glore" in done.stdout
