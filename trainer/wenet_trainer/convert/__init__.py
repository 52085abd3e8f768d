"""Makes a supernet of any CNN: the user's own, torchvision's, timm's."""

from wenet_trainer.convert.conversion import convert
from wenet_trainer.convert.report import Conversion, Note

__all__ = ["Conversion", "Note", "convert"]
