"""What is kept of a step that went wrong, so that it can be looked at."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from wenet_runtime.files import write_atomic


def save_batch(folder: Path, rank: int, inputs: Tensor, labels: Tensor, configs: Sequence[Mapping[str, int]]) -> str:
    """Write the batch and the sub-networks that gave a loss that is no number.

    Args:
        folder: of the run.
        rank: the process that saw this batch.
        inputs: (N, C, H, W) as the network got them; labels: (N,).
        configs: the step's sub-networks, in its metadata as JSON.

    Returns:
        Where it is, in words: the file `failed-batch-<rank>.safetensors`, or why it could not be written.
    """
    path = folder / f"failed-batch-{rank}.safetensors"
    tensors = {"inputs": inputs.detach().cpu().contiguous(), "labels": labels.cpu().contiguous()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, save(tensors, {"configs": json.dumps([dict(config) for config in configs])}))
    except OSError as error:
        return f"not saved ({error.strerror or error})"
    return f"saved in {path}"
