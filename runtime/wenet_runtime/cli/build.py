"""The verb `build`: makes this device's engines of every mode, and compares them with ONNX Runtime if asked."""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional

import typer

from wenet_runtime.cli.ends import EXIT_FAILURE, checked_settings, fail, guarded, say
from wenet_runtime.cli.progress import Shown, progress_shown
from wenet_runtime.errors import SettingsError

if TYPE_CHECKING:  # the help needs none of these
    from wenet_runtime.builder import DeviceCache
    from wenet_runtime.engines.base import Backend
    from wenet_runtime.verification import Verdict


def build(
    verify: bool = typer.Option(
        False, "--verify", help="compare every engine with ONNX Runtime on the CPU; one that deviates never serves"
    ),
    samples: int = typer.Option(
        16, "--samples", min=0, max=10_000, help="random inputs that --verify takes beside the bundle's golden ones"
    ),
    as_json: bool = typer.Option(False, "--json", help="print what was built as JSON"),
    *,
    flags: Dict[str, Any],
    config: Optional[Path],
) -> None:
    """Build this device's engines into the cache, so that starting is quick.

    One engine for each mode of the bundle. What is interrupted goes on when it is run again.
    """

    def action() -> None:
        settings = checked_settings(flags, config)
        from wenet_runtime.service.opening import open_backend

        cache, backend = open_backend(settings)
        try:
            if verify and backend.name == "sim":
                raise SettingsError("--verify: a simulated engine's answers are made up: choose a real --engine")
            timed = _Timed()
            with progress_shown(ticking=True) as shown:
                timed.build(cache, shown)
                verdicts = _verified(cache, backend, samples, shown) if verify else None
        finally:
            backend.close()
        refused = cache.refused()
        _tell(cache, refused, verdicts)
        if as_json:
            print(json.dumps(_members(cache, timed, refused, verdicts), indent=1), flush=True)
        if verdicts is not None and refused:
            fail(
                f"{len(refused)} of {len(verdicts)} modes deviate and will not serve: {', '.join(refused)}",
                EXIT_FAILURE,
            )

    guarded(action)


@dataclass
class _Timed:
    """Builds and notes how long each mode took; nothing of modes that lay in the cache."""

    clock: Callable[[], float] = time.monotonic
    took_s: float = 0.0
    modes_s: Dict[str, float] = field(default_factory=dict)

    def build(self, cache: "DeviceCache", shown: Shown) -> None:
        modes = cache.bundle.modes
        began_s: List[float] = []  # of each mode, in their order

        def told(what: str, done: int, total: int) -> None:
            began_s.append(self.clock())
            shown(what, done, total)

        start_s = self.clock()
        cache.build(told)
        end_s = self.clock()
        if began_s:
            shown("building", len(modes), len(modes))
        self.took_s = end_s - start_s
        ended_s = [*began_s[1:], end_s]
        self.modes_s = {mode.id: later - at for mode, at, later in zip(modes, began_s, ended_s)}


def _verified(cache: "DeviceCache", backend: "Backend", samples: int, shown: Shown) -> List["Verdict"]:
    from wenet_runtime.verification import verify_modes

    verdicts = verify_modes(cache.bundle, backend, cache.artifact, samples=samples, progress=shown)
    cache.refuse({one.mode_id: one.refusal for one in verdicts if one.refusal})
    return verdicts


def _tell(cache: "DeviceCache", refused: Mapping[str, str], verdicts: "Optional[List[Verdict]]") -> None:
    from wenet_runtime.memory import MB, together

    footprints = cache.footprints() or {}
    figures = {one.mode_id: _figures(one) for one in verdicts or ()}
    for mode_id, one in footprints.items():
        say(", ".join(filter(None, (f"{mode_id}: {one.alone / MB:.3g} MB", figures.get(mode_id)))))
    for mode_id, why in refused.items():
        say(f"{mode_id} is REFUSED: {why}")
    say(f"built: {cache.path}, all resident take {together(footprints.values()) / MB:.3g} MB")


def _figures(one: "Verdict") -> str:
    if one.deviation is None or one.top1 is None:
        return "no answer to compare"
    return f"deviates by {one.deviation:.2g} (allowed {one.tolerance:g}), same top-1 in {one.top1:.1%} of {one.rows}"


def _members(
    cache: "DeviceCache", timed: _Timed, refused: Mapping[str, str], verdicts: "Optional[List[Verdict]]"
) -> Dict[str, Any]:
    """What `--json` prints."""
    from wenet_runtime.memory import MB, together

    footprints = cache.footprints() or {}
    compared = {one.mode_id: asdict(one) for one in verdicts or ()}
    rows = []
    for mode in cache.bundle.modes:
        took_s = timed.modes_s.get(mode.id)
        rows.append(
            {
                "id": mode.id,
                "precision": mode.precision,
                "memory_mb": round(footprints[mode.id].alone / MB, 3) if mode.id in footprints else None,
                "built_in_s": None if took_s is None else round(took_s, 3),
                "refused": refused.get(mode.id),
                "verification": compared.get(mode.id),
            }
        )
    return {
        "bundle_sha256": cache.bundle.sha256,
        "model": cache.bundle.manifest.model,
        "engine": {"name": cache.device.engine, "version": cache.device.engine_version},
        "cache": str(cache.path),
        "seconds": round(timed.took_s, 3),
        "memory_mb": round(together(footprints.values()) / MB, 3),
        "verified": verdicts is not None,
        "modes": rows,
    }
