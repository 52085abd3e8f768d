"""Which rails are the whole board, and whether their labels can be right. Data and arithmetic, no files."""

from dataclasses import dataclass
from typing import Iterable, Mapping, Optional, Tuple

# Rails that everything on the module passes through, so that they contain all others.
INPUTS = ("POM_5V_IN", "VDD_IN", "VIN")

# Boards without such a rail: those that together are the module. A rail that one of these feeds
# (VDDQ_VDD2_1V8AO of an AGX Orin, by all that is known) would be counted twice and is left out.
SUMS = (
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),  # AGX Xavier
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),  # AGX Orin; VIN_SYS_5V0 is its 5 V rail, not its input
    ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"),  # AGX Thor without a sensor at its input
)

UNCONNECTED = "NC"

# Rails are read one after the other, so an input may lag behind a sudden load. Of 249 recorded lines of five kinds
# of board no input is below 1.19 times the others' sum, and where labels are rotated it is 0.27 times that.
TOLERANCE_MW = 500
TOLERANCE_SHARE = 0.25


@dataclass(frozen=True)
class Total:
    """What the whole board draws, mW, and the rails that say so."""

    mw: int
    rails: Tuple[str, ...]


def total_rails(names: Iterable[str], rail: Optional[str] = None) -> Optional[Tuple[str, ...]]:
    """The rails to add for the whole board; None if these are not known to be one.

    Args:
        names: the rails that there are.
        rail: the rail or rails ("A+B") to take instead of what the board's kind says.
    """
    there = set(names)
    choices: Tuple[Tuple[str, ...], ...]
    if rail is not None:
        choices = (tuple(dict.fromkeys(part.strip() for part in rail.split("+"))),)
    else:
        choices = tuple((name,) for name in INPUTS) + SUMS
    return next((choice for choice in choices if there.issuperset(choice)), None)


def whole_board(rails_mw: Mapping[str, int], rail: Optional[str] = None) -> Optional[Total]:
    """What the whole board draws by one reading of its rails; None where they cannot say.

    Args:
        rails_mw: momentary power of each rail, mW.
        rail: as of `total_rails`; labels are then taken as they are.
    """
    rails = total_rails(rails_mw, rail)
    if rails is None or (rail is None and rotated(rails_mw) is not None):
        return None
    return Total(sum(rails_mw[name] for name in rails), rails)


def rotated(rails_mw: Mapping[str, int]) -> Optional[str]:
    """Why these labels cannot be right, and what to do; None if they can be.

    Carrier boards of third parties wire the sensor's channels in another order than their labels say. The input
    then draws less than what it feeds.
    """
    name = next((name for name in INPUTS if name in rails_mw), None)
    if name is None:
        return None
    fed_mw = sum(mw for other, mw in rails_mw.items() if other not in (name, UNCONNECTED))
    if rails_mw[name] >= fed_mw - max(TOLERANCE_MW, TOLERANCE_SHARE * fed_mw):
        return None
    read = ", ".join(f"{rail} {mw} mW" for rail, mw in sorted(rails_mw.items(), key=lambda one: -one[1]))
    return (
        f"the input {name} draws less than the rails it feeds ({read}): this carrier board's labels are rotated; "
        "name the rail that is its input with --power-rail"
    )
