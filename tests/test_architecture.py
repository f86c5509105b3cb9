"""The house rules a reader may rely on, checked rather than hoped for."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from detloss.registry import SECTIONS, options_of

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "detloss"
BASE = {"boxes", "registry", "tensors"}
LOSSES = BASE | {"kernels"}
PARTS = LOSSES | {"classification", "regression", "coders"}
HEAD = PARTS | {"matchers", "samplers", "normalizers"}
MAY_IMPORT = {
    "tensors": set(),
    "boxes": {"tensors"},
    "registry": set(),
    "kernels": BASE,
    "classification": LOSSES,
    "regression": LOSSES,
    "coders": LOSSES,
    "matchers": PARTS,
    "samplers": PARTS | {"matchers"},
    "normalizers": PARTS | {"matchers", "samplers"},
    "validation": PARTS | {"matchers"},
    "detector": HEAD | {"validation"},
    "config": HEAD | {"detector"},
    "integrations": HEAD | {"detector", "config"},
    "bench": HEAD | {"detector", "config"},
    "cli": HEAD | {"detector", "config", "bench"},
    "__init__": {"config", "detector", "registry"},
}
ROOM_OF_SECTION = {
    "matcher": "matchers",
    "coder": "coders",
    "sampler": "samplers",
    "classification": "classification",
    "box": "regression",
    "normalizer": "normalizers",
}
SOURCES = sorted(PACKAGE.rglob("*.py"))
MODULES = [
    path
    for path in SOURCES
    if path.parent.name in ROOM_OF_SECTION.values() and path.stem not in ("__init__", "base")
]
TECHNIQUES = [path for path in MODULES if ".register(" in path.read_text()]
HELPERS = sorted(set(MODULES) - set(TECHNIQUES))
PARTS_BY_ID = {
    f"{section}-{name}": SECTIONS[section][name]
    for section in SECTIONS
    for name in SECTIONS[section].names()
}


def room(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module or "", node
        elif isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down_only(path):
    for module, _ in imported_modules(path):
        if module.startswith("detloss."):
            imported = module.split(".")[1]
            assert imported == room(path) or imported in MAY_IMPORT[room(path)], module


@pytest.mark.parametrize("path", HELPERS, ids=lambda path: path.stem)
def test_a_module_that_registers_no_technique_helps_one(path):
    name = f"detloss.{path.parent.name}.{path.stem}"
    imported = {module for other in TECHNIQUES for module, _ in imported_modules(other)}
    assert name in imported, f"{path} registers no class and no technique imports it"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_every_module_has_the_test_file_of_its_name(path):
    assert (ROOT / "tests" / path.parent.name / f"test_{path.name}").exists()


@pytest.mark.parametrize("path", TECHNIQUES, ids=lambda path: path.stem)
def test_every_technique_is_exported_by_its_room(path):
    exported = importlib.import_module(f"detloss.{path.parent.name}").__all__
    public = [
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and node.decorator_list
    ]
    assert public, "a technique's file registers a class"
    assert set(public) <= set(exported)


@pytest.mark.parametrize("cls", PARTS_BY_ID.values(), ids=PARTS_BY_ID)
def test_every_part_documents_each_option_and_its_source(cls):
    file = Path(sys.modules[cls.__module__].__file__).read_text()
    assert "Reference:" in file
    assert "Example:" in cls.__doc__
    for option in options_of(cls):
        assert f"        {option}: " in cls.__doc__ or f"    {option}: " in cls.__doc__, option


@pytest.mark.parametrize("cls", PARTS_BY_ID.values(), ids=PARTS_BY_ID)
def test_every_class_is_abstract_or_final(cls):
    registered = set(PARTS_BY_ID.values())
    assert not registered & set(cls.__mro__[1:])


def test_import_is_light():
    code = (
        "import sys, detloss\n"
        "heavy = {'torchvision', 'scipy', 'matplotlib', 'typer', 'rich', 'sklearn'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_library_never_compiles_by_itself():
    for path in SOURCES:
        if room(path) == "bench":  # which measures what a user's compiler makes of it
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (
                isinstance(node, ast.Attribute)
                and node.attr == "compile"
                and isinstance(node.value, ast.Name)
                and node.value.id == "torch"
            ), path
