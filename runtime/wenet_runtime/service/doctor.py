"""Looks this device over before anything is served: every check of `wenet-runtime doctor`, in order."""

import os
from pathlib import Path
from typing import Callable, Dict, List, Mapping, Optional, Sequence

from wenet_runtime.board import Board, read_board
from wenet_runtime.device_state import read_state
from wenet_runtime.engines import ON_GPU
from wenet_runtime.engines.auto import AUTO
from wenet_runtime.service.board_checks import check_board, check_clocks, check_rails
from wenet_runtime.service.check import Check
from wenet_runtime.service.library_checks import (
    check_cuda,
    check_engine,
    check_meters,
    check_onnxruntime,
    check_python,
    check_tensorrt,
)
from wenet_runtime.service.place_checks import check_bundle, check_cache, check_port, check_tokens
from wenet_runtime.service.probes import Answer, ask, meter_question
from wenet_runtime.settings import Settings

Ask = Callable[[Mapping[str, Sequence[str]]], Dict[str, Answer]]
UNMEASURED = ("none", "sim")


def examine(
    settings: Settings, *, root: Path = Path("/"), environ: Mapping[str, str] = os.environ, ask: Ask = ask
) -> List[Check]:
    """Check everything; nothing is changed and no error is raised.

    Args:
        settings: of the daemon that shall run here.
        root: of the file system that tells of the board, for tests.
        environ: may tell the board's model.
        ask: asks libraries and meters.
    """
    sysfs, board = root / "sys", read_board(root, environ)
    state = read_state(sysfs, power_status=root / "var/lib/nvpmodel/status", power_names=root / "etc/nvpmodel.conf")
    gpu = _has_gpu(board, root)
    meters = {"auto"} | {one for one in (settings.meter,) if one not in UNMEASURED}
    on_gpu = settings.engine in ON_GPU
    answers = ask(
        {
            **{name: [name] for name in ("onnxruntime", "cuda", "tensorrt")},
            "engine": ["engine", "ort" if settings.engine == AUTO else settings.engine],
            **{
                f"meter {one}": meter_question(one, on_gpu=on_gpu, rail=settings.power_rail, sysfs=sysfs)
                for one in meters
            },
        }
    )
    cache = settings.cache_dir.expanduser()
    return [
        *check_board(board),
        check_clocks(board, state, sysfs),
        check_python(),
        check_engine(settings.engine, answers["engine"]),
        check_onnxruntime(answers["onnxruntime"], engine=settings.engine),
        check_cuda(answers["cuda"], gpu=gpu, engine=settings.engine),
        check_tensorrt(answers["tensorrt"], gpu=gpu, engine=settings.engine),
        *check_meters(settings.meter, {one: answers[f"meter {one}"] for one in meters}),
        check_rails(sysfs),
        *check_bundle(_bundle(settings), cache),
        check_cache(cache),
        check_tokens(settings.token_file, settings.host, insecure=settings.insecure_no_auth),
        check_port(settings.host, settings.port),
    ]


def _has_gpu(board: Board, root: Path) -> bool:
    return board.tegra or (root / "proc/driver/nvidia/version").exists()


def _bundle(settings: Settings) -> Optional[Path]:
    """The bundle that was named, or that lies where one is looked for."""
    usual = Settings.model_fields["bundle"].default
    return settings.bundle if settings.bundle != usual or settings.bundle.is_dir() else None
