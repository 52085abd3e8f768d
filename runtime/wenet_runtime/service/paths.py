"""The paths of inference, told apart without a router."""

from typing import Dict, Optional


def path_parameters(path: str) -> Optional[Dict[str, str]]:
    """What the path of a request for inference names, `model` and `version`; None if it is another path."""
    if path == "/infer":
        return {}
    parts = path.split("/")
    if parts[:3] != ["", "v2", "models"] or parts[-1] != "infer" or "" in parts[1:]:
        return None
    if len(parts) == 5:
        return {"model": parts[3]}
    if len(parts) == 7 and parts[4] == "versions":
        return {"model": parts[3], "version": parts[5]}
    return None
