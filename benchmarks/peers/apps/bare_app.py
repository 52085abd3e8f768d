"""The least that serves: `python -m benchmarks.peers.apps.bare_app asgi|fastapi PORT`. No checks, no budget."""

import asyncio
import sys
from typing import Any

import uvicorn

from benchmarks.peers.apps.model import Model


def asgi(model: Model) -> Any:
    """An ASGI application without a framework: body, session in a thread, numbers."""

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        parts: list[bytes] = []
        more = True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        content = b""
        if scope["path"] == "/infer":
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            content = (await asyncio.get_running_loop().run_in_executor(None, model.answer, body)).tobytes()
        headers = [(b"content-type", b"application/octet-stream"), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    return app


def fastapi(model: Model) -> Any:
    """The same by FastAPI."""
    from fastapi import FastAPI, Request, Response
    from starlette.concurrency import run_in_threadpool

    app = FastAPI()

    @app.post("/infer")
    async def infer(request: Request) -> Response:
        values = await run_in_threadpool(model.answer, await request.body())
        return Response(values.tobytes(), media_type="application/octet-stream")

    @app.get("/health")
    def health() -> None:
        """It serves."""

    return app


def main() -> None:
    """Serve."""
    kind, port = sys.argv[1], int(sys.argv[2])
    app = {"asgi": asgi, "fastapi": fastapi}[kind](Model())
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        server_header=False,
    )


if __name__ == "__main__":
    main()
