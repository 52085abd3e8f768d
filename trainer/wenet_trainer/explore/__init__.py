"""The table of searches: name → import string. A new search is one file and one line here."""

from collections.abc import Mapping

SEARCHES: Mapping[str, str] = {
    "paper": "wenet_trainer.explore.paper:explore",
    "table": "wenet_trainer.explore.table:explore",
    "evolve": "wenet_trainer.explore.evolve:explore",
}
