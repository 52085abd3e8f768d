"""A process of its own with some modes resident, as the daemon would have them: says what it took, and ends.

    python -m benchmarks.resident BUNDLE CACHE ROUNDS [MODE …]

Builds the cache if it is empty. Prints one JSON object: memory of this process once all modes have answered,
then milliseconds of `ROUNDS` further loads of each mode.
"""

import json
import sys
import time
from pathlib import Path

from wenet_runtime.canary import golden_inputs
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.memory import MB
from wenet_runtime.mode_costs import resident_mb
from wenet_runtime.pool import Pool
from wenet_runtime.service.opening import open_cache
from wenet_runtime.settings import Settings


def main() -> None:
    """Load, answer, measure, print."""
    rounds, modes = int(sys.argv[3]), sys.argv[4:]
    start = time.perf_counter()
    cache = open_cache(Settings(bundle=Path(sys.argv[1]), cache_dir=Path(sys.argv[2]), engine="ort", threads=1))
    cache.build()
    opened_ms = (time.perf_counter() - start) * 1e3
    bundle, backend = cache.bundle, OrtBackend()
    pool = Pool(bundle, backend, cache.artifact, load=False)
    inputs = golden_inputs(bundle, rows=1)
    pool.load_all(modes)
    for mode_id in modes:
        with pool.use(mode_id) as engine:
            engine.infer(inputs)
    found = {**memory_mb(), "modes_mb": resident_mb(pool), "opened_ms": opened_ms}
    peak_mb = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024 / MB
    loads: dict[str, list[float]] = {mode_id: [] for mode_id in modes}
    firsts: dict[str, list[float]] = {mode_id: [] for mode_id in modes}
    for _ in range(rounds):
        for mode_id in modes:
            mode = bundle.mode(mode_id)
            start = time.perf_counter()
            engine = backend.load(mode, lambda mode=mode: cache.artifact(mode))  # type: ignore[misc]
            loaded = time.perf_counter()
            engine.infer(inputs)
            firsts[mode_id].append((time.perf_counter() - loaded) * 1e3)
            loads[mode_id].append((loaded - start) * 1e3)
            engine.close()
    pool.close()
    print(json.dumps({**found, "peak_mb": peak_mb, "load_ms": loads, "first_ms": firsts}))


def memory_mb() -> dict[str, float]:
    """What this process takes: its share of all its pages (PSS), and those that are no file's."""
    lines = (line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines())
    sizes = {words[0]: int(words[1]) * 1024 / MB for words in lines if words[0] in ("Pss:", "Anonymous:")}
    return {"pss_mb": sizes["Pss:"], "anonymous_mb": sizes["Anonymous:"]}


if __name__ == "__main__":
    main()
