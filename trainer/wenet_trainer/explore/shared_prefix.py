"""Which images many configurations get right, each with its own batch-norm statistics, computing what they share once.

Configurations are a tree: those that agree on their first layers hang on one branch. A batch goes down each
branch once, and a branch has statistics of its own, since those depend only on what runs before it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wenet_runtime.bundle import Preprocess
from wenet_trainer.data.base import Images
from wenet_trainer.evaluate import BATCH, device_of, even_batches, fresh_statistics, input_batches, statistics_kept
from wenet_trainer.explore.cuts import INPUT, OUTPUT, Cuts, Segment, Values
from wenet_trainer.norms import BatchNorm, SwitchableBatchNorm
from wenet_trainer.space import GroupConfig
from wenet_trainer.supernet import fixed_norms, switchable_norms, weight_enabled

MOST_HELD = 2 << 30  # bytes

Statistics = tuple[Tensor, Tensor, Tensor]  # running mean, running variance, batches


@dataclass
class Branch:
    """What one segment is with certain groups, behind certain others.

    Attributes:
        groups: of the segment's layers.
        leaf: which configuration ends here, for the last segment.
        statistics: of the segment's norms; known once calibrated.
        children: by groups.
    """

    groups: tuple[int, ...]
    leaf: int | None = None
    statistics: dict[str, Statistics] = field(default_factory=dict)
    children: dict[tuple[int, ...], "Branch"] = field(default_factory=dict)


class SharedPrefix:
    """A supernet that is evaluated with many configurations at a time.

    While it runs, the values that are alive at the forks of one branch are held, for one batch of images. Where
    these would be too many, the configurations are evaluated in parts that share less.

    Args:
        net: the supernet; it is left as it was.
        cuts: its forward in segments.
        observe: told after each batch of each configuration what share of a configuration's work that was.
        most_held: bytes that the values at forks may take.
    """

    def __init__(
        self,
        net: nn.Module,
        cuts: Cuts,
        observe: Callable[[float], None] = lambda _share: None,
        *,
        most_held: int = MOST_HELD,
    ) -> None:
        self._net = net
        self._segments = cuts.segments
        self._observe = observe
        self._most_held = most_held
        self._layers = weight_enabled(net)
        switches, fixed = switchable_norms(net), fixed_norms(net)
        self._norms: dict[str, BatchNorm] = {**fixed, **switches}
        self._patterns = [*fixed.values(), *(norm for switch in switches.values() for _, norm in switch.norms())]

    def right(
        self, configs: Sequence[GroupConfig], calibration: Tensor, images: Images, preprocess: Preprocess
    ) -> NDArray[np.bool_]:
        """Which images each configuration gets right with its own statistics, exactly as evaluated alone.

        Args:
            configs: distinct ones, at least one.
            calibration: (N, C, H, W) normalised training images behind the statistics.
            images: what it is shown.
            preprocess: how an image becomes an input.

        Returns:
            (configurations, images).
        """
        roots, total = self._tree(configs), len(calibration) + len(images)
        if len(configs) > 1 and BATCH * max(self._bytes_held(root, 0) for root in roots) > self._most_held:
            parts = (configs[: len(configs) // 2], configs[len(configs) // 2 :])
            return np.concatenate([self.right(part, calibration, images, preprocess) for part in parts])
        found: list[list[NDArray[np.int64]]] = [[] for _ in configs]
        with self._undisturbed(), torch.inference_mode():
            for batch in even_batches(calibration):
                for _ in self._walk(roots, batch, calibrating=True):
                    self._observe(len(batch) / total)
            for batch in input_batches(images, preprocess):
                for leaf, answers in self._walk(roots, batch, calibrating=False):
                    found[leaf].append(answers.argmax(1).cpu().numpy())
                    self._observe(len(batch) / total)
        return np.stack([np.concatenate(answers) == images.labels for answers in found])

    def _tree(self, configs: Sequence[GroupConfig]) -> list[Branch]:
        root = Branch(())
        for number, config in enumerate(configs):
            branch = root
            for segment in self._segments:
                groups = tuple(config[name] for name in segment.layers)
                branch = branch.children.setdefault(groups, Branch(groups))
            branch.leaf = number
        return list(root.children.values())

    def _bytes_held(self, branch: Branch, depth: int) -> int:
        """What the forks of the worst way from here to an end hold, for each image."""
        own = self._segments[depth].bytes_alive if len(branch.children) > 1 else 0
        return own + max((self._bytes_held(child, depth + 1) for child in branch.children.values()), default=0)

    def _walk(self, roots: Sequence[Branch], batch: Tensor, *, calibrating: bool) -> Iterator[tuple[int, Tensor]]:
        """Send a batch down every branch: each configuration's number and answers."""
        inputs = batch.to(device_of(self._net))
        for branch in roots:
            # A forward may change its input in place, so only a single branch is given it itself.
            values: Values = {INPUT: inputs if len(roots) == 1 else inputs.clone()}
            yield from self._descend(branch, 0, values, calibrating)

    def _descend(self, branch: Branch, depth: int, values: Values, calibrating: bool) -> Iterator[tuple[int, Tensor]]:
        self._enter(branch, self._segments[depth], calibrating)
        self._segments[depth].run(values)
        if branch.leaf is not None:
            yield branch.leaf, values[OUTPUT]
        waiting = list(branch.children.values())
        for number, child in enumerate(waiting):
            # The last one takes the values themselves, so that they are freed as soon as it has used them.
            last = number == len(waiting) - 1
            yield from self._descend(child, depth + 1, values if last else dict(values), calibrating)

    def _enter(self, branch: Branch, segment: Segment, calibrating: bool) -> None:
        """Activate a branch's groups and statistics for its segment."""
        for name, groups in zip(segment.layers, branch.groups, strict=True):
            self._layers[name].set_groups(groups)
        for name in segment.norms:
            switch = self._norms[name]
            norm = switch.active_norm() if isinstance(switch, SwitchableBatchNorm) else switch
            if name not in branch.statistics:
                branch.statistics[name] = fresh_statistics(norm)
            norm.running_mean, norm.running_var, norm.num_batches_tracked = branch.statistics[name]
            norm.training = calibrating

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Leave the network as it was, whatever happens."""
        active = [(layer, layer.active_groups) for layer in self._layers.values()]
        with statistics_kept(self._net, self._patterns):
            self._net.eval()
            for norm in self._patterns:
                norm.momentum = None  # torch's word for a cumulative average
            try:
                yield
            finally:
                for layer, groups in active:
                    layer.set_groups(groups)
