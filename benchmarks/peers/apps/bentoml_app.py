"""Inside of BentoML."""

import base64
import os
from typing import Dict

import bentoml  # type: ignore[import-not-found, unused-ignore]

from benchmarks.peers.apps.model import Model
from benchmarks.peers.base import SERVED, served_in

_SERVED = served_in(os.environ[SERVED])
_TRAFFIC = {} if _SERVED.limit_ms is None else {"timeout": _SERVED.limit_ms / 1e3}


@bentoml.service(workers=1, traffic=_TRAFFIC)  # type: ignore[untyped-decorator, unused-ignore]
class Inference:
    """One worker."""

    def __init__(self) -> None:
        self.model = Model()

    @bentoml.api  # type: ignore[untyped-decorator, unused-ignore]
    def infer(self, x: str) -> Dict[str, str]:
        """Base64 both ways."""
        return {"y": base64.b64encode(self.model.answer(base64.b64decode(x)).tobytes()).decode()}
