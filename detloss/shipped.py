"""The configs that come with detloss, by name."""

from pathlib import Path

from detloss.registry import ConfigError, nearest


def shipped_configs() -> list[str]:
    """The names of all configs that come with detloss, sorted.

    Example:
        >>> "retinanet" in shipped_configs()
        True
    """
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def config_path(name: str) -> Path:
    """The file of the config that comes with detloss under that name.

    Raises:
        ConfigError: If there is none, naming those that there are and the nearest.

    Example:
        >>> config_path("retinanet").name
        'retinanet.yaml'
    """
    names = shipped_configs()
    if name not in names:
        raise ConfigError(
            f"unknown config {name!r}, detloss comes with {', '.join(names)}{nearest(name, names)}"
        )
    return _folder() / f"{name}.yaml"


def _folder() -> Path:
    package = Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"  # a checkout
