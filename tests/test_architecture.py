"""The house rules a reader may rely on, checked rather than hoped for."""

import ast
import importlib
import inspect
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

import detloss
from detloss import registry
from detloss.registry import Part, Registry, options_of

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "detloss"
LAYERS = [
    {"options", "registry", "tensors"},
    {"boxes", "buffers", "docstrings", "shipped"},
    {"kernels"},
    {"classification", "coders", "regression"},
    {"matchers"},
    {"normalizers", "qualities", "samplers"},
    {"inputs"},
    {"batch"},
    {"terms"},
    {"division", "parts"},
    {"validation"},
    {"detector"},
    {"layers"},
    {"yaml_file"},
    {"config"},
    {"__init__"},
    {"bench", "integrations"},
    {"cli"},
]
"""A module may import those of the layers before its own, and of its own room."""
LONGEST = 50
"""Lines of code in a function; more than that is not read at a sight."""

REGISTRIES = [value for value in vars(registry).values() if isinstance(value, Registry)]
PARTS_BY_ID = {
    f"{registry.role}-{name}".replace(" ", "-"): registry[name]
    for registry in REGISTRIES
    for name in registry.names()
}
ROOMS = {cls.__module__.split(".")[1] for cls in PARTS_BY_ID.values()}
SOURCES = sorted(PACKAGE.rglob("*.py"))
MODULES = [
    path for path in SOURCES if path.parent.name in ROOMS and path.stem not in ("__init__", "base")
]
TECHNIQUES = [path for path in MODULES if ".register(" in path.read_text()]
HELPERS = sorted(set(MODULES) - set(TECHNIQUES))


def room(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module or "", node
        elif isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)


def layer(name):
    (index,) = [index for index, rooms in enumerate(LAYERS) if name in rooms]
    return index


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down_only(path):
    for module, _ in imported_modules(path):
        if module.split(".")[0] == "detloss":
            imported = f"{module}.__init__".split(".")[1]
            assert imported == room(path) or layer(imported) < layer(room(path)), module


def test_every_kind_of_part_has_a_room_of_its_own():
    assert len(ROOMS) == len(REGISTRIES)


@pytest.mark.parametrize("path", HELPERS, ids=lambda path: path.stem)
def test_a_module_that_registers_no_technique_helps_one(path):
    name = f"detloss.{path.parent.name}.{path.stem}"
    imported = {module for other in TECHNIQUES for module, _ in imported_modules(other)}
    assert name in imported, f"{path} registers no class and no technique imports it"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_every_module_has_the_test_file_of_its_name(path):
    tests = f"tests/{path.parent.name}/test_{path.name}"
    assert (ROOT / tests).exists(), f"write {tests}, the tests of {path.relative_to(ROOT)}"


@pytest.mark.parametrize("path", TECHNIQUES, ids=lambda path: path.stem)
def test_every_technique_is_exported_by_its_room(path):
    exported = importlib.import_module(f"detloss.{path.parent.name}").__all__
    public = [
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and node.decorator_list
    ]
    assert public, "a technique's file registers a class"
    missing = ", ".join(sorted(set(public) - set(exported)))
    assert not missing, (
        f"write `from detloss.{path.parent.name}.{path.stem} import {missing}` in "
        f"detloss/{path.parent.name}/__init__.py, and the name in its __all__"
    )


def documented(cls):
    """The docstring of a part, and those of the bases that it refers to."""
    names = {base.__name__: base for base in cls.__mro__ if issubclass(base, Part)}
    texts, todo = [], [cls]
    while todo:
        texts.append(todo.pop().__doc__)
        referred = re.findall(r"`(\w+)`", texts[-1])
        todo += [names.pop(name) for name in referred if name in names]
    return "\n".join(texts)


@pytest.mark.parametrize("cls", PARTS_BY_ID.values(), ids=PARTS_BY_ID)
def test_every_part_documents_each_option_and_its_source(cls):
    file = Path(sys.modules[cls.__module__].__file__).read_text()
    assert "Reference:" in file, "write a section `Reference:` with the paper, in a docstring"
    assert "Example:" in cls.__doc__, f"write a section `Example:` in the docstring of {cls}"
    text = documented(cls)
    for option in options_of(cls):
        assert re.search(rf"^ {{4,8}}{option}: ", text, re.MULTILINE), (
            f"write what {option!r} is, under `Args:` in the docstring of {cls.__name__}"
        )


@pytest.mark.parametrize("cls", PARTS_BY_ID.values(), ids=PARTS_BY_ID)
def test_every_class_is_abstract_or_final(cls):
    registered = set(PARTS_BY_ID.values())
    assert not registered & set(cls.__mro__[1:])


def code_lines(source):
    """The numbers of the lines that hold code: no comment, no docstring, no empty line."""
    layout = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in layout:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_function_is_long(path):
    source = path.read_text()
    lines = code_lines(source)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            length = len(lines & set(range(node.lineno, node.end_lineno + 1)))
            assert length <= LONGEST, f"{node.name} has {length} lines of code"


def test_lines_of_code_are_counted_as_one_counts_them():
    source = inspect.cleandoc(
        '''
        def function():
            """A docstring

            of two lines.
            """
            # a comment

            return """a text
            of two lines"""
        '''
    )
    assert code_lines(source) == {1, 8, 9}


def test_the_version_is_one_of_the_changelog():
    versions = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == "Unreleased"
    assert detloss.__version__ == versions[1]


def test_import_is_light():
    code = (
        "import sys, detloss\n"
        "heavy = {'torchvision', 'scipy', 'matplotlib', 'typer', 'rich', 'sklearn'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_compilers_of_all_supported_releases_know_the_types(path):
    """The oldest know no union of types, no annotation of an inner function that is generic, no
    `vars`, no property of a named tuple, and neither `dataclasses.replace` nor `_replace`; no
    compiler reads the fused ways of the kernels.
    """
    if room(path) in ("bench", "integrations", "registry"):  # more than what is compiled
        return
    tree = ast.parse(path.read_text())
    unevaluated = any(module == "__future__" for module, _ in imported_modules(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
            assert not isinstance(node.args[1], ast.BinOp), "write isinstance(x, (A, B))"
        if isinstance(node, ast.Name | ast.Attribute):
            assert ast.unparse(node) not in ("replace", "dataclasses.replace"), "write it out"
            assert ast.unparse(node) != "vars", "name the attributes"
        if isinstance(node, ast.Attribute) and room(path) != "kernels":
            assert node.attr != "_replace", "write it out"
        if isinstance(node, ast.ClassDef) and "NamedTuple" in map(ast.unparse, node.bases):
            decorators = {ast.unparse(d) for f in ast.walk(node) for d in decorators_of(f)}
            assert "property" not in decorators, f"make {node.name} a frozen dataclass"
        if isinstance(node, ast.FunctionDef):
            for annotation in annotations_of_inner_functions(node):
                assert unevaluated or not isinstance(annotation, ast.BinOp | ast.Subscript), (
                    f"write `from __future__ import annotations` for {ast.unparse(annotation)}"
                )


def decorators_of(node):
    return node.decorator_list if isinstance(node, ast.FunctionDef) else []


def annotations_of_inner_functions(outer):
    for inner in ast.walk(outer):
        if isinstance(inner, ast.FunctionDef) and inner is not outer:
            yield inner.returns
            yield from (arg.annotation for arg in ast.walk(inner.args) if isinstance(arg, ast.arg))


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
