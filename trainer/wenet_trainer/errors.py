"""Errors the trainer raises on purpose; each says what was wrong, what was found and what to do."""

from wenet_runtime.errors import WeNetError


class TrainerError(WeNetError):
    """Base of the trainer's own errors."""


class NetworkError(TrainerError):
    """A network, layer or configuration cannot be what was asked for."""


class DataError(TrainerError):
    """A data source or a request to it makes no sense."""


class TrainingError(TrainerError):
    """Training cannot start, go on or resume."""


class CheckpointError(TrainerError):
    """A checkpoint is missing, damaged or not one of ours."""


class ExploreError(TrainerError):
    """A frontier cannot be found, read or written."""


class ExportError(TrainerError):
    """A network cannot become a bundle, or a mode of it deviates from the checkpoint."""


class DemoError(TrainerError):
    """The demo did not show what it is for."""
