"""The layers of the package: each subpackage imports only from those below it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import ltr

ROOT = Path(ltr.__file__).parent
BASE = {"configuration", "errors", "escaping", "files", "former_paths", "identity", "names", "randomness", "results",
        "writing"}  # fmt: skip
MAY_IMPORT = {
    "configuration": {"errors", "files", "identity", "names", "console"},  # console: the notice of a former key
    "data": BASE,
    "losses": BASE,
    "models": BASE,
    "optim": BASE,
    "evaluation": BASE,
    "methods": BASE | {"data", "losses", "models", "optim", "evaluation"},
    "runs": BASE | {"data", "losses", "models", "optim", "evaluation", "methods"},
    "report": BASE | {"evaluation"},  # the names of the groups
    "apply": BASE | {"data", "evaluation", "methods", "runs"},
}
HEAVY = {"torch", "pytorch_lightning", "torchvision", "timm", "torchmetrics", "sklearn", "matplotlib", "wandb"}


def imports(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            # an import by name is an import; of a name that is put together, its beginning
            literal = next((part for part in ast.walk(node.args[0]) if isinstance(part, ast.Constant)), None)
            if literal is not None and isinstance(literal.value, str):
                modules.add(literal.value.rstrip("."))
    return modules


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_from_the_layers_below(package):
    for path in modules(package):
        actual = {name.split(".")[1] for name in imports(path) if name.startswith("ltr.")}
        assert actual <= MAY_IMPORT[package] | {package}, path


@pytest.mark.parametrize("package", ["configuration", "report"])
def test_a_light_package_does_not_import_training_libraries(package):
    for path in modules(package):
        libraries = {name.split(".")[0] for name in imports(path)}
        forbidden = HEAVY - ({"matplotlib"} if package == "report" else set())
        assert not libraries & forbidden, path


def test_every_module_says_in_its_first_line_what_it_is_about():
    for path in ROOT.rglob("*.py"):
        if path.read_text().strip():
            assert ast.get_docstring(ast.parse(path.read_text())), path
