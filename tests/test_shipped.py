"""The configs that come with detloss, found by name from a checkout and from a wheel."""

from pathlib import Path

import pytest

from detloss import ConfigError, shipped
from detloss.shipped import config_path, shipped_configs

CONFIGS = Path(__file__).parents[1] / "configs"


def test_every_config_of_the_checkout_is_shipped():
    assert shipped_configs() == sorted(path.stem for path in CONFIGS.glob("*.yaml"))
    assert shipped_configs()


@pytest.mark.parametrize("name", shipped_configs())
def test_a_name_leads_to_its_file(name):
    assert config_path(name).read_text() == (CONFIGS / f"{name}.yaml").read_text()


def test_a_wheel_has_them_inside_the_package(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.yaml").write_text("")
    monkeypatch.setattr(shipped, "__file__", str(tmp_path / "shipped.py"))
    assert shipped_configs() == ["mine"]
    assert config_path("mine") == tmp_path / "configs" / "mine.yaml"


@pytest.mark.parametrize("name", ["retinant", "retinanet.yaml", "../configs/retinanet", ""])
def test_an_unknown_name_lists_all_and_the_nearest(name):
    with pytest.raises(ConfigError) as error:
        config_path(name)
    expected = f"unknown config {name!r}, detloss comes with {', '.join(shipped_configs())}"
    assert str(error.value).startswith(expected)
    assert "did you mean 'retinanet" in str(error.value) or not name
