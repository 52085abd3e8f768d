"""Batches of a view, decoded by processes of their own where that is asked for; the sequence is always the same."""

import multiprocessing
import os
import pickle
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from wenet_trainer.data.base import Images, View
from wenet_trainer.errors import DataError

Result = TypeVar("Result")
Job = Callable[[View, slice], Result]


@dataclass(frozen=True)
class _Failure:
    # An exception would come back with a traceback inside its message.
    message: str


class _Groups(Dataset[Result | _Failure], Generic[Result]):
    """What the reading processes get: the job, the view and which rows belong together."""

    def __init__(self, job: Job[Result], view: View, groups: Sequence[slice]) -> None:
        self._job, self._view, self._groups = job, view, groups

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, index: int) -> Result | _Failure:
        try:
            return self._job(self._view, self._groups[index])
        except DataError as error:
            return _Failure(str(error))


def batches(
    view: View, batch: int, *, workers: int = 0, rank: int = 0, world: int = 1, keep_last: bool = False
) -> Iterator[Images]:
    """The images of a view batch by batch, in its order.

    Args:
        view: the images; one that says `in_memory` is never sent to other processes.
        batch: images of a step, over all ranks.
        workers: processes that read and decode ahead; 0 does it here.
        rank: which of the `world` equal slices of every batch is wanted.
        world: ranks that share a batch.
        keep_last: also give a last batch that is short, to see every image once; for one rank only.

    Raises:
        DataError: a batch that cannot be shared evenly, an image that cannot be read (the file is named), or a reading
            process that died.
    """
    if batch < 1 or workers < 0 or not 0 <= rank < world:
        raise DataError(f"batch {batch}, {workers} workers, rank {rank} of {world} make no sense: see `batches`")
    if batch % world or (keep_last and world > 1):
        raise DataError(f"a batch of {batch} cannot be shared evenly by {world} ranks: choose a multiple of {world}")
    share = batch // world
    starts = [step * batch + rank * share for step in range(len(view) // batch)]
    groups = [slice(start, start + share) for start in starts]
    if keep_last and len(view) % batch:
        groups.append(slice(len(view) - len(view) % batch, len(view)))
    return in_order(_load, view, groups, workers=workers)


def in_order(job: Job[Result], view: View, groups: Sequence[slice], *, workers: int) -> Iterator[Result]:
    """`job(view, rows)` for every group of rows, in their order, ahead of time in `workers` processes.

    A view that says `in_memory` is worked on here: sending it would take longer than the work. The job is a module's
    function, since it travels to other processes. torch's random numbers are left alone.
    """
    work = _Groups(job, view, groups)
    if workers and groups and not view.in_memory:
        results = _elsewhere(work, min(workers, len(groups)))
    else:
        results = (work[index] for index in range(len(work)))
    for result in results:
        if isinstance(result, _Failure):
            raise DataError(result.message)
        yield result


def _elsewhere(work: _Groups[Result], workers: int) -> Iterator[Result | _Failure]:
    loader = DataLoader(
        work,
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_end_with_parent,
        multiprocessing_context=_processes(),
        generator=torch.Generator(),  # else torch draws from the global one, and training would depend on `workers`
    )
    try:
        with warnings.catch_warnings():
            # torch adds advice about start methods to the error that we explain below.
            warnings.filterwarnings("ignore", message="Got pickle error", category=UserWarning)
            results = iter(loader)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise DataError(f"the images cannot be sent to reading processes ({error}): use --workers 0") from None
    while True:
        try:
            result = next(results)
        except StopIteration:
            return
        except RuntimeError as error:
            raise DataError(
                f"a reading process ended ({str(error).splitlines()[0]}): perhaps memory ran out; use fewer --workers"
            ) from None
        yield result


def _processes() -> BaseContext:
    # A fork of this process could hang in a lock that one of its threads held; a server that has no threads forks
    # as quickly and cannot.
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _end_with_parent(_: int) -> None:
    """Let a reading process end with the training, also with one that is killed.

    torch's own watch looks at the fork server, which lives as long as its children do.
    """
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _load(view: View, rows: slice) -> Images:
    return view.load(rows)


def _as_it_is(result: Result) -> Result:
    return result
