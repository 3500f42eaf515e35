"""Private names of other libraries may go with any release: each that the package touches is listed with its use."""

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from types import ModuleType

import mirasol_hf

PACKAGE = Path(mirasol_hf.__file__).parent
PAGE = PACKAGE.parent / "docs" / "library-names.md"
# set by the library's constructors, where no class shows them
OF_INSTANCES = {"_attn_implementation", "_gen_kwargs", "_name_or_path"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def modules() -> list[ModuleType]:
    names = [module.name for module in pkgutil.walk_packages([str(PACKAGE)], "mirasol_hf.")]
    return [importlib.import_module(name) for name in names if importlib.util.find_spec(name)]


def names_in_source(path: Path) -> set[str]:
    """Private names that a file reads, calls, defines or assigns as attributes, imports, or spells in a string."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
        elif isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("mirasol_hf"):
            found.update(alias.name for alias in node.names if node.level == 0)
        elif isinstance(node, ast.ClassDef):
            found.update(name.id for line in node.body for name in ast.walk(line) if isinstance(name, ast.Name))
    return {name for name in found if is_private(name)}


def private_names_of_libraries() -> set[str]:
    """Those that the package uses of the classes which its own extend, of others' instances, and by importing them."""
    used = set().union(*(names_in_source(path) for path in PACKAGE.rglob("*.py")))
    touched, own = used & OF_INSTANCES, set()
    for module in modules():
        own.update(name for name, value in vars(module).items() if inspect.isfunction(value))
        for ours in vars(module).values():
            if not inspect.isclass(ours) or not ours.__module__.startswith("mirasol_hf"):
                continue
            bases = [base for base in ours.__mro__ if not base.__module__.startswith(("mirasol_hf", "builtins"))]
            theirs = {name for base in bases for name in [*vars(base), *vars(base).get("__annotations__", {})]}
            touched |= used & theirs
            own |= vars(ours).keys() - theirs
    return touched - (own - touched)


def listed() -> set[str]:
    return set(re.findall(r"^\| `(_\w+)`", PAGE.read_text(encoding="utf-8"), re.MULTILINE))


def test_private_names_of_libraries_are_listed_with_their_use() -> None:
    assert listed() == private_names_of_libraries()
