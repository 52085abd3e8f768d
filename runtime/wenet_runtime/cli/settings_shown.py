"""The verb `settings`: the value of every setting, and where it comes from."""

import difflib
import json
import logging
import os
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

import typer

from wenet_runtime.cli.ends import guarded, say
from wenet_runtime.settings import CONFIG, Settings, load_settings, origins
from wenet_runtime.settings_sources import PREFIX

OTHERS = (CONFIG, "WENET_URL")  # the latter is the client's


def settings(
    as_json: bool = typer.Option(False, "--json", help="print JSON"),
    *,
    flags: Dict[str, Any],
    config: Optional[Path],
) -> None:
    """Show every setting as it would hold, and where its value comes from. Needs no bundle.

    Of flag, environment, --config, the user's TOML file, the system's and the default, the first counts.
    """

    def action() -> None:
        values = load_settings(flags, config=config).model_dump(mode="json")
        sources = origins(flags, config, os.environ)
        warn_of_misspelt()
        if as_json:
            found = {name: {"value": value, "from": sources[name]} for name, value in values.items()}
            print(json.dumps(found, indent=1))
        else:
            print("\n".join(lines(values, sources)))

    guarded(action)


def warn_of_misspelt() -> None:
    """Say which variables of the environment look like settings and are none."""
    for one in misspelt(os.environ):
        say(f"warning: {one}", logging.WARNING)


def misspelt(environment: Mapping[str, str]) -> List[str]:
    """What is wrong with variables that look like settings, and are close to one."""
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    found = []
    for name in sorted(environment):
        if name.upper().startswith(PREFIX) and name.upper() not in (*known, *OTHERS):
            close = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.8)
            if close:
                found.append(f"the environment has {name[:60]}, which is no setting: did you mean {close[0]}?")
    return found


def lines(values: Mapping[str, Any], sources: Mapping[str, str]) -> List[str]:
    """In columns for a person."""
    texts = {name: "not given" if value is None else _text(value) for name, value in values.items()}
    names, wide = max(map(len, texts)), min(40, max(map(len, texts.values())))
    return [f"{name:{names}}  {text:{wide}}  {sources[name]}" for name, text in texts.items()]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
