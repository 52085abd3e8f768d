"""Algorithm 2 of the paper: raise the groups of one knob at a time, greedily."""

from wenet_trainer.errors import ExploreError
from wenet_trainer.explore.ledger import Ledger
from wenet_trainer.explore.problem import Found, Problem, Seen

FOUND_BY = "algorithm 2"


def explore(problem: Problem) -> Found:
    """Run Algorithm 2 with `problem.limits.min_accuracy` as its threshold δ; 0 explores to the smallest network.

    As printed, the loop ends with the first network *below* the threshold and returns it; here the last
    one at or above the threshold is returned, and the step below is kept among what was seen. The algorithm
    knows no bound: `problem.evaluations` does not end it.

    Raises:
        ExploreError: the full network is below the threshold already.
    """
    ledger = Ledger(problem, bounded=False)
    threshold = problem.limits.min_accuracy
    (current,) = ledger.ask([problem.space.full()], FOUND_BY)
    if current.accuracy < threshold:
        raise ExploreError(
            f"the full network's accuracy {current.accuracy:.4f} is below the threshold {threshold:.4f}: "
            "lower --min-accuracy or train longer"
        )
    result = current
    while current.accuracy >= threshold:
        result = current
        candidates = ledger.ask(problem.space.neighbours(current.groups), FOUND_BY)
        if not candidates:
            break
        current = min(candidates, key=loss)
    return ledger.found(result.groups)


def loss(seen: Seen) -> float:
    """Line 8: inference time over accuracy; smaller is better."""
    return seen.cost.latency_ms / seen.accuracy if seen.accuracy > 0 else float("inf")
