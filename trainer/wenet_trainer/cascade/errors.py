"""What a calibration raises on purpose."""

from wenet_trainer.errors import TrainerError


class CalibrationError(TrainerError):
    """A cascade cannot be calibrated with what was given."""
