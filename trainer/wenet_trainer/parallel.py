"""Many processes as one trainer (`torchrun`): who am I, averages over all, one word from the first.

Gradients are averaged once a step, after all of its sub-networks, so s sub-networks cost one exchange
where `DistributedDataParallel` would make s, and S-BN parameters that no sub-network of the step used
need no special care: every process samples the same sub-networks, so the same gradients are missing.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from wenet_trainer.errors import TrainingError

PATIENCE = timedelta(days=1)  # the first process may measure for hours while the others wait; torchrun ends dead runs
BUCKET = 8_388_608  # numbers exchanged at a time: 32 MiB beside the gradients


@dataclass(frozen=True)
class Workers:
    """This process among all that train together; the first one alone writes and prints.

    Attributes:
        rank: this process, from 0.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace floating-point tensors by their average over all processes, in place."""
        if self.world == 1:
            return
        for bucket in _buckets(list(tensors)):
            flat = torch.cat([tensor.detach().flatten() for tensor in bucket])
            dist.all_reduce(flat)
            flat /= self.world
            parts = torch.split(flat, [tensor.numel() for tensor in bucket])
            with torch.no_grad():
                for tensor, part in zip(bucket, parts, strict=True):
                    tensor.copy_(part.view_as(tensor))

    def average_gradients(self, net: nn.Module) -> None:
        """Average what the step's sub-networks left in `grad`."""
        self.average(parameter.grad for parameter in net.parameters() if parameter.grad is not None)

    def average_statistics(self, net: nn.Module) -> None:
        """Average the batch norms' running statistics, which each process gathered from its own images."""
        self.average(buffer for buffer in net.buffers() if buffer.is_floating_point())

    def gathered(self, rows: Tensor) -> Tensor:
        """All processes' rows, in the order of the ranks, in all processes.

        Args:
            rows: (n, …) with a length of its own in each process; the other sizes and the type are the same in all.
        """
        if self.world == 1:
            return rows
        counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(self.world)]
        dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
        longest = max(int(count) for count in counts)
        padded = rows.new_zeros((longest, *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])

    def from_first(self, value: Any, device: torch.device) -> Any:
        """The first process's JSON value, in all processes."""
        if self.world == 1:
            return value
        text = json.dumps(value).encode() if self.first else b""
        length = torch.tensor(len(text), device=device)
        dist.broadcast(length, 0)
        data = torch.zeros(int(length), dtype=torch.uint8, device=device)
        if self.first:
            data.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        dist.broadcast(data, 0)
        return json.loads(bytes(data.cpu().tolist()))

    def check_same(self, text: str, device: torch.device) -> None:
        """Refuse to go on where processes disagree on `text`, e.g. on what the checkpoint holds.

        Raises:
            TrainingError: another process has another text.
        """
        first = self.from_first(text, device)
        differing = torch.tensor(float(first != text), device=device)
        if self.world > 1:
            dist.all_reduce(differing)
        if differing:
            raise TrainingError(
                f"the {self.world} processes disagree: the first has {first}, this one {text}. "
                "Give all of them the same --out on a file system they share, and the same settings"
            )


@contextmanager
def workers(device: torch.device) -> Iterator[Workers]:
    """All processes that `torchrun` started, or this one alone; what was joined is left at the end.

    After an error nothing is left properly: the others may be waiting for this process, which must end
    so that `torchrun` ends them.

    Raises:
        TrainingError: torchrun's variables are there, but the others cannot be reached.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Workers()
        return
    try:
        if device.type == "cuda":
            torch.cuda.set_device(device)
            dist.init_process_group("nccl", device_id=device, timeout=PATIENCE)
        else:
            dist.init_process_group("gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"cannot join the other processes ({error}): start them all with torchrun") from None
    yield Workers(dist.get_rank(), dist.get_world_size())
    dist.barrier()  # who leaves while another still writes may tear the connection under its hands
    dist.destroy_process_group()


def is_first() -> bool:
    """Whether this process is the first of those that `torchrun` started, or alone."""
    return os.environ.get("RANK", "0") == "0"


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and (tensor.dtype != bucket[0].dtype or sum(one.numel() for one in bucket) + tensor.numel() > BUCKET):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
