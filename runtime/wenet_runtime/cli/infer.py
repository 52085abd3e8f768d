"""The verb `infer`: sends files to a server and tells what it answered, with which mode, and why."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional

import typer

from wenet_runtime.cli.asked import check_options, exit_of
from wenet_runtime.cli.ends import guarded, say
from wenet_runtime.cli.reasons import CHOSEN

if TYPE_CHECKING:  # the help needs none of these
    from wenet_runtime.client.exchange import Client, Reply

FILES = typer.Argument(
    ..., help="JPEG or PNG image, .npy array, .json V2 request, or a raw tensor in any other file", metavar="FILE…"
)
URL = typer.Option(
    "http://127.0.0.1:8000", "--url", envvar="WENET_URL", help="the server's address", show_envvar=True, metavar="URL"
)
TOKEN_FILE = typer.Option(
    None,
    "--token-file",
    envvar="WENET_TOKEN_FILE",
    help="file whose first line is the token to send",
    show_default=False,
    metavar="FILE",
)
_SHOWN_NAME = "WeNet-"


def infer(
    files: List[str] = FILES,
    url: str = URL,
    budget_ms: Optional[float] = typer.Option(None, "--budget-ms", help="end-to-end latency budget, ms"),
    budget_mj: Optional[float] = typer.Option(None, "--budget-mj", help="energy budget, mJ per row"),
    min_accuracy: Optional[float] = typer.Option(None, "--min-accuracy", help="accuracy floor, 0-1"),
    mode: Optional[str] = typer.Option(None, "--mode", help="pin this mode", metavar="ID"),
    on_miss: Optional[str] = typer.Option(
        None, "--on-miss", help="when nothing fits: degrade, reject or late", metavar="WHAT"
    ),
    priority: Optional[int] = typer.Option(None, "--priority", help="1 (first) to 3"),
    top_k: int = typer.Option(5, "--top-k", min=1, max=100, help="how many labels to show"),
    token_file: Optional[str] = TOKEN_FILE,
    timeout_s: float = typer.Option(60.0, "--timeout-s", min=0.001, max=3600, help="how long to wait for the server"),
    as_json: bool = typer.Option(False, "--json", help="print each reply as one line of JSON"),
) -> None:
    """Ask a running server about images, one after the other.

    Its own defaults hold for what is not given. Exits with 4 if no mode meets the budget on that
    device, with 5 if nothing measures the energy that was asked for, with 2 if it refuses an option, and
    with 1 if the server answers with another error or not at all.
    """

    def action() -> None:
        from wenet_runtime.client.address import address_of, read_token
        from wenet_runtime.client.exchange import Client, printable
        from wenet_runtime.client.payload import file_payload, option_headers

        token = None if token_file is None else read_token(Path(token_file))
        client = Client(address_of(url), token, timeout_s)
        asked = {
            "budget_ms": budget_ms, "budget_mj": budget_mj, "min_accuracy": min_accuracy,
            "mode": mode, "on_miss": on_miss, "priority": priority,
        }  # fmt: skip
        check_options(asked)
        headers = option_headers(asked)
        payloads = [file_payload(Path(name)) for name in files]  # a misspelt name is told before anything is sent
        code = 0
        for payload in payloads:
            reply = _ask(client, payload.body, {**payload.headers, **headers}, top_k)
            if reply.status != 200:
                say(f"wenet-runtime: {payload.name}: {reply.complaint}")
                code = code or exit_of(reply.slug)
            if as_json:
                print(json.dumps({"file": payload.name, **_members(reply)}), flush=True)
            elif reply.status == 200:
                for line in lines(payload.name, reply, budget_ms):
                    print(printable(line), flush=True)
        if code:
            raise typer.Exit(code)

    guarded(action)


def _ask(client: "Client", body: bytes, headers: Dict[str, str], top_k: int) -> "Reply":
    return client.request("POST", f"/infer?top_k={top_k}", body=body, headers={"Accept": "application/json", **headers})


def _members(reply: "Reply") -> Dict[str, Any]:
    """What `--json` prints of a reply: its members, and its `WeNet-*` headers as they came."""
    headers = {name: value for name, value in reply.headers.items() if name.startswith(_SHOWN_NAME.lower())}
    return {"status": reply.status, "headers": headers, **reply.members()}


def lines(name: str, reply: "Reply", budget_ms: Optional[float] = None) -> List[str]:
    """A reply for a person: a line for each row's labels, one for the mode and its time, one for its energy."""
    members = reply.members()
    rows = members.get("top_k") or [[]]
    found = []
    for number, row in enumerate(rows):
        which = name if len(rows) == 1 else f"{name} row {number}"
        found.append(f"{which}: " + (", ".join(_label(one) for one in row) or "no labels"))
    headers = reply.headers
    reason = headers.get("wenet-mode-reason", "")
    why = f"{reason}: {CHOSEN[reason]}" if reason in CHOSEN else reason
    found.append(f"  mode {headers.get('wenet-mode', '?')} ({why})")
    timed = f"  {_ms(headers.get('wenet-latency-ms'))}, predicted {_ms(headers.get('wenet-predicted-ms'))}"
    met = headers.get("wenet-budget-met")
    if met is not None:
        budget = "budget" if budget_ms is None else f"budget of {budget_ms:g} ms"
        timed += f", {budget} {'met' if met == 'true' else 'NOT met'}"
    found.append(timed)
    energy_mj, source = _number(headers.get("wenet-energy-mj")), headers.get("wenet-energy-source", "none")
    if energy_mj is not None:
        kind = " (an estimate)" if source == "estimate" else " (SIMULATED)" if source == "sim" else ""
        found.append(f"  {energy_mj:.4g} mJ by {source}{kind}")
    else:
        found.append("  energy unknown")
    return found


def _label(one: Any) -> str:
    score = one.get("score")
    return f"{one.get('label')} {'?' if score is None else format(score, '.1%')}"


def _ms(text: Optional[str]) -> str:
    value = _number(text)
    return "unknown" if value is None else f"{value:.4g} ms"


def _number(text: Optional[str]) -> Optional[float]:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
