"""What pyproject.toml cannot say: a wheel carries the top-level `configs` as `detloss/configs`."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["detloss*"]), "detloss.configs"],
    package_dir={"detloss.configs": "configs"},
    package_data={"detloss": ["py.typed"], "detloss.configs": ["*.yaml"]},
)
