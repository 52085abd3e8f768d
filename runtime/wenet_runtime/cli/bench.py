"""The verb `bench`: an open-loop load on a running server, and what became of it."""

import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Tuple

import typer

from wenet_runtime.cli.asked import check_options, exit_of
from wenet_runtime.cli.bench_report import check_out, sender, tell, write
from wenet_runtime.cli.ends import EXIT_FAILURE, EXIT_INTERRUPTED, fail, guarded, say
from wenet_runtime.cli.infer import TOKEN_FILE, URL
from wenet_runtime.errors import SettingsError

if TYPE_CHECKING:  # the help needs none of these
    from wenet_runtime.client.exchange import Client
    from wenet_runtime.client.load import Answer, Run
    from wenet_runtime.client.payload import Payload
    from wenet_runtime.client.readings import Reading

FILES = typer.Argument(
    None, help="images, .npy or raw files to send in turn; random numbers if none is given", metavar="[FILE…]"
)
FORMAT = 1  # of the report's file
SETTLE_S = 0.1  # between the connections and the first request


def bench(
    files: Optional[List[str]] = FILES,
    url: str = URL,
    rate: float = typer.Option(10.0, "--rate", min=0.001, max=100_000, help="requests a second, on average"),
    seconds: float = typer.Option(10.0, "--seconds", min=0.1, max=86_400, help="how long they go on arriving"),
    warm_up_s: float = typer.Option(2.0, "--warm-up-s", min=0, max=3600, help="as long before, not counted"),
    uniform: bool = typer.Option(False, "--uniform", help="at even distances instead of by chance (Poisson)"),
    connections: int = typer.Option(
        16, "--connections", "--clients", min=1, max=900, help="open at the start; more are opened when all are in use"
    ),
    budget_ms: Optional[str] = typer.Option(
        None, "--budget-ms", help="latency budgets in turn, ms, e.g. 20,50,none", show_default=False, metavar="MS,…"
    ),
    budget_mj: Optional[float] = typer.Option(None, "--budget-mj", help="energy budget, mJ per row"),
    min_accuracy: Optional[float] = typer.Option(None, "--min-accuracy", help="accuracy floor, 0-1"),
    mode: Optional[str] = typer.Option(None, "--mode", help="pin this mode", metavar="ID"),
    on_miss: Optional[str] = typer.Option(
        None, "--on-miss", help="when nothing fits: degrade, reject or late", metavar="WHAT"
    ),
    priority: Optional[int] = typer.Option(None, "--priority", help="1 (first) to 3"),
    seed: int = typer.Option(0, "--seed", min=0, help="of the arrivals and of the random numbers"),
    token_file: Optional[str] = TOKEN_FILE,
    out: Optional[str] = typer.Option(
        None,
        "--out",
        help="write all of it to this file, for `wenet-runtime plot`",
        show_default=False,
        metavar="FILE",
    ),
    as_json: bool = typer.Option(False, "--json", help="print the summary as JSON"),
) -> None:
    """Send requests to a running server at times drawn beforehand, and report what became of them.

    An open loop: a slow answer delays no request, and every latency counts from when its request was due.
    """

    def action() -> None:
        from wenet_runtime.client.address import address_of, read_token
        from wenet_runtime.client.exchange import Client
        from wenet_runtime.client.payload import option_headers

        check_out(out)
        budgets_ms = _budgets(budget_ms)
        options = {"budget_mj": budget_mj, "min_accuracy": min_accuracy, "mode": mode, "on_miss": on_miss}
        check_options({**options, "priority": priority})
        address = address_of(url)
        if address.scheme != "http":
            raise SettingsError(f"--url is '{address.url}': a load goes over http only")
        client = Client(address, None if token_file is None else read_token(Path(token_file)))
        served = _served(client)
        payloads = _payloads(client, files or [], str(served.get("model")), seed)
        kinds = [
            (payload, limit, option_headers({**options, "budget_ms": limit, "priority": priority}))
            for limit in budgets_ms
            for payload in payloads
        ]
        arrivals_s = _arrivals(rate, warm_up_s + seconds, uniform=uniform, seed=seed)
        say(f"sending {len(arrivals_s)} requests in {warm_up_s + seconds:g} s, the first {warm_up_s:g} s not counted")
        began_s, run, readings = _run(client, kinds, arrivals_s, connections=connections)
        counted = [replace(one, at_s=one.at_s - warm_up_s) for one in run.answers if one.at_s >= warm_up_s]
        counted_s = seconds
        if run.interrupted_s is not None:
            counted_s = min(seconds, run.interrupted_s - warm_up_s)
            if not counted:
                fail("interrupted before anything was measured", EXIT_INTERRUPTED)
            say(f"interrupted: this is what was measured in {counted_s:.3g} of {seconds:g} s")
        limits_ms = [limit for _, limit, _ in kinds]
        report: Dict[str, Any] = {
            "format": FORMAT,
            "url": address.url,
            "sender": sender(),
            "started_at": datetime.fromtimestamp(began_s + warm_up_s, timezone.utc).isoformat(timespec="milliseconds"),
            "started_at_s": round(began_s + warm_up_s, 3),
            "model": served.get("model"),
            "bundle_sha256": served.get("bundle_sha256"),
            "load": {
                "arrivals": "uniform" if uniform else "poisson",
                "rate": rate, "seconds": seconds, "warm_up_s": warm_up_s, "connections": connections, "seed": seed,
                "files": list(files or []), **options, "priority": priority,
            },
            "interrupted_after_s": None if run.interrupted_s is None else round(counted_s, 3),
            "budgets_ms": limits_ms,
            "summary": _summary(counted, limits_ms, counted_s, served),
        }  # fmt: skip
        unwritten = ""
        if out is not None:
            try:
                write(Path(out), report, served, counted, [replace(one, at_s=one.at_s - warm_up_s) for one in readings])
            except OSError as error:  # what was measured is told before that
                unwritten = f"--out '{out}' cannot be written ({error.strerror}): only the summary above is left"
        tell(report, as_json=as_json)
        if unwritten:
            fail(unwritten, EXIT_FAILURE)
        if run.interrupted_s is not None:
            raise typer.Exit(EXIT_INTERRUPTED)
        if not any(one.status == 200 for one in counted):
            why = ", ".join(report["summary"]["problems"]) or "no server there, or none that answers in time"
            codes = {exit_of(one.problem) for one in counted}
            fail(f"no request was answered: {why}", codes.pop() if len(codes) == 1 else EXIT_FAILURE)

    guarded(action)


def _budgets(text: Optional[str]) -> List[Optional[float]]:
    """The budgets to send in turn. Raises `SettingsError`."""
    if text is None:
        return [None]
    try:
        found = [None if part.strip() == "none" else float(part) for part in text.split(",")]
    except ValueError:
        found = [0.0]
    if not all(one is None or 0.001 <= one <= 600_000 for one in found):
        raise SettingsError(f"--budget-ms is '{text[:60]}': give milliseconds from 0.001 to 600000, such as 20,50,none")
    return found


def _served(client: "Client") -> Dict[str, Any]:
    """The body of GET /modes."""
    reply = client.request("GET", "/modes")
    if reply.status != 200 or not isinstance(reply.members().get("modes"), list):
        fail(f"{client.address.url} does not tell its modes: {reply.complaint}", EXIT_FAILURE)
    return reply.members()


def _payloads(client: "Client", files: Sequence[str], model: str, seed: int) -> "List[Payload]":
    from urllib.parse import quote

    from wenet_runtime.client.payload import file_payload, random_payload

    if files:
        return [file_payload(Path(name)) for name in files]
    reply = client.request("GET", f"/v2/models/{quote(model, safe='')}")
    if reply.status != 200:
        raise SettingsError(f"the server does not tell what its model takes ({reply.slug}): name a file to be sent")
    return [random_payload(reply.members(), seed)]


def _arrivals(rate: float, duration_s: float, *, uniform: bool, seed: int) -> List[float]:
    from wenet_runtime.client.load import arrivals, even_arrivals

    return even_arrivals(rate, duration_s) if uniform else arrivals(rate, duration_s, seed=seed)


def _run(
    client: "Client",
    kinds: "Sequence[Tuple[Payload, Optional[float], Dict[str, str]]]",
    arrivals_s: Sequence[float],
    *,
    connections: int,
) -> "Tuple[float, Run, List[Reading]]":
    """Send everything; the wall clock at the start, what became of it, and what was read meanwhile."""
    from wenet_runtime.client.exchange import Unreachable
    from wenet_runtime.client.readings import Watch
    from wenet_runtime.client.sender import Sender, request_bytes

    where = client.address
    common = {"Host": where.authority, "Accept": "application/octet-stream", **client.headers()}
    requests = [
        request_bytes(f"{where.prefix}/infer", {**common, **payload.headers, **headers}, payload.body)
        for payload, _, headers in kinds
    ]
    try:
        sender = Sender(where.host, where.port, requests=requests, arrivals_s=arrivals_s, connections=connections)
    except OSError as error:
        raise Unreachable(f"cannot open {connections} connections to {where.url}: {error}") from None
    start_s = time.monotonic() + SETTLE_S
    began_s = time.time() + SETTLE_S
    watch = Watch(client, start_s=start_s)
    watch.start()
    try:
        run = sender.run(start_s)
    finally:
        readings = watch.stop()
    return began_s, run, readings


def _summary(
    answers: "Sequence[Answer]", budgets_ms: Sequence[Optional[float]], seconds: float, served: Dict[str, Any]
) -> Dict[str, Any]:
    from wenet_runtime.client.load_report import summary

    accuracies = {str(one["id"]): float(one["accuracy"]) for one in served["modes"]}
    return summary(answers, budgets_ms=budgets_ms, seconds=seconds, accuracies=accuracies)
