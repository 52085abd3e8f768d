"""What all of ONNX Runtime's engines share: its import without telemetry, its failures, sessions' plain options."""

import os
from typing import Tuple, Type

# Newer versions write a device's identity into the user's cache, and could report it, unless they are told
# not to before they are imported. What a device does is its owner's business; a setting of theirs stands.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as onnxruntime  # taken from here by the engines, so that none imports it untold

# ONNX Runtime raises exceptions of its own C++ module, which share no base but Exception's children.
FAILURES: Tuple[Type[Exception], ...] = (
    RuntimeError,
    ValueError,
    TypeError,
    KeyError,
    *(
        getattr(onnxruntime.capi.onnxruntime_pybind11_state, name)
        for name in (
            "Fail",
            "InvalidArgument",
            "InvalidGraph",
            "InvalidProtobuf",
            "NoSuchFile",
            "NotImplemented",
            "RuntimeException",
            "EngineError",
            "ModelLoaded",
            "EPFail",
        )
        if hasattr(onnxruntime.capi.onnxruntime_pybind11_state, name)
    ),
)


def plain_options(threads: int) -> "onnxruntime.SessionOptions":
    """Options of a session that runs alone: so many threads of its own, none that spins, errors only in the log."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A spinning worker steals the time that a small device has for the rest of the request.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def expect_numbers_outside(options: "onnxruntime.SessionOptions") -> None:
    """The model says that its numbers lie in a file, `ort_build.PLACEHOLDER`, and gets them in memory instead.

    Newer versions want to see that file all the same.
    """
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path",
        os.path.dirname(os.devnull),  # noqa: PTH120
    )
