"""The verb `profile`: measures this device, chooses what it offers, and makes the layer table for the explorer."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional

import typer

from wenet_runtime.cli.ends import checked_settings, guarded, say
from wenet_runtime.cli.progress import progress_shown
from wenet_runtime.errors import SettingsError
from wenet_runtime.files import write_atomic

if TYPE_CHECKING:  # the help needs none of these
    from wenet_runtime.bundle import Bundle
    from wenet_runtime.memory import Footprint
    from wenet_runtime.profile import Profile
    from wenet_runtime.service.opening import Device

ALWAYS_JSON = typer.Option(False, "--json", help="changes nothing: what is printed is always JSON")
LEAST_MODES = 2  # the most accurate and the fastest


def profile(
    select: Optional[int] = typer.Option(
        None,
        "--select",
        help="offer only the K modes that are worth most on this device from now on; 0 offers all again",
        show_default=False,
        metavar="K",
    ),
    batch_sizes: Optional[str] = typer.Option(
        None, "--batch-sizes", help="measure whole batches of these rows too, e.g. 1,4,16", show_default=False
    ),
    layers: bool = typer.Option(False, "--layers", help="measure the layer table too, for `wenet-trainer explore`"),
    check: bool = typer.Option(False, "--check", help="compare the table with 20 random whole modes"),
    table: Optional[str] = typer.Option(
        None,
        "--table",
        help="where the layer table lies [layers.json in the cache]",
        show_default=False,
        metavar="FILE",
    ),
    out: Optional[str] = typer.Option(
        None, "--out", help="write the JSON to this file too", show_default=False, metavar="FILE"
    ),
    as_json: bool = ALWAYS_JSON,
    *,
    flags: Dict[str, Any],
    config: Optional[Path],
) -> None:
    """Measure what every mode costs on this device, and keep it for serving.

    Prints JSON. What is measured lies in the cache; the bundle is not changed.
    """
    del as_json

    def action() -> None:
        settings = checked_settings(flags, config)
        sizes = _sizes(batch_sizes)
        _check_select(select)
        _check_files(table, out, layered=layers or check)
        if layers or check:
            from wenet_runtime.cli.layers import check_asked, layer_table

            check_asked(settings, table, out, measure=layers)
        from wenet_runtime.service.opening import open_device

        with progress_shown() as progress:
            device = open_device(settings, progress, profile_again=True, batch_sizes=sizes, select=select)
        footprints = {mode_id: device.pool.footprint(mode_id) for mode_id in device.pool.modes}
        device.close()
        members = _members(device, footprints)
        _tell_selected(device, chosen_now=bool(select))
        if layers or check:
            members.update(layer_table(settings, table, measure=layers, check=check))
        data = json.dumps(members, indent=1)
        print(data, flush=True)  # first, so that what took minutes is not lost with a full disk
        if out is not None:
            _write(Path(out), data)

    guarded(action)


def _sizes(given: Optional[str]) -> List[int]:
    if given is None:
        return []
    try:
        sizes = sorted({int(part) for part in given.split(",")})
    except ValueError:
        sizes = [0]
    if sizes[0] < 1:
        raise SettingsError(f"--batch-sizes is '{given[:60]}': give numbers of rows above 0, such as 1,4,16")
    return sizes


def _check_select(select: Optional[int]) -> None:
    if select is not None and select != 0 and select < LEAST_MODES:
        raise SettingsError(
            f"--select is {select}: give 0 to offer all modes, or at least {LEAST_MODES}, "
            "for the most accurate and the fastest"
        )


def _check_files(table: Optional[str], out: Optional[str], *, layered: bool) -> None:
    if table is not None and not layered:
        raise SettingsError("--table belongs to --layers, which measures a table, or to --check, which tries one")
    for flag, name in (("--table", table), ("--out", out)):
        if name is None:
            continue
        path = Path(name).absolute()
        if not name or path.is_dir():
            raise SettingsError(f"{flag} is '{name}', which is no file: name one")
        if not path.parent.is_dir():
            raise SettingsError(f"{flag} is '{name}', but there is no directory '{path.parent}': make it first")


def listed(
    bundle: "Bundle", profiles: "Mapping[str, Profile]", footprints: "Mapping[str, Footprint]"
) -> Dict[str, Any]:
    """A bundle's modes, most accurate first, with what is known of them here."""
    from wenet_runtime.memory import MB

    rows = []
    for mode in bundle.modes:
        row: Dict[str, Any] = {"id": mode.id, "accuracy": mode.accuracy.value, "macs": mode.macs, "params": mode.params}
        row["groups"] = dict(mode.groups)
        if mode.id in footprints:
            row["memory_mb"] = round(footprints[mode.id].alone / MB, 3)
        if mode.id in profiles:
            row["profile"] = asdict(profiles[mode.id])
        rows.append(row)
    return {"bundle_sha256": bundle.sha256, "model": bundle.manifest.model, "modes": rows}


def _members(device: "Device", footprints: "Mapping[str, Footprint]") -> Dict[str, Any]:
    """What is printed: the device, the state it was measured in, and every mode."""
    from wenet_runtime.profile_file import selected_members

    measured, described = device.measured, device.cache.device
    found = listed(device.bundle, measured.modes, footprints)
    selected = None if measured.selected is None else selected_members(measured.selected)
    return {
        "bundle_sha256": found["bundle_sha256"],
        "model": found["model"],
        "engine": {"name": described.engine, "version": described.engine_version},
        "device": asdict(described),
        "measured_at": measured.measured_at,
        "meter": measured.meter,
        "conditions": dict(measured.conditions),
        "selected": selected,
        "modes": found["modes"],
    }


def _tell_selected(device: "Device", *, chosen_now: bool) -> None:
    selected = device.measured.selected
    if selected is None:
        return
    offered = ", ".join(selected.modes)
    if not chosen_now:
        say(f"offered are {offered}, as chosen before (choose again: --select K; all: --select 0)")
        return
    for one in selected.left:
        say(f"left out: {one.id}, {one.why}")
    say(f"offered from the next start on: {offered} (all again: --select 0)")


def _write(path: Path, data: str) -> None:
    try:
        write_atomic(path, (data + "\n").encode())
    except OSError as error:
        raise SettingsError(f"--out '{path}' cannot be written ({error.strerror}): name another file") from None
