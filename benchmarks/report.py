"""Renders benchmark results as one Markdown table."""

import json
import sys
from pathlib import Path


def table(paths: list[Path]) -> str:
    """A row per figure: what, value, goal, met, where."""
    rows = ["| benchmark | figure | value | goal | met | machine |", "|---|---|---|---|---|---|"]
    for path in paths:
        result = json.loads(path.read_text())
        quick = " (quick)" if result["quick"] else ""
        where = f"{result['machine']['processor']}, {result['machine']['cores']} cores"
        for name, figure in result["figures"].items():
            value = f"{figure['value']:.4g} {figure['unit']}"
            met = {True: "yes", False: "**no**", None: "–"}[figure["met"]]
            goal = figure["goal"] or "–"
            rows.append(f"| {result['benchmark']}{quick} | {name} | {value} | {goal} | {met} | {where} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table([Path(one) for one in sys.argv[1:]]))
