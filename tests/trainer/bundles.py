"""Bundles made from the small test bundle, and what their modes must answer."""

import dataclasses

from tests.supernets import run, safetensors
from wenet_runtime.bundle import GOLDEN, Bundle
from wenet_runtime.bundle_files import write_bundle
from wenet_runtime.materialize import Supernet, materialize


def changed(bundle, path, files=(), **members):
    """The bundle with other files and members of its manifest, verified as any."""
    kept = {name: (bundle.path / name).read_bytes() for name in bundle.manifest.files}
    write_bundle(path, dataclasses.replace(bundle.manifest, **members), {**kept, **dict(files)})
    return Bundle(path)


def reference(bundle, mode, inputs):
    """The mode's answers by the topology as it stands: batch norms and shuffles run as operators."""
    plain = materialize(Supernet.of(bundle), mode.groups, bundle.statistics(mode), fold=False)
    return run(plain, inputs)


def with_golden(bundle, path, change):
    golden = bundle.golden()
    change(golden)
    return changed(bundle, path, {GOLDEN: safetensors(golden)})
