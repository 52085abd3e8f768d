"""Lines of `tegrastats` composed from its grammar for every kind of board, and what each says. All made up."""

import random
from dataclasses import dataclass
from typing import Dict, List, Optional, Tuple

from wenet_runtime.meters.rails import whole_board
from wenet_runtime.meters.tegrastats import CpuCore, Ram, Reading


@dataclass(frozen=True)
class Board:
    """What a board prints under one release.

    Attributes:
        rails: in the order printed. The first one is as much as all others together, so that labels are credible.
        unit: behind each number of a rail.
        values: how many numbers a rail has: momentary, mean, and on the newest release the highest.
        sensors: of temperature, in the order printed.
        off: sensors without power.
        cores: how many.
        gpu: how the GPU's load and clock are written; `n` stands for a clock.
        before, after: other fields, with numbers that do not matter.
        dated: whether a line begins with a date.
        shared_clock: whether the cores have one clock, behind the list.
        gaps: whether fields may be several spaces apart.
    """

    name: str
    rails: Tuple[str, ...]
    sensors: Tuple[str, ...]
    cores: int
    gpu: str
    unit: str = ""
    values: int = 2
    off: Tuple[str, ...] = ()
    before: str = ""
    after: str = ""
    dated: bool = False
    shared_clock: bool = False
    gaps: bool = False


_POM = ("POM_5V_IN", "POM_5V_GPU", "POM_5V_CPU")
_VDD = ("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC")
_ORIN = ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
_NANO_C = ("PLL", "CPU", "PMIC", "GPU", "AO", "thermal")
_XAVIER_C = ("AO", "GPU", "Tdiode", "PMIC", "AUX", "CPU", "thermal", "Tboard")
_ORIN_C = ("cpu", "soc2", "soc0", "gpu", "tj", "soc1")
_SWAP = "SWAP 86/4096MB (cached 2MB)"
_GATED = "NVENC 78%@166 NVDEC off NVJPG off NVJPG1 off VIC 36%@115 OFA off NVDLA0 off PVA0_FREQ off APE 174"

BOARDS: Tuple[Board, ...] = (
    Board("TX1, R28", (), (), 4, "GR3D %@n", before=_SWAP, after="APE 25 EMC 1%@408", shared_clock=True),
    Board(
        "Nano, R32, root",
        _POM,
        _NANO_C,
        4,
        "GR3D_FREQ %@n",
        before=f"{_SWAP} IRAM 0/252kB(lfb 252kB)",
        after="EMC_FREQ 0%@1600 APE 25",
    ),
    Board("Nano, R32, not root", (), (*_NANO_C, "iwlwifi"), 4, "GR3D_FREQ %", before=_SWAP, after="EMC_FREQ 0%"),
    Board("Nano, other carrier", (_POM[1], _POM[0], _POM[2]), _NANO_C, 4, "GR3D_FREQ %", after="EMC_FREQ 0%"),
    Board(
        "TX2, R28",
        ("VDD_IN", "VDD_CPU", "VDD_GPU", "VDD_SOC", "VDD_WIFI", "VDD_DDR"),
        ("BCPU", "MCPU", "GPU", "PLL", "Tboard", "Tdiode", "PMIC", "thermal"),
        6,
        "GR3D_FREQ @n",
        after="EMC_FREQ 13%@40 APE 150 MTS fg 0% bg 3%",
    ),
    Board(
        "TX2, R32",
        ("VDD_SYS_GPU", "VDD_SYS_SOC", "VDD_4V0_WIFI", "VDD_IN", "VDD_SYS_CPU", "VDD_SYS_DDR"),
        ("PLL", "MCPU", "PMIC", "Tboard", "GPU", "BCPU", "thermal", "Tdiode"),
        6,
        "GR3D_FREQ %@n",
        before=_SWAP,
        after="EMC_FREQ 4%@1600 APE 150",
    ),
    Board(
        "AGX Xavier, R32",
        ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
        _XAVIER_C,
        8,
        "GR3D_FREQ %@n",
        before=_SWAP,
        after="EMC_FREQ 55%@2133 APE 150 MTS fg 0% bg 10%",
    ),
    Board("Xavier NX, R32", _VDD, _XAVIER_C[:6], 6, "GR3D_FREQ %", before=_SWAP, after="EMC_FREQ 0%"),
    Board(
        "Xavier NX, R35",
        _VDD,
        _XAVIER_C[:6],
        6,
        "GR3D_FREQ %@[n]",
        unit="mW",
        before=_SWAP,
        after="VIC_FREQ 115",
        dated=True,
    ),
    Board("Orin NX, R35", _VDD, ("CV0", "CPU", "SOC2", "GPU", "tj"), 8, "GR3D_FREQ %@n", unit="mW", after="APE 174"),
    Board("Orin Nano, R36", _VDD, _ORIN_C, 6, "GR3D_FREQ %@[n]", unit="mW", after=_GATED, dated=True),
    Board(
        "AGX Orin, R35, root",
        (*_ORIN, "NC", "VDDQ_VDD2_1V8AO"),
        ("CV0", "CPU", "Tboard", "SOC2", "Tdiode", "GPU", "tj"),
        12,
        "GR3D_FREQ %@[n,n]",
        unit="mW",
        off=("CV0", "GPU"),
        before=_SWAP,
        after="EMC_FREQ 0%@2133 VIC_FREQ 729 NVDLA0_FREQ @1600 APE 174",
        dated=True,
        gaps=True,
    ),
    Board("AGX Orin, R36", _ORIN, _ORIN_C, 12, "GR3D_FREQ %@[n,n]", unit="mW", after=_GATED, dated=True),
    Board(
        "AGX Thor, R38",
        ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"),
        ("cpu", "tj", "soc012", "soc345"),
        14,
        "GR3D_FREQ @[n,n,n]",
        unit="mW",
        after="NVENC0_FREQ @1556 NVDEC0_FREQ @0 VIC 59%@423 OFA_FREQ @0 PVA0_FREQ off APE 300",
        dated=True,
    ),
    Board(
        "AGX Thor, R39, three values",
        ("VIN", "VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"),
        ("cpu", "tj", "soc012", "soc345"),
        14,
        "GR3D_FREQ @[n,n,n]",
        unit="mW",
        values=3,
        dated=True,
    ),
)


def composed(board: Board, seed: int) -> Tuple[str, Reading]:
    """A line of this board and what it says; the same for the same seed."""
    draw = random.Random(f"{board.name} {seed}")
    ram = Ram(draw.randint(100, 9_999), draw.randint(10_000, 99_999))
    rails_mw = _rails(board, draw)
    temperatures_c = {name: round(draw.uniform(-5, 99), draw.choice((0, 1, 3))) for name in board.sensors}
    cpu_text, cpu = _cpu(board, draw)
    gpu_text, percent, mhz = _gpu(board, draw)
    fields = [f"RAM {ram.used_mb}/{ram.total_mb}MB (lfb {draw.randint(1, 999)}x{draw.choice(('4MB', '256kB'))})"]
    fields += [board.before, cpu_text, gpu_text, board.after]
    for name, degrees_c in temperatures_c.items():
        now = "-256C" if name in board.off else f"{degrees_c:g}C"
        fields.append(f"{name}@{now}/{now}" if board.values == 3 else f"{name}@{now}")
    for name, mw in rails_mw.items():
        numbers = (mw, *(draw.randint(0, 9_999) for _ in range(board.values - 1)))
        fields.append(f"{name} " + "/".join(f"{one}{board.unit}" for one in numbers))
    if board.dated:
        fields.insert(0, f"{draw.randint(10, 12)}-0{draw.randint(1, 9)}-2026 12:{draw.randint(10, 59)}:07")
    line = "".join(field + " " * (draw.randint(1, 5) if board.gaps else 1) for field in fields if field).rstrip()
    rails_mw.pop("NC", None)
    total = whole_board(rails_mw)
    known_c = {name: degrees_c for name, degrees_c in temperatures_c.items() if name not in board.off}
    return line, Reading(rails_mw, None if total is None else total.mw, known_c, percent, mhz, cpu, ram, ())


def _rails(board: Board, draw: random.Random) -> Dict[str, int]:
    rails_mw = {name: draw.randint(0, 4_000) for name in board.rails}
    for name in ("POM_5V_IN", "VDD_IN", "VIN"):
        if name in rails_mw:
            rails_mw[name] = sum(rails_mw.values())
    return rails_mw


def _cpu(board: Board, draw: random.Random) -> Tuple[str, Tuple[Optional[CpuCore], ...]]:
    shared = draw.randint(100, 2_200)
    texts: List[str] = []
    cores: List[Optional[CpuCore]] = []
    for _ in range(board.cores):
        percent, mhz = draw.randint(0, 100), draw.choice((None, draw.randint(100, 2_200)))
        if draw.random() < 0.2:
            texts.append("off")
            cores.append(None)
        elif board.shared_clock:
            texts.append(f"{percent}%")
            cores.append(CpuCore(percent, shared))
        else:
            texts.append(f"{percent}%" if mhz is None else f"{percent}%@{mhz}")
            cores.append(CpuCore(percent, mhz))
    listed = "[" + ",".join(texts) + "]"
    return (f"cpu {listed}@{shared}" if board.shared_clock else f"CPU {listed}"), tuple(cores)


def _gpu(board: Board, draw: random.Random) -> Tuple[str, Optional[int], Optional[int]]:
    percent = draw.randint(0, 100) if "%" in board.gpu else None
    clocks = [draw.randint(0, 1_400) for _ in range(board.gpu.count("n"))]
    text = board.gpu.replace("%", f"{percent}%")
    for clock in clocks:
        text = text.replace("n", str(clock), 1)
    return text, percent, max(clocks, default=None)
