"""detloss: the loss side of an object detector, chosen by a config.

    criterion = detloss.load_config("retinanet")
    output = criterion(predictions, targets, anchors=anchors)
    output.total.backward()

The functions and modules live in their rooms: `detloss.classification`, `detloss.regression`,
`detloss.boxes`, `detloss.coders`, `detloss.matchers`, `detloss.samplers`, `detloss.qualities`,
`detloss.normalizers`, `detloss.terms`. `detloss.integrations` puts a criterion into a model of
another package, such as `detloss.integrations.torchvision`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from detloss.config import build, build_part, load_config
from detloss.detector import DetectorLoss, DetectorOutput
from detloss.layers import LayeredLoss, LayeredOutput
from detloss.registry import ConfigError

if TYPE_CHECKING:
    from detloss import integrations as integrations
else:

    def __getattr__(name):  # imported when first asked for, since few need it
        if name == "integrations":
            return import_module("detloss.integrations")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__version__ = "0.1.0"

__all__ = [
    "ConfigError",
    "DetectorLoss",
    "DetectorOutput",
    "LayeredLoss",
    "LayeredOutput",
    "__version__",
    "build",
    "build_part",
    "load_config",
]
