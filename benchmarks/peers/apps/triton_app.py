"""Inside of Triton's Python backend."""

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found, unused-ignore]

from benchmarks.peers.apps.model import Model


class TritonPythonModel:
    """Numbers or JPEG files → numbers."""

    def initialize(self, args: dict[str, str]) -> None:
        """In the backend's process."""
        del args
        self.model = Model()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Every request by itself: one is one image."""
        replies = []
        for request in requests:
            values = pb_utils.get_input_tensor_by_name(request, self.model.served.input).as_numpy()
            if values.dtype == np.object_:
                found = self.model.answer(values.reshape(-1)[0])
            else:
                found = self.model.run(values)
            replies.append(pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("y", found)]))
        return replies
