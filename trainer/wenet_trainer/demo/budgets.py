"""The same images under several budgets, each a multiple of what a mode was measured to take."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from statistics import median

from wenet_trainer.demo.daemon import Answer, Client

PROBES = 150
HEADROOM = 2.0  # budget = this × a mode's median end-to-end time


@dataclass(frozen=True)
class Shown:
    """A test image as posted, and its true label."""

    png: bytes
    label: str


@dataclass(frozen=True)
class Outcome:
    """What a budget brought over all images. A refusal is neither met nor correct."""

    name: str
    budget_ms: float | None
    modes: dict[str, int]
    latency_ms: float
    p99_ms: float
    met_share: float | None
    accuracy: float


def end_to_end_ms(client: Client, images: Sequence[Shown], mode: str) -> float:
    """A mode's median time from request to reply, measured by the server, everything included."""
    answers = [client.post(images[turn % len(images)].png, mode=mode) for turn in range(PROBES)]
    return median(answer.latency_ms for answer in answers)


def post_all(
    client: Client, images: Sequence[Shown], name: str, *, budget_ms: float | None = None, mode: str | None = None
) -> Outcome:
    """Post every image once."""
    answers: list[Answer] = [client.post(image.png, budget_ms=budget_ms, mode=mode) for image in images]
    correct = sum(answer.label == image.label for answer, image in zip(answers, images, strict=True))
    latencies = sorted(answer.latency_ms for answer in answers if answer.status == 200)
    return Outcome(
        name=name,
        budget_ms=budget_ms,
        modes=dict(Counter(answer.mode or "refused" for answer in answers).most_common()),
        latency_ms=median(latencies) if latencies else nan,
        p99_ms=latencies[int(0.99 * (len(latencies) - 1))] if latencies else nan,
        met_share=None if budget_ms is None else sum(answer.met is True for answer in answers) / len(answers),
        accuracy=correct / len(answers),
    )
