"""The confidence cascade: a quick mode answers first, and a better one only those rows that it is unsure of.

Which modes, and how sure is sure enough, is calibrated by the trainer and carried in the bundle as rules.
"""

from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from wenet_runtime.manifest import Manifest, Rule

__all__ = ["Cascade", "Rule", "expected_cost", "margin", "merged", "rows_of"]

Tensors = Mapping[str, NDArray[Any]]


def margin(scores: NDArray[Any]) -> NDArray[np.float64]:
    """How sure answers are: the largest score less the second-largest, no softmax applied.

    Args:
        scores: (rows, classes), at least two classes.

    Returns:
        (rows,); NaN where a row's scores are no numbers.
    """
    two = np.partition(scores, -2, axis=1)[:, -2:].astype(np.float64)  # in float64 the difference is exact
    with np.errstate(invalid="ignore"):  # of two infinities
        difference: NDArray[np.float64] = two[:, 1] - two[:, 0]
    return difference


def expected_cost(rule: Rule, costs: Mapping[str, float]) -> float:
    """What a row costs by a rule in the mean: `first` always, `then` for the share that escalates.

    Args:
        rule: the rule.
        costs: of a row by mode id, in ms or mJ.
    """
    return costs[rule.first] + rule.escalated * costs[rule.then]


def rows_of(inputs: Tensors, escalated: NDArray[np.bool_]) -> Dict[str, NDArray[Any]]:
    """The inputs of those rows that escalate: what `then` is run on."""
    return {name: np.ascontiguousarray(value[escalated]) for name, value in inputs.items()}


def merged(first: Tensors, then: Tensors, escalated: NDArray[np.bool_]) -> Dict[str, NDArray[Any]]:
    """The cascade's outputs: those of `first`, but of `then` where rows escalated.

    Args:
        first: by name, (rows, …); not written to.
        then: by name, one row for each that escalated, in order.
        escalated: (rows,).
    """
    outputs = {}
    for name, value in first.items():
        outputs[name] = value.copy()
        outputs[name][escalated] = then[name]
    return outputs


class Cascade:
    """The rules of a bundle.

    Args:
        rules: where `then` is the same, the cheapest comes first.
        output: name of the output whose scores are looked at.
    """

    def __init__(self, rules: Sequence[Rule], output: str) -> None:
        self.rules: Tuple[Rule, ...] = tuple(rules)
        self._output = output

    @classmethod
    def of(cls, manifest: Manifest) -> "Cascade":
        """The cascade that a bundle carries; one without rules where it carries none."""
        return cls(manifest.cascade, manifest.outputs[0].name)

    def rule_for(self, then: str, costs: Optional[Mapping[str, float]] = None) -> Optional[Rule]:
        """By which rule to answer about as well as a mode does; None where there is none, or none that saves.

        Args:
            then: the mode's id.
            costs: of a row by mode id, ms or mJ, of the modes that can be used now. Without, the first rule is taken.
        """
        rules = [rule for rule in self.rules if rule.then == then]
        if costs is None:
            return rules[0] if rules else None
        if then not in costs:
            return None
        found = [(expected_cost(rule, costs), rule) for rule in rules if rule.first in costs]
        cost, best = min(found, key=lambda one: one[0], default=(costs[then], None))
        return best if cost < costs[then] else None

    def escalates(self, rule: Rule, outputs: Tensors) -> NDArray[np.bool_]:
        """Which rows the rule's second mode has to answer: (rows,). Scores that are no numbers are unsure.

        Args:
            rule: one of the rules.
            outputs: of the rule's `first`, by name.
        """
        sure: NDArray[np.bool_] = margin(outputs[self._output]) >= rule.threshold
        return ~sure
