"""The predictor: accuracy (or a cost without a table) as a sum of terms, from the configurations evaluated so far.

A ridge on (knob, level), and on (level, level) of neighbouring knobs, that is drawn towards what the uniform
modes say: without further evidence all knobs have equal parts in a uniform mode's loss. There is a kernel for
each kind of deviation from that; how far each may go is chosen by leave-one-out error, in closed form.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from wenet_trainer.explore.terms import Floats, Terms, Vectors

# How far knobs deviate from their equal part: as a whole, level by level; how strongly neighbours act on each
# other: as a whole, level by level; how far the sum misses, as a share of the largest uniform loss.
GRID: Mapping[str, Sequence[float]] = {
    "slope": (0.3, 0.6, 1.2, 2.4),
    "level": (0.05, 0.15, 0.4, 1.0),
    "pair": (0.0, 0.15, 0.4, 1.0),
    "pair_level": (0.0, 0.15, 0.4, 1.0),
    "noise": (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1),
}
LEAST_SHARE = 0.05  # of the largest part: what a level without a loss in the uniform modes may still lose
START_DEVIATES = 0.1  # of the largest uniform loss: the constant from the full network's value
SWEEPS = 2
CLIP = 1e-4  # accuracies are kept this far from 0 and 1 where a transform has no end there


@dataclass(frozen=True)
class Transform:
    """A scale on which terms add up."""

    there: Callable[[Floats], Floats]
    back: Callable[[Floats], Floats]


TRANSFORMS: Mapping[str, Transform] = {
    "plain": Transform(lambda values: values, lambda values: values),
    "log error": Transform(
        lambda values: -np.log(np.clip(1 - values, CLIP, 1)), lambda values: 1 - np.exp(-np.maximum(values, 0))
    ),
    "logit": Transform(
        lambda values: np.log(np.clip(values, CLIP, 1 - CLIP) / np.clip(1 - values, CLIP, 1 - CLIP)),
        lambda values: 1 / (1 + np.exp(-values)),
    ),
}


@dataclass(frozen=True)
class Freedom:
    """One point of the grid: see there."""

    slope: float = 0.6
    level: float = 0.15
    pair: float = 0.15
    pair_level: float = 0.15
    noise: float = 0.003


@dataclass(frozen=True)
class Predictor:
    """A fitted sum.

    Attributes:
        terms: on the transform's scale; larger is better, so a programme may maximise them.
        transform: name of the scale.
        freedom: chosen by leave-one-out.
        error: root of the mean squared leave-one-out error, in the units of what was fitted.
    """

    terms: Terms
    transform: str
    freedom: Freedom
    error: float

    def of(self, vectors: Vectors) -> Floats:
        """What is predicted for each row of level indices."""
        return TRANSFORMS[self.transform].back(self.terms.of(vectors))


@dataclass(frozen=True)
class Evidence:
    """What a predictor is fitted to.

    Attributes:
        shape: levels of each knob.
        vectors: (n, knobs) level indices, without repetitions; the full network and all `uniforms` among them.
        values: (n,) accuracies, or costs.
        uniforms: level indices of uniform modes, from the full network on.
    """

    shape: Sequence[int]
    vectors: Vectors
    values: Floats
    uniforms: Vectors


def choose(evidence: Evidence, transforms: Sequence[str], like: Predictor | None = None) -> Predictor:
    """Fit, with the scale and the freedom that predict best what is left out.

    Args:
        evidence: to fit to.
        transforms: names of the scales to choose from; for costs only "plain".
        like: begin at this one's freedom and look around once; several times from the defaults without it.
    """
    begin = Freedom() if like is None else like.freedom
    fits = [_Fit(evidence, name) for name in transforms]
    if like is None:
        return min((_descend(fit, begin, SWEEPS) for fit in fits), key=lambda found: found.error)
    return _descend(min(fits, key=lambda fit: fit.error(begin)), begin, 1)


def refit(evidence: Evidence, like: Predictor) -> Predictor:
    """Fit to more evidence with the same scale and freedom."""
    return _Fit(evidence, like.transform).solve(like.freedom)


def left_out(evidence: Evidence, like: Predictor) -> Floats:
    """What would be predicted for each value without it, (n,), with the scale and freedom of `like`."""
    return _Fit(evidence, like.transform).left_out(like.freedom)


def _descend(fit: "_Fit", freedom: Freedom, sweeps: int) -> Predictor:
    """Coordinate descent over the grid."""
    best = fit.error(freedom)
    for _ in range(sweeps):
        before = best
        for name, steps in GRID.items():
            for step in steps:
                if step == getattr(freedom, name):
                    continue
                tried = replace(freedom, **{name: step})
                error = fit.error(tried)
                if error < best:
                    freedom, best = tried, error
        if best == before:
            break
    return fit.solve(freedom)


class _Fit:
    """One data set on one scale: its kernels are made once, every point of the grid is a weighted sum of them."""

    def __init__(self, evidence: Evidence, transform: str) -> None:
        shape, vectors, values, uniforms = evidence.shape, evidence.vectors, evidence.values, evidence.uniforms
        self._shape, self._values, self._transform = shape, values, transform
        scale = TRANSFORMS[transform]
        self._scaled = scale.there(values)
        rows = {tuple(vector): row for row, vector in enumerate(vectors.tolist())}
        known = self._scaled[[rows[tuple(vector)] for vector in uniforms.tolist()]]
        self._parts = _parts(shape, uniforms, known)
        spread = max(float(np.ptp(known)), 1e-9)  # values may rise, too: the deviations must be able to follow
        self._size = max(float(sum(parts.max() for parts in self._parts)), spread)
        largest = max(*(float(parts.max()) for parts in self._parts), spread / len(shape))
        self._scales = [np.where(np.arange(len(one)) > 0, one + LEAST_SHARE * largest, 0.0) for one in self._parts]
        self._start = float(self._scaled[(vectors == 0).all(axis=1)][0])
        losses = np.stack([parts[vectors[:, knob]] for knob, parts in enumerate(self._parts)], axis=1)
        self._rest = self._scaled - self._start + losses.sum(axis=1)
        self._slope = np.stack([scales[vectors[:, knob]] for knob, scales in enumerate(self._scales)], axis=1)
        self._level = np.concatenate([_one_hot(vectors[:, k], s) for k, s in enumerate(self._scales)], axis=1)
        self._both = np.sqrt(self._slope[:, :-1] * self._slope[:, 1:])
        self._pair_level = np.concatenate(
            [
                _one_hot(vectors[:, k] * shape[k + 1] + vectors[:, k + 1], self._of_pair(k))
                for k in range(len(shape) - 1)
            ]
            or [np.zeros((len(vectors), 1))],
            axis=1,
        )
        self._kernels = {
            "slope": self._slope @ self._slope.T,
            "level": self._level @ self._level.T,
            "pair": self._both @ self._both.T,
            "pair_level": self._pair_level @ self._pair_level.T,
        }

    def _of_pair(self, knob: int) -> Floats:
        scales: Floats = np.sqrt(np.outer(self._scales[knob], self._scales[knob + 1])).ravel()
        return scales

    def _inverse(self, freedom: Freedom) -> Floats:
        # The full network's own value is evidence, too: the constant may deviate from it.
        kernel = np.full_like(self._kernels["slope"], (START_DEVIATES * self._size) ** 2)
        for name, one in self._kernels.items():
            kernel += getattr(freedom, name) ** 2 * one
        kernel[np.diag_indices_from(kernel)] += (freedom.noise * self._size) ** 2
        inverse: Floats = np.linalg.inv(kernel)
        return inverse

    def left_out(self, freedom: Freedom) -> Floats:
        """What would be predicted for each value without it."""
        inverse = self._inverse(freedom)
        missed = (inverse @ self._rest) / inverse.diagonal()
        return TRANSFORMS[self._transform].back(self._scaled - missed)

    def error(self, freedom: Freedom) -> float:
        """Root of the mean squared leave-one-out error, in the units of the values."""
        return float(np.sqrt(np.mean((self.left_out(freedom) - self._values) ** 2)))

    def solve(self, freedom: Freedom) -> Predictor:
        """The fitted sum."""
        weights = self._inverse(freedom) @ self._rest
        slopes = freedom.slope**2 * (self._slope.T @ weights)
        levels = np.split(freedom.level**2 * (self._level.T @ weights), np.cumsum(self._shape)[:-1])
        alone = [
            scales * (slope + level) - parts
            for scales, slope, level, parts in zip(self._scales, slopes, levels, self._parts, strict=True)
        ]
        constant = self._start + (START_DEVIATES * self._size) ** 2 * float(weights.sum())
        terms = Terms(constant, tuple(alone), self._pairs(freedom, weights))
        return Predictor(terms, self._transform, freedom, self.error(freedom))

    def _pairs(self, freedom: Freedom, weights: Floats) -> dict[tuple[int, int], Floats]:
        if freedom.pair == 0 and freedom.pair_level == 0:
            return {}
        wholes = freedom.pair**2 * (self._both.T @ weights)
        details = freedom.pair_level**2 * (self._pair_level.T @ weights)
        pairs, begin = {}, 0
        for knob, whole in enumerate(wholes):
            levels = (self._shape[knob], self._shape[knob + 1])
            end = begin + levels[0] * levels[1]
            scales = self._of_pair(knob)
            pairs[knob, knob + 1] = (scales * (whole + details[begin:end])).reshape(levels)
            begin = end
        return pairs


def _one_hot(indices: Vectors, scales: Floats) -> Floats:
    """(n,) → (n, len(scales)): the chosen one's scale, 0 elsewhere."""
    found = np.zeros((len(indices), len(scales)))
    found[np.arange(len(indices)), indices] = scales[indices]
    return found


def _parts(shape: Sequence[int], uniforms: Vectors, values: Floats) -> list[Floats]:
    """Each knob's equal part in the loss from one uniform mode to the next, summed up by level; never falling."""
    parts = [np.zeros(levels) for levels in shape]
    losses = np.maximum(values[:-1] - values[1:], 0.0).tolist()
    for before, after, lost in zip(uniforms[:-1].tolist(), uniforms[1:].tolist(), losses, strict=True):
        moved = [knob for knob, (one, other) in enumerate(zip(before, after, strict=True)) if one != other]
        for knob in moved:
            parts[knob][after[knob] :] += lost / len(moved)
    return parts
