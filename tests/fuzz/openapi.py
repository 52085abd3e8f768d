"""Requests that Schemathesis makes from the daemon's own description, in an environment of its own."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.fuzz.daemon import Daemon, Outcome

PARAMETERS = {"path.model": "tiny", "path.version": "m0"}
MOST_TURNS = 8
COVERED = 1500  # cases or so that come whatever is asked for: every value of the description once


def schemathesis() -> "str | None":
    """Where its command is: beside this Python; None where it is not installed."""
    found = Path(sys.executable).with_name("schemathesis")
    return str(found) if found.exists() else None


def fuzz(daemon: Daemon, folder: Path, count: int, *, command: str, seed: int = 1) -> Outcome:
    """`count` cases or some more, with the names that are served and with any by turns.

    Args:
        daemon: serves, without a token file.
        folder: for the report.
        count: of the cases.
        command: the `schemathesis` to run.
        seed: what the cases follow from.
    """
    outcome = Outcome()
    start_s = time.monotonic()
    daemon.check(outcome)
    before_mb = 0.0  # after the first half
    for turn in range(MOST_TURNS):
        parameters = PARAMETERS if turn % 2 == 0 else {}
        # How many come of what is asked for depends on the description: further turns bring the rest.
        asked = count // 2 if turn < 2 else max(2 * COVERED, count - outcome.cases)
        outcome.failures += _run(daemon, folder, outcome, command, parameters, asked, seed + turn)
        daemon.check(outcome)
        if daemon.process.poll() is not None or (turn > 0 and outcome.cases >= count):
            break
        before_mb = before_mb or daemon.rss_mb
        outcome.grown_mb = daemon.rss_mb - before_mb
    outcome.took_s = time.monotonic() - start_s
    return outcome


def _run(
    daemon: Daemon, folder: Path, outcome: Outcome, command: str, parameters: "dict[str, str]", count: int, seed: int
) -> "list[str]":
    operations = _operations(daemon)
    each = max(1, round((count - COVERED) / operations))
    config, report = folder / f"schemathesis-{seed}.toml", folder / f"report-{seed}.ndjson"
    lines = ["[parameters]", *(f'"{name}" = "{value}"' for name, value in parameters.items())] if parameters else []
    config.write_text("\n".join([*lines, ""]), encoding="utf-8")
    url = f"http://127.0.0.1:{daemon.port}"
    words = ["--url", url, "--checks", "not_a_server_error", "--continue-on-failure", "--no-color", "--no-shrink"]
    more = [
        "--max-examples",
        str(each),
        "--seed",
        str(seed),
        "--warnings",
        "off",
        "--phases",
        "examples,coverage,fuzzing",
    ]
    reports = ["--report", "ndjson", "--report-ndjson-path", str(report)]
    skipped = ["--exclude-path", "/admin/drain", "--generation-database", "none"]
    start = [command, "--config-file", str(config), "run", f"{url}/openapi.json"]
    done = subprocess.run(
        [*start, *words, *more, *reports, *skipped], capture_output=True, text=True, check=False, cwd=folder
    )
    if not report.is_file():
        return [f"Schemathesis did not run: {done.stdout[-500:]}{done.stderr[-500:]}"]
    before = outcome.cases
    for line in report.open(encoding="utf-8"):
        _note(json.loads(line), outcome)
    if outcome.cases == before:
        return [f"Schemathesis asked nothing: {done.stdout[-500:]}{done.stderr[-500:]}"]
    return []


def _operations(daemon: Daemon) -> int:
    paths = json.loads(daemon.ask("GET", "/openapi.json")[1])["paths"]
    return sum(len(operations) for operations in paths.values())


def _note(event: "dict[str, Any]", outcome: Outcome) -> None:
    """What one of the report's lines says of requests and their replies."""
    recorder = event.get("ScenarioFinished", {}).get("recorder", {})
    for one in recorder.get("interactions", {}).values():
        outcome.cases += 1
        outcome.kinds[recorder["label"]] += 1
        if one["response"] is None:
            outcome.failed(f"no answer to {recorder['label']}: {json.dumps(one['request'])[:300]}")
        else:
            outcome.answered(one["response"]["status_code"], f"{recorder['label']}: {json.dumps(one['request'])[:300]}")
