"""What each of two processes does in test_frontier: one exploration together. Started by torchrun."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from tests.trainer.conftest import lively
from tests.trainer.explore import paper_board
from tests.trainer.few_digits import FEW
from wenet_trainer.checkpoint import Checkpoint
from wenet_trainer.explore.bench import Bench
from wenet_trainer.explore.exploring import Exploring
from wenet_trainer.explore.frontier import find_frontier
from wenet_trainer.explore.result import Frontier
from wenet_trainer.explore.shared_prefix import SharedPrefix
from wenet_trainer.parallel import is_first
from wenet_trainer.recipe import Recipe

ASKED = Exploring(evaluations=30, rounds=50, measured=True)


def explored(folder: Path) -> Frontier:
    net = lively("tiny")
    checkpoint = Checkpoint(Recipe(data=FEW, model="tiny"), 1, (), net.state_dict(), {})
    with pytest.MonkeyPatch.context() as monkeypatch:
        paper_board.install(monkeypatch, net)
        if not is_first():  # which alone measures
            monkeypatch.setattr(Bench, "cost", None)
            monkeypatch.setattr(Bench, "samples", None)
        return find_frontier(checkpoint, folder / "frontier.json", ASKED, quiet=True)


def main(out: Path) -> None:
    torch.set_num_threads(1)
    evaluated, right = [], SharedPrefix.right

    def watched(self, configs, *rest):
        evaluated.append(len(configs))
        return right(self, configs, *rest)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(SharedPrefix, "right", watched)
        found = explored(out)
    members = {"evaluated": sum(evaluated), "modes": len(found.modes), "points": [asdict(one) for one in found.points]}
    (out / f"rank{0 if is_first() else 1}.json").write_text(json.dumps(members))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
