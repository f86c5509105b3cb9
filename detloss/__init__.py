"""detloss: the loss side of an object detector, chosen by a config.

    criterion = detloss.load_config("retinanet")
    output = criterion(predictions, targets, anchors=anchors)
    output.total.backward()

The functions and modules live in their rooms: `detloss.classification`, `detloss.regression`,
`detloss.boxes`, `detloss.coders`, `detloss.matchers`, `detloss.samplers`, `detloss.qualities`,
`detloss.normalizers`, `detloss.terms`.
"""

from detloss.config import build, build_part, load_config
from detloss.detector import DetectorLoss, DetectorOutput
from detloss.registry import ConfigError

__version__ = "0.1.0"

__all__ = [
    "ConfigError",
    "DetectorLoss",
    "DetectorOutput",
    "__version__",
    "build",
    "build_part",
    "load_config",
]
