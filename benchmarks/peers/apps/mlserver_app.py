"""Inside of MLServer."""

import base64

from mlserver import MLModel  # type: ignore[import-not-found, unused-ignore]
from mlserver.codecs import Base64Codec, NumpyCodec  # type: ignore[import-not-found, unused-ignore]
from mlserver.types import (  # type: ignore[import-not-found, unused-ignore]
    InferenceRequest,
    InferenceResponse,
)

from benchmarks.peers.apps.model import Model


class Served(MLModel):  # type: ignore[misc, unused-ignore]
    """Answers in the codec that it was asked in."""

    async def load(self) -> bool:
        """In the process that runs the model."""
        self.model = Model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """One request."""
        asked = payload.inputs[0]
        if asked.datatype == "BYTES":
            answer = self.model.answer(base64.b64decode(asked.data.root[0]))
            output = Base64Codec.encode_output("y", [answer.tobytes()], use_bytes=False)
        else:
            output = NumpyCodec.encode_output("y", self.model.run(NumpyCodec.decode_input(asked)))
        return InferenceResponse(model_name=self.name, outputs=[output])
