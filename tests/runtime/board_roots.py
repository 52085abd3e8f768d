"""Composed file systems of boards, for what reads more than /sys: the places are theirs, the numbers invented."""

from pathlib import Path

from tests.runtime import sysfs_trees
from tests.runtime.sysfs_trees import write

SETTINGS = "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=5W >\n"


def _tegra(root: Path, model: str, release: str, setting: int = 0) -> None:
    write(root / "proc/device-tree/model", f"{model}\0")
    write(root / "etc/nv_tegra_release", f"# {release}, GCID: 1, BOARD: t, EABI: aarch64")
    write(root / "var/lib/nvpmodel/status", f"pmode:{setting:04d} fmode:fanNull")
    write(root / "etc/nvpmodel.conf", SETTINGS)


def _clocks(root: Path, gpu: str, *, now_mhz: int, least_mhz: int, most_mhz: int) -> None:
    for core in range(4):
        write(root / f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq", 1_479_000)
    write(root / "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq", 1_479_000)
    for name, mhz in (("cur_freq", now_mhz), ("min_freq", least_mhz), ("max_freq", most_mhz)):
        write(root / f"sys/class/devfreq/{gpu}/{name}", mhz * 1_000_000)
    write(root / "sys/class/thermal/thermal_zone0/type", "CPU-therm")
    write(root / "sys/class/thermal/thermal_zone0/temp", 41_000)


def nano(root: Path) -> Path:
    """A Nano 4GB with JetPack 4.6.1 whose GPU's clock follows its load; returns its root."""
    _tegra(root, "NVIDIA Jetson Nano Developer Kit", "R32 (release), REVISION: 7.1", setting=1)
    _clocks(root, "57000000.gpu", now_mhz=76, least_mhz=76, most_mhz=921)
    sysfs_trees.nano(root / "sys")
    return root


def orin_nano(root: Path) -> Path:
    """An Orin Nano with JetPack 6 whose clocks are pinned; returns its root."""
    _tegra(root, "NVIDIA Jetson Orin Nano Developer Kit", "R36 (release), REVISION: 4.3")
    _clocks(root, "17000000.gpu", now_mhz=624, least_mhz=624, most_mhz=624)
    sysfs_trees.orin_nano(root / "sys")
    return root


def container(root: Path) -> Path:
    """A Nano as a container sees it that was given /sys alone and a release file."""
    sysfs_trees.nano(root / "sys")
    write(root / "etc/nv_tegra_release", "# R32 (release), REVISION: 7.6, GCID: 1")
    return root
