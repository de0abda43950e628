"""GoogLeNet, "Going Deeper with Convolutions" (arXiv 1409.4842), on the engine `minigrad`.

    import googlenet

    network = googlenet.load("runs/NAME/best.h5")
    network.predict([image])                    # uint8 RGB (H, W, 3) -> probabilities (1, classes)
    network.features([image], "inception_4a")   # -> (1, 14, 14, 512) at 224 pixels
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from googlenet.config import ModelConfig, TrainingConfig
    from googlenet.inference import Predictor, load
    from googlenet.model import GoogLeNet, Outputs

__all__ = ["GoogLeNet", "ModelConfig", "Outputs", "Predictor", "TrainingConfig", "load"]

_HOMES = {"GoogLeNet": "model", "ModelConfig": "config", "Outputs": "model", "Predictor": "inference",
          "TrainingConfig": "config", "load": "inference"}


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for: `import googlenet` itself compiles and loads nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
