"""Inside of LitServe: `python -m benchmarks.peers.apps.litserve_app PORT`."""

import base64
import os
import sys
from typing import Annotated, Any

import litserve  # type: ignore[import-not-found, unused-ignore]
from fastapi import Body, Request, Response

from benchmarks.peers.apps.model import Model
from benchmarks.peers.base import SERVED, served_in
from benchmarks.peers.litserve import JSON_PATH, RAW_PATH


class Base64(litserve.LitAPI):  # type: ignore[misc, unused-ignore]
    """Base64 in JSON, both ways."""

    def setup(self, device: str) -> None:
        """In the worker."""
        del device
        self.model = Model()

    def decode_request(self, request: Request) -> bytes:
        """JSON → content. LitServe hands over the JSON, and goes by this annotation."""
        return base64.b64decode(request["x"])

    def predict(self, content: bytes) -> bytes:
        """Content → numbers."""
        return self.model.answer(content).tobytes()

    def encode_response(self, output: bytes) -> Any:
        """Numbers → JSON."""
        return {"y": base64.b64encode(output).decode()}


class Raw(Base64):
    """Bytes, both ways."""

    def decode_request(  # type: ignore[override]
        self, request: Annotated[bytes, Body(media_type="application/octet-stream")]
    ) -> bytes:
        """The body as it came."""
        return request

    def encode_response(self, output: bytes) -> Response:
        """The numbers as they are."""
        return Response(output, media_type="application/octet-stream")


def main() -> None:
    """Serve both paths."""
    limit_ms = served_in(os.environ[SERVED]).limit_ms
    apis = [Base64(api_path=JSON_PATH), Raw(api_path=RAW_PATH)]
    server = litserve.LitServer(apis, accelerator="cpu", timeout=30 if limit_ms is None else limit_ms / 1e3)
    port = int(sys.argv[1])
    server.run(host="127.0.0.1", port=port, num_api_servers=1, generate_client_file=False, log_level="error")


if __name__ == "__main__":
    main()
