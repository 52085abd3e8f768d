"""Which board this is, as its system tells: model, release, power setting, and where its GPU's clock and load are."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Optional

from wenet_runtime.conditions import read_text
from wenet_runtime.device_state import read_state

# A container sees no /proc/device-tree, and no file of /proc can be mounted into it.
MODEL_VARIABLE = "WENET_BOARD_MODEL"

# L4T release, or the beginning of one → JetPack.
JETPACKS = {
    "32.6.1": "4.6",
    "32.7": "4.6.x",
    **{f"32.7.{minor}": f"4.6.{minor}" for minor in range(1, 7)},
    "35.1": "5.0.2",
    **{f"35.{minor}": "5.1.x" for minor in range(2, 7)},
    "36.3": "6.0",
    "36.4": "6.1 or 6.2",
    "38": "7.x",
    "39": "7.x",
}

# Seen on boards are "57000000.gpu" and "17000000.gpu"; Tegra's kernels name others by the chip ("17000000.gv11b").
_GPU = re.compile(r"(?:[0-9a-f]+\.)?(?:gpu|gp10b|gv11b|ga10b)\b")
_LOADS = ("devices/gpu.0/load", "devices/57000000.gpu/load", "devices/platform/gpu.0/load")
_RELEASE = re.compile(r"# R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)")


@dataclass(frozen=True)
class Board:
    """What is known of the board; None where its system does not tell.

    Attributes:
        model: its maker's name for it.
        l4t: release of NVIDIA's Linux for Tegra, "32.7.1".
        jetpack: what that release is called as a whole.
        tegra: whether it is a Tegra, whose GPU shares the processor's memory and rails.
        power_setting: nvpmodel's.
        gpu: the GPU's name among the devices that have a clock, "57000000.gpu".
        gpu_load: the file with the GPU's load, 0–1000.
    """

    model: Optional[str] = None
    l4t: Optional[str] = None
    jetpack: Optional[str] = None
    tegra: bool = False
    power_setting: Optional[str] = None
    gpu: Optional[str] = None
    gpu_load: Optional[Path] = None


def read_board(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> Board:
    """Read what there is.

    Args:
        root: of the file system, for tests.
        environ: its `WENET_BOARD_MODEL` counts more than the device tree.
    """
    sysfs, tree = root / "sys", root / "proc/device-tree"
    model = environ.get(MODEL_VARIABLE) or (read_text(tree / "model") or "").strip("\0 ") or None
    l4t = _l4t(read_text(root / "etc/nv_tegra_release") or "")
    compatible = read_text(tree / "compatible") or ""
    state = read_state(sysfs, power_status=root / "var/lib/nvpmodel/status", power_names=root / "etc/nvpmodel.conf")
    return Board(
        model=model,
        l4t=l4t,
        jetpack=None if l4t is None else jetpack_of(l4t),
        tegra=l4t is not None or "nvidia,tegra" in compatible or "jetson" in (model or "").lower(),
        power_setting=state.power_setting,
        gpu=next((path.name for path in sorted(sysfs.glob("class/devfreq/*")) if _GPU.match(path.name)), None),
        gpu_load=next((sysfs / name for name in _LOADS if (sysfs / name).exists()), None),
    )


def jetpack_of(l4t: str) -> Optional[str]:
    """The JetPack of a release, by its longest known beginning."""
    parts = l4t.split(".")
    beginnings = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((JETPACKS[one] for one in beginnings if one in JETPACKS), None)


def _l4t(told: str) -> Optional[str]:
    found = _RELEASE.match(told)
    return None if found is None else f"{found.group(1)}.{found.group(2)}"
