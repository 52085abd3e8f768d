"""The peer of `overhead`: the least that FastAPI needs to run a session in a thread. No checks, no budget."""

import sys

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool


def main() -> None:
    """Serve one model: bare_handler MODEL INPUT PORT SHAPE…"""
    model, name, port, *shape = sys.argv[1:]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    sizes = [int(size) for size in shape]
    app = FastAPI()

    @app.post("/infer")
    async def infer(request: Request) -> Response:
        values = np.frombuffer(await request.body(), np.float32).reshape(sizes)
        outputs = await run_in_threadpool(session.run, None, {name: values})
        return Response(outputs[0].tobytes(), media_type="application/octet-stream")

    uvicorn.run(app, host="127.0.0.1", port=int(port), http="httptools", log_level="error", access_log=False)


if __name__ == "__main__":
    main()
