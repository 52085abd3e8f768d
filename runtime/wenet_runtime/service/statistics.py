"""What GET …/stats tells: how often and how long each mode worked, in the shape that Triton's clients read.

The shape is that of Triton Inference Server's statistics extension; times add up from the start of the bundle.
"""

import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional

from wenet_runtime.result import Result

COMPUTE = ("compute_input", "compute_infer", "compute_output")
PARTS = ("success", "fail", "queue", *COMPUTE)


@dataclass
class Duration:
    """A count and how long it took together. A batch of several requests is counted by each one's share of it."""

    count: float = 0.0
    seconds: float = 0.0

    def add(self, seconds: float, share: float = 1.0) -> None:
        """Count one that took so long, or a share of one."""
        self.count += share
        self.seconds += max(0.0, seconds) * share

    def members(self) -> Dict[str, int]:
        """As Triton says it."""
        return {"count": round(self.count), "ns": round(self.seconds * 1e9)}


@dataclass
class _OfMode:
    last_ms: int = 0
    rows: int = 0
    executions: float = 0.0
    parts: Dict[str, Duration] = field(default_factory=lambda: {name: Duration() for name in PARTS})
    batches: Dict[int, Dict[str, Duration]] = field(default_factory=dict)


class Statistics:
    """Counts on the event loop alone, so without a lock. As many entries as modes, and as sizes of batches each.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._modes: Dict[str, _OfMode] = {}

    def answered(self, result: Result, *, rows: int, decode_s: float, encode_s: float, total_s: float) -> None:
        """Count one request that a mode answered.

        Args:
            result: what the mode answered.
            rows: of the request.
            decode_s: from its bytes to tensors.
            encode_s: from tensors to bytes.
            total_s: end to end.
        """
        entry = self._modes.get(result.mode_id) or self._modes.setdefault(result.mode_id, _OfMode())
        entry.last_ms = round(self._clock() * 1e3)
        entry.rows += rows
        share = min(1.0, rows / max(1, result.batch_rows))
        entry.executions += share
        infer_s = result.infer_ms / 1e3
        entry.parts["success"].add(total_s)
        entry.parts["queue"].add(result.queue_ms / 1e3)
        batch = entry.batches.get(result.batch_rows)
        if batch is None:
            batch = entry.batches[result.batch_rows] = {name: Duration() for name in COMPUTE}
        for name, seconds in zip(COMPUTE, (decode_s, infer_s, encode_s)):
            entry.parts[name].add(seconds)
            batch[name].add(seconds, share)

    def failed(self, mode_id: Optional[str], total_s: float) -> None:
        """Count one request that was not answered; None for the mode if it had none, which is no mode's failure."""
        if mode_id is not None:
            self._modes.setdefault(mode_id, _OfMode()).parts["fail"].add(total_s)

    def members(self, model: str, mode_ids: List[str]) -> List[Dict[str, Any]]:
        """The entries of these modes of a model."""
        return [_members(model, mode_id, self._modes.get(mode_id, _OfMode())) for mode_id in mode_ids]


def _members(model: str, mode_id: str, entry: _OfMode) -> Dict[str, Any]:
    return {
        "name": model,
        "version": mode_id,
        "last_inference": entry.last_ms,
        "inference_count": entry.rows,
        "execution_count": round(entry.executions),
        "inference_stats": {
            **{name: duration.members() for name, duration in entry.parts.items()},
            # There is no cache of answers; clients that compute with these want them there.
            "cache_hit": Duration().members(),
            "cache_miss": Duration().members(),
        },
        "batch_stats": [
            {"batch_size": size, **{name: duration.members() for name, duration in entry.batches[size].items()}}
            for size in sorted(entry.batches)
        ],
    }
