"""Meters: where watts come from. One file a variant; nothing is imported until chosen."""

from typing import Mapping

METERS: Mapping[str, str] = {
    "ina3221": "wenet_runtime.meters.ina3221:Ina3221Meter",
    "tegrastats": "wenet_runtime.meters.tegrastats_child:TegrastatsMeter",
    "nvml": "wenet_runtime.meters.nvml:NvmlMeter",
    "rapl": "wenet_runtime.meters.rapl:RaplMeter",
    "jtop": "wenet_runtime.meters.jtop:JtopMeter",
    "none": "wenet_runtime.meters.none:NoMeter",
    "sim": "wenet_runtime.meters.sim:SimMeter",
}
