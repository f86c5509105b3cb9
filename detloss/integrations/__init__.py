"""Put a DetectorLoss into somebody else's model; each module imports its framework itself.

A module is imported when it is first asked for: ``detloss.integrations.torchvision`` works after
``import detloss``, which itself imports no framework.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detloss.integrations import torchvision as torchvision
else:

    def __getattr__(name):
        module = f"{__name__}.{name}"
        if find_spec(module) is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return import_module(module)
