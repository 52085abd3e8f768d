"""WeNet Trainer: train one checkpoint, explore its modes, export them as a bundle."""

__version__ = "0.1.0"
