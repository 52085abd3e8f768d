"""What a request gets."""

from dataclasses import dataclass
from typing import Any, Dict, Optional

from numpy.typing import NDArray

from wenet_runtime.policy import Choice


@dataclass(frozen=True)
class Result:
    """One answered request.

    Attributes:
        outputs: every output by name, (batch, …).
        mode_id, reason: which mode answered and why.
        predicted_ms: end-to-end latency predicted when it was chosen.
        queue_ms, infer_ms: time waited, time computed.
        energy_mj: of one row; None when unknown.
        energy_source: where that is from: the meter's name, `estimate`, or `none`.
        switched: another mode ran before.
        finished_s: monotonic time at which the inference ended.
        batch_rows: rows that ran together, those of other requests included.
        choice, decided_s: the decision in full, and when it was made, monotonic.
        queued: how many waited then, this one included.
        slowdown: by which the mode's class was slower than its profile then.
    """

    outputs: Dict[str, NDArray[Any]]
    mode_id: str
    reason: str
    predicted_ms: float
    queue_ms: float
    infer_ms: float
    energy_mj: Optional[float]
    energy_source: str
    switched: bool
    finished_s: float
    batch_rows: int
    choice: Choice
    decided_s: float
    queued: int
    slowdown: float
