"""What each of two processes does in test_evaluator: the same calls, answered together. Started by torchrun."""

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tests.trainer.conftest import lively
from tests.trainer.few_digits import FewDigits
from wenet_trainer.data.base import normalise
from wenet_trainer.errors import TrainingError
from wenet_trainer.explore.evaluator import Evaluator
from wenet_trainer.parallel import Workers, workers
from wenet_trainer.space import GroupConfig, SearchSpace

CALLS = (5, 1, 12)  # one is for one process alone


def evaluator(
    joined: Workers, journal: Path | None, identity: str = "weights", clock: Callable[[], float] = time.monotonic
) -> Evaluator:
    source = FewDigits()
    calibration = normalise(source.train(0).first(32).pixels, source.preprocess)
    return Evaluator(
        lively("tiny"),
        source.validation().first(40),
        source.preprocess,
        calibration,
        journal=journal,
        identity={"weights": identity},
        workers=joined,
        clock=clock,
    )


def calls(seed: int = 0) -> list[list[GroupConfig]]:
    space, rng = SearchSpace.of(lively("tiny")), random.Random(seed)
    return [[space.sample(rng) for _ in range(count)] for count in CALLS]


def main(out: Path) -> None:
    torch.set_num_threads(1)
    with workers(torch.device("cpu")) as joined:
        found = evaluator(joined, out / "answers.jsonl")
        right = [found.right(configs) for configs in calls()]
        np.savez(out / f"rank{joined.rank}.npz", *(np.stack(one) for one in right))
        again = evaluator(joined, out / "answers.jsonl")
        try:
            again.right(calls(seed=1 + joined.rank)[0])
            refused = ""
        except TrainingError as error:
            refused = str(error)
        members = {"resumed": again.evaluations, "evaluated": found.evaluations, "refused": refused}
        (out / f"rank{joined.rank}.json").write_text(json.dumps(members))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
