"""The generator's process: sends a load and prints what came of it.

    python -m benchmarks.sender

`benchmarks.open_loop.Generator` drives it.
"""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.open_loop import Load
from wenet_runtime.client.sender import Sender, request_bytes


def sender_of(load: Load) -> Sender:
    """The sender of a load, connected."""
    headers = {
        "Host": "127.0.0.1",
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": "0",
        **load.headers,
    }
    return Sender(
        "127.0.0.1",
        load.port,
        requests=[request_bytes("/infer", headers, Path(load.body).read_bytes())],
        arrivals_s=load.arrivals_s,
        connections=load.connections,
        closed_s=load.closed_s,
        patience_s=load.patience_s,
    )


def main() -> None:
    """Read a load, connect, say so, read when to start, send, print what was seen."""
    load = Load(**json.loads(sys.stdin.readline()))
    if load.core is not None:
        os.sched_setaffinity(0, {load.core})
    sender = sender_of(load)
    print("ready", flush=True)
    run = sender.run(float(sys.stdin.readline()))
    rows = [list(asdict(answer).values()) for answer in run.answers]
    print(json.dumps({"start_s": run.start_s, "cpu_ms": run.cpu_ms, "opened": run.opened, "answers": rows}))


if __name__ == "__main__":
    main()
