"""The recipes of CONTRIBUTING.md, followed literally in a copy of the repository."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
FILES = re.findall(
    r"`((?:detloss|tests)/\S+\.py)`(?:, its [^\n]*)?:\n\n```python\n(.*?)```", TEXT, flags=re.DOTALL
)
"""Path and text of each file of the recipes, in order; of an __init__.py what is added to it."""
COPIED = ("detloss", "tests", "configs", "pyproject.toml", "CHANGELOG.md", "CONTRIBUTING.md")


def run(folder, *command):
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def export(path, lines):
    """Adds the import to the imports and the names to `__all__`."""
    imported, names = lines.strip().split("\n\n")
    path.write_text(
        path.read_text()
        .replace("\nfrom ", f"\n{imported}\nfrom ", 1)
        .replace("__all__ = [", f"__all__ = [{names}")
    )


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository")
    ignored = shutil.ignore_patterns("__pycache__", "golden", "examples")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / name)
    for name, text in FILES:
        path = folder / name
        if path.name == "__init__.py":
            export(path, text)
        else:
            assert not path.exists(), f"{name} is there already: a recipe needs a new technique"
            path.write_text(text)
    run(folder, "ruff", "check", "--fix", "--quiet", *(name for name, _ in FILES))
    run(folder, "ruff", "format", "--quiet", *(name for name, _ in FILES))
    return folder


def test_each_recipe_is_three_files():
    rooms = [Path(name).parent.name for name, _ in FILES]
    assert rooms == ["regression"] * 3 + ["matchers"] * 3 + ["terms"] * 3


def test_every_file_that_is_named_exists(followed):
    named = re.findall(r"`((?:detloss|tests|configs|examples)/[\w./]+)`", TEXT)
    assert len(named) > 10
    assert [name for name in named if not (followed / name).exists()] == []


def test_the_recipes_are_formatted(followed):
    for name, text in FILES:
        if not name.endswith("__init__.py"):
            assert (followed / name).read_text() == text, name


def test_whatever_is_tested_of_every_technique_holds_for_the_recipes(followed):
    new = [name for name, _ in FILES if not name.endswith("__init__.py")]
    chosen = "charbonnier or inside or certainty or Charbonnier or Inside or Certainty or one_text"
    passed = run(
        followed,
        *("pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, *new),
        *("tests/test_architecture.py", "tests/test_contract.py", "tests/matchers/test_base.py"),
        *("tests/regression/test_golden.py", "tests/regression/test_finite.py"),
        *("tests/terms/test_base.py", "tests/test_docstrings.py"),
    )
    assert int(re.search(r"(\d+) passed", passed)[1]) > 60
