"""Where and how a training runs, and what is watched: nothing here decides what is learned."""

from dataclasses import dataclass

from wenet_trainer.errors import TrainingError
from wenet_trainer.recipe import setting

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Options:
    """Settings of one run; a resumed one may have others."""

    device: str = setting("auto", "auto, cpu or cuda")
    threads: int = setting(0, "threads of torch; 0 leaves it to torch, 1 is often quickest for small networks")
    workers: int = setting(0, "processes that read images; 0 reads them in between")
    channels_last: bool = setting(False, "keep images as NHWC, which convolutions on a GPU with amp want")
    compile: bool = setting(False, "torch.compile the full and the smallest network")
    validate_images: int = setting(1000, "validation images behind the table after every epoch; 0 for no table")
    recalibrate: int = setting(0, "training images that renew each mode's statistics for the table; 0 does not")
    tensorboard: bool = setting(False, "write TensorBoard events beside the checkpoint")
    check_data: bool = setting(False, "read every image once before training")

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise TrainingError(f"unknown device '{self.device}': known are {', '.join(DEVICES)}")
        for name in ("threads", "workers", "validate_images", "recalibrate"):
            if getattr(self, name) < 0:
                raise TrainingError(f"{name} is {getattr(self, name)}, but cannot be negative")
