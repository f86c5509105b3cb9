"""A YAML file as people write it, and what is wrong with one."""

import re
from collections.abc import Hashable
from os import PathLike
from pathlib import Path
from typing import Any

import yaml

from detloss.registry import ConfigError
from detloss.shipped import shipped_configs


def read_yaml(path: str | PathLike[str]) -> Any:
    """What the file says.

    Raises:
        ConfigError: If it cannot be read, is no text in UTF-8, or no YAML; with its line.
        FileNotFoundError: If there is no such file.
    """
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            return yaml.load(file, Loader=_Loader)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected text in UTF-8, got {error}") from None
    except FileNotFoundError:
        name, cure = Path(path).stem, ""
        if name in shipped_configs():
            cure = f"; detloss comes with a config of that name, {name!r}"
        raise FileNotFoundError(f"{path}: there is no such file{cure}") from None
    except (IsADirectoryError, PermissionError) as error:
        raise ConfigError(f"{path}: expected a YAML file, got {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2020-13-01
        raise ConfigError(f"{path}: not valid YAML: {error}") from None


class _Loader(yaml.SafeLoader):
    """YAML as people write it: 1e-7 is a number, and a key given twice is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # "<<", whose keys may be overruled
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):  # an error of the base class, which says so
                continue
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"key {key!r} is given twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+|\.[0-9]+)$"),
    list("-+.0123456789"),
)
