"""Meters: where watts come from. One file a variant; nothing is imported until chosen."""

from typing import Mapping

METERS: Mapping[str, str] = {
    "none": "wenet_runtime.meters.none:NoMeter",
    "sim": "wenet_runtime.meters.sim:SimMeter",
}
