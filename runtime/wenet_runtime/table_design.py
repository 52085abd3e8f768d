"""Which configurations a layer table is measured at, and which ones it is checked at: all follow from a seed."""

import itertools
from typing import Dict, Iterator, List

import numpy as np

from wenet_runtime.table_terms import Terms

PATIENCE = 200  # configurations drawn again before a space counts as exhausted


def configurations(terms: Terms, seed: int) -> Iterator[Dict[str, int]]:
    """Distinct configurations without end, or until the space is exhausted.

    The uniform ones come first, because searches start from them and they lie at the ends of the range. Then
    three kinds in turn: one level for each block, a level for each layer, and layers that have the level of
    one or the other of two neighbouring uniform configurations, which spread the whole range of cost.

    Args:
        terms: the network's.
        seed: the same seed gives the same configurations in the same order.
    """
    levels = sorted({count for layer in terms.layers for count in layer.groups})
    seen = {terms.key(terms.uniform(1))}
    repeated = 0
    uniforms = (terms.uniform(level) for level in levels)
    for groups in itertools.chain(uniforms, (_drawn(terms, levels, seed, number) for number in itertools.count())):
        key = terms.key(groups)
        if key not in seen:
            seen.add(key)
            repeated = 0
            yield groups
        else:
            repeated += 1
            if repeated > PATIENCE:
                return


def _drawn(terms: Terms, levels: List[int], seed: int, number: int) -> Dict[str, int]:
    """The configuration of that number, whichever others were drawn."""
    draw = np.random.default_rng([seed, number])
    if number % 3 == 0:
        block_of = {name: block for block, names in enumerate(terms.blocks) for name in names}
        chosen = draw.choice(levels, size=len(terms.blocks))
        uniforms = {level: terms.uniform(level) for level in levels}
        return {layer.name: uniforms[int(chosen[block_of[layer.name]])][layer.name] for layer in terms.layers}
    if number % 3 == 1:
        return {layer.name: int(draw.choice(layer.groups)) for layer in terms.layers}
    lower = int(draw.integers(0, max(1, len(levels) - 1)))
    share = draw.random()
    fewer, more = terms.uniform(levels[lower]), terms.uniform(levels[min(lower + 1, len(levels) - 1)])
    return {layer.name: (more if draw.random() < share else fewer)[layer.name] for layer in terms.layers}
