"""One file that holds a training run: weights, optimizer state and what rebuilds the network.

A single safetensors file with JSON in its metadata, so a kill can never leave weights of one epoch
beside settings of another. No random state is kept, because every draw follows from (seed, epoch).
"""

import hashlib
import json
import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from wenet_runtime.files import write_atomic
from wenet_trainer.errors import CheckpointError, NetworkError, TrainingError
from wenet_trainer.network import make_network
from wenet_trainer.recipe import Recipe

FORMAT = "wenet-checkpoint"
FORMAT_VERSION = "2"
FILE = "checkpoint.safetensors"
ACCURACY = "accuracy_"  # and the pattern: a uniform mode's accuracy in a record of the history


@dataclass(frozen=True)
class Checkpoint:
    """A training run after some epochs.

    Attributes:
        recipe: the settings.
        epochs_done: finished epochs.
        history: one record per finished epoch (loss, seconds, accuracies).
        weights: parameters and buffers by name.
        optimizer: state by "<key>.<parameter name>".
        teacher: state of the teacher, empty where it has none.
        sampler: state of the sampling as JSON members, empty where it has none.
        scaler: what fp16 needs to go on, empty otherwise.
        world: how many processes shared the batches.
    """

    recipe: Recipe
    epochs_done: int
    history: tuple[Mapping[str, float], ...]
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    teacher: Mapping[str, Tensor] = field(default_factory=dict)
    sampler: Mapping[str, Any] = field(default_factory=dict)
    scaler: Mapping[str, float] = field(default_factory=dict)
    world: int = 1

    def network(self) -> nn.Module:
        """The supernet with these weights.

        Raises:
            CheckpointError: the weights do not fit the model the checkpoint names.
        """
        net = make_network(self.recipe)
        try:
            net.load_state_dict(dict(self.weights))
        except RuntimeError as error:
            raise CheckpointError(
                f"the checkpoint's weights do not fit model '{self.recipe.model}' ({str(error)[:200]}…): "
                "was the model's code changed since?"
            ) from None
        return net

    def weights_sha256(self) -> str:
        """SHA-256 over names, types, shapes and values of all weights: what a frontier belongs to."""
        digest = hashlib.sha256()
        for name, value in sorted(self.weights.items()):
            array = value.detach().cpu().contiguous().numpy()
            digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write the file so that a kill or a full disk leaves the old one or the new one.

    Raises:
        CheckpointError: it cannot be written; the one before is as it was.
    """
    tensors = {
        f"{kind}.{name}": value.detach().cpu().contiguous()
        for kind, values in (
            ("model", checkpoint.weights),
            ("optimizer", checkpoint.optimizer),
            ("teacher", checkpoint.teacher),
        )
        for name, value in values.items()
    }
    state = {
        "recipe": checkpoint.recipe.to_json(),
        "epochs_done": checkpoint.epochs_done,
        "history": [dict(record) for record in checkpoint.history],
        "sampler": dict(checkpoint.sampler),
        "scaler": dict(checkpoint.scaler),
        "world": checkpoint.world,
    }
    metadata = {"format": FORMAT, "format_version": FORMAT_VERSION, "state": json.dumps(state)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, save(tensors, metadata))
    except OSError as error:
        kept = "the checkpoint of the epoch before is intact" if path.exists() else "there is none yet"
        raise CheckpointError(
            f"cannot write {path} ({error.strerror or error}): {kept}; make room or choose another --out, "
            "then give the same command again to go on"
        ) from error


def check_disk(out: Path, net: nn.Module, copies: int) -> None:
    """Refuse to start a training whose checkpoints do not fit the disk.

    Args:
        out: directory of the run; may not exist yet.
        net: the supernet.
        copies: how often its numbers stand in a checkpoint: weights, the optimizer's averages, the teacher.

    Raises:
        CheckpointError: two checkpoints (the old one stays until the new one is written) are larger than
            what is free.
    """
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free + ((out / FILE).stat().st_size if (out / FILE).exists() else 0)
    wanted = 2 * copies * sum(tensor.numel() * tensor.element_size() for tensor in net.state_dict().values())
    if wanted > free:
        raise CheckpointError(
            f"{there} has {free / 1e6:.0f} MB free, but two checkpoints take {wanted / 1e6:.0f} MB: "
            "make room or choose another --out"
        )


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint file, or the one inside a directory.

    Raises:
        CheckpointError: missing, truncated, or not one of ours; the message names the file.
    """
    if path.is_dir():
        path = path / FILE
    if not path.is_file():
        out = path.parent if path.suffix == Path(FILE).suffix else path  # else the name of a run that is not there
        raise CheckpointError(f"no checkpoint at {path}: make one with `wenet-trainer train --out {out}`")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, struct.error) as error:
        raise CheckpointError(
            f"{path} is damaged or no safetensors file ({error}): restore it, or train again into another --out"
        ) from None
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} is a safetensors file, but no {FORMAT}: name one that wenet-trainer wrote")
    if metadata.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {metadata.get('format_version')!r}, this wenet-trainer reads "
            f"{FORMAT_VERSION}: use a matching version"
        )
    return _decode(path, metadata, tensors)


def _decode(path: Path, metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> Checkpoint:
    try:
        state: dict[str, Any] = json.loads(metadata["state"])
        return Checkpoint(
            recipe=Recipe.from_json(state["recipe"]),
            epochs_done=int(state["epochs_done"]),
            history=tuple(state["history"]),
            weights=_under("model.", tensors),
            optimizer=_under("optimizer.", tensors),
            teacher=_under("teacher.", tensors),
            sampler=dict(state["sampler"]),
            scaler=dict(state["scaler"]),
            world=int(state["world"]),
        )
    except (KeyError, TypeError, ValueError, TrainingError, NetworkError) as error:
        raise CheckpointError(f"{path} has a damaged header ({error}): restore it, or train again") from None


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
