"""The peers of `overhead`: the least that runs a session in a thread behind HTTP. No checks, no budget."""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime
import uvicorn


def main() -> None:
    """Serve one model: bare_handler asgi|fastapi MODEL INPUT PORT SHAPE…"""
    framework, model, name, port, *shape = sys.argv[1:]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    make = {"asgi": asgi, "fastapi": fastapi}[framework]
    app = make(session, name, [int(size) for size in shape])
    uvicorn.run(app, host="127.0.0.1", port=int(port), http="httptools", log_level="error", access_log=False)


def asgi(session: Any, name: str, shape: list[int]) -> Any:
    """No framework at all: three messages in and out."""
    engine = ThreadPoolExecutor(1)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        pieces = []
        more = True
        while more:
            message = await receive()
            pieces.append(message["body"])
            more = message["more_body"]
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if not body:  # somebody asks whether it is there
            await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return
        values = np.frombuffer(body, np.float32).reshape(shape)
        loop = asyncio.get_running_loop()
        (output,) = await loop.run_in_executor(engine, session.run, None, {name: values})
        content = output.tobytes()
        headers = [(b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    return app


def fastapi(session: Any, name: str, shape: list[int]) -> Any:
    """The same as a FastAPI route."""
    from fastapi import FastAPI, Request, Response
    from starlette.concurrency import run_in_threadpool

    app = FastAPI()

    @app.post("/infer")
    async def infer(request: Request) -> Response:
        values = np.frombuffer(await request.body(), np.float32).reshape(shape)
        outputs = await run_in_threadpool(session.run, None, {name: values})
        return Response(outputs[0].tobytes(), media_type="application/octet-stream")

    return app


if __name__ == "__main__":
    main()
