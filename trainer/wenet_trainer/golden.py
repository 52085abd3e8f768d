"""What a mode of a bundle answers to the golden images: in fp32 as torch does, in other precisions as it is computed.

No device computes int8, fp16 or bf16 as torch computes fp32, so a mode is compared with its own precision, and its
fp32 twin with torch.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wenet_runtime.bundle import Mode
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.manifest import PRECISIONS
from wenet_runtime.materialize import Supernet
from wenet_trainer.errors import ExportError
from wenet_trainer.explore.precision import Variant, variant_graph
from wenet_trainer.topology import INPUT, OUTPUT


def computed_answers(supernet: Supernet, variant: Variant, images: Tensor) -> NDArray[np.float32]:
    """A variant's answers by ONNX Runtime on this machine: (N, classes).

    Args:
        supernet: the network.
        variant: what is materialized.
        images: (N, C, H, W) normalised.
    """
    engine = OrtBackend(None, 1).load_bytes(variant_graph(supernet, variant).to_bytes(), name=variant.precision)
    try:
        answers: NDArray[np.float32] = engine.infer({INPUT: images.numpy()})[OUTPUT]
    finally:
        engine.close()
    return answers


def distance(answers: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """max|answers − reference| / max|reference|."""
    return float(np.abs(answers - reference).max() / np.abs(reference).max())


def remark(mode: Mode, answers: NDArray[np.float32], twin: NDArray[np.float32]) -> str | None:
    """What a person should know of a mode that lies far from its fp32 twin.

    A precision may cost more than engines may differ by, which the mode's own accuracy shows; so it is no error.

    Args:
        mode: of another precision than fp32.
        answers: (N, classes) in its precision.
        twin: (N, classes) of the same configuration in fp32.

    Returns:
        A sentence; None where it lies as near as engines of its precision may lie.

    Raises:
        ExportError: the answers are no numbers.
    """
    if not np.isfinite(answers).all():
        raise ExportError(
            f"mode '{mode.id}' answers no numbers in {mode.precision}; nothing was written: "
            "explore without this precision"
        )
    found, usual = distance(answers, twin), PRECISIONS[mode.precision]
    if found <= usual:
        return None
    return (
        f"mode '{mode.id}' in {mode.precision} is up to {found:.2g} of the largest answer away from itself in fp32, "
        f"where {usual:g} is usual: it stays for its accuracy, {100 * mode.accuracy.value:.1f} %"
    )
