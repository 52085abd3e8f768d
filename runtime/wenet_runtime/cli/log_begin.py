"""Begins the daemon's log: before its settings are known, so that an error in them is a line of it too."""

import logging
import os
import sys
from typing import Any, Mapping

from wenet_runtime.cli.ends import SAID
from wenet_runtime.service.access_log import ACCESS
from wenet_runtime.service.logs import Aside, formatter_of, is_json, log_handler
from wenet_runtime.settings_sources import variable_of

FORMS = ("auto", "text", "json")


def asked_form(flags: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> str:
    """The form of `--log-format` as flag or variable, before anything is checked; `auto` where neither is one."""
    variable = variable_of("log_format", environment)
    form = str(flags.get("log_format") or ("" if variable is None else environment[variable]))
    return form if form in FORMS else "auto"


def begin_logs(form: str) -> None:
    """Whatever this process has to say goes through one handler, unless somebody has set up another.

    Called again, it changes the form alone.

    Args:
        form: `auto`, `text` or `json`.
    """
    handlers = logging.getLogger().handlers
    if not all(isinstance(one, Aside) for one in handlers):
        return
    descriptor = sys.stderr.fileno()
    if handlers:
        handlers[0].setFormatter(formatter_of(form, descriptor))
    else:
        logging.basicConfig(level=logging.WARNING, handlers=[log_handler(form, descriptor)])
        logging.captureWarnings(True)
        logging.getLogger(ACCESS).setLevel(logging.INFO)
    logging.getLogger(SAID).setLevel(logging.INFO if is_json(form, descriptor) else logging.NOTSET)
