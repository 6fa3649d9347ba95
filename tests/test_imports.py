"""Who may import whom: the table of the house, checked on the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "vosssl"
LOW = {"ops", "clip"}
ALLOWED = {  # package -> what of vosssl it may import, besides itself
    "ops": {"clip"},
    "clip": set(),
    "layers": LOW,
    "losses": LOW,
    "metrics": LOW,
    "data": LOW,
    "backbones": LOW | {"layers", "data"},
    "propagation": LOW | {"layers", "losses", "metrics", "data", "backbones"},
    "methods": LOW | {"layers", "losses", "metrics", "data", "backbones", "propagation"},
    "engine": LOW | {"losses", "metrics", "data", "propagation"},
    "annotation": LOW | {"metrics", "data", "propagation", "engine"},
    "modes": LOW
    | {"layers", "losses", "metrics", "data", "backbones", "propagation", "engine", "annotation"},
    "__main__": {"modes", "engine"},
}
HYDRA_ALLOWED = {"modes", "__main__"}


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, type-checking blocks included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.ImportFrom):
            names.add("." * node.level)
    return names


def part(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_what_its_place_allows(path: Path) -> None:
    own = part(path)
    for name in imports(path):
        assert not name.startswith("."), f"{path} imports relatively"
        if name.startswith("vosssl."):
            target = name.split(".")[1]
            assert target == own or target in ALLOWED[own], f"{path} imports {name}"
        if name.split(".")[0] in ("hydra", "omegaconf"):
            assert own in HYDRA_ALLOWED, f"{path} imports {name}"


def test_a_method_imports_no_other_method() -> None:
    for path in sorted((PACKAGE / "methods").rglob("*.py")):
        own = path.relative_to(PACKAGE / "methods").parts[0].removesuffix(".py")
        for name in imports(path):
            if name.startswith("vosssl.methods."):
                assert name.split(".")[2] == own, f"{path} imports {name}"


def test_eval_scripts_and_notebooks_are_not_imported() -> None:
    for path in FILES:
        assert not {name.split(".")[0] for name in imports(path)} & {"eval", "scripts", "notebooks", "tests"}
