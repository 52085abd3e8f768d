"""Which device a process trains on."""

import torch

from wenet_trainer.errors import TrainingError


def open_device(name: str, local_rank: int) -> torch.device:
    """The device of that name.

    Args:
        name: auto (a GPU where there is one), cpu or cuda.
        local_rank: this process among those on this machine; each takes one GPU.

    Raises:
        TrainingError: a GPU was asked for and there is none, or there are fewer GPUs than processes.
    """
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise TrainingError("no CUDA device was found: train with --device cpu, or install a CUDA build of torch")
    if name == "cpu" or not there:
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise TrainingError(
            f"this machine has {torch.cuda.device_count()} GPUs and at least {local_rank + 1} processes: start as many "
            "processes as there are GPUs, or train with --device cpu"
        )
    return torch.device("cuda", local_rank)
