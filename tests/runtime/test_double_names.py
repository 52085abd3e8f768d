"""The double of TensorRT has the names of a version's recorded list, and no others."""

from typing import Any, List

import pytest

from tests.doubles.install import Double, install
from tests.doubles.tensorrt_double.enums import is_enumeration
from tests.doubles.tensorrt_double.names import VERSIONS, missing, read_names
from tests.doubles.tensorrt_double.strict import native
from tests.runtime.double_rig import Rig, logger_of

ALL_VERSIONS = ("8.2.1", "8.4.1", "8.5.2", "8.6.1", "10.0.1", "10.3.0", "10.13.3.9")
# pybind11 exports these of ILogger.Severity, which the older lists have as a class of its own.
OF_LOGGERS = {"Severity", "INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"}


@pytest.fixture(params=ALL_VERSIONS)
def double(request: Any, monkeypatch: pytest.MonkeyPatch) -> Double:
    return install(monkeypatch, request.param)


def public(cls: Any) -> List[str]:
    return [name for name in dir(cls) if not name.startswith("_")]


def test_every_class_has_exactly_its_listed_names(double: Double) -> None:
    for name, listed in read_names(double.version)[0].items():
        if name == "Severity":
            continue
        allowed = {one for one in listed if not one.startswith("_")} | (OF_LOGGERS if "Logger" in name else set())
        cls = getattr(double.tensorrt, name)
        if name != "IHostMemory":  # bytes underneath: its instances are checked
            assert set(public(cls)) == allowed, name
        assert not hasattr(cls, "made_up")


def test_the_module_has_only_classes_and_the_names_of_every_version(double: Double) -> None:
    classes, module = read_names(double.version)
    common = {"float32", "float16", "int8", "int32", "bool", "nptype", "volume", "init_libnvinfer_plugins"}
    rest = set(public(double.tensorrt)) - set(classes) - set(module) - common
    assert rest <= {"get_plugin_registry", "get_nv_onnx_parser_version", "get_builder_plugin_registry"}
    assert double.tensorrt.__version__.startswith(double.version[:5])
    assert double.tensorrt.volume((2, 3)) == 6
    assert double.tensorrt.nptype(double.tensorrt.float16).__name__ == "float16"


@pytest.mark.parametrize(
    ("version", "cls", "name", "there"),
    [
        ("8.2.1", "IBuilderConfig", "set_memory_pool_limit", False),
        ("8.4.1", "IBuilderConfig", "set_memory_pool_limit", True),
        ("8.2.1", "ICudaEngine", "num_io_tensors", False),
        ("8.5.2", "ICudaEngine", "num_io_tensors", True),
        ("8.5.2", "ICudaEngine", "num_bindings", True),
        ("10.3.0", "ICudaEngine", "num_bindings", False),
        ("10.3.0", "IBuilderConfig", "max_workspace_size", False),
        ("10.0.1", "ICudaEngine", "device_memory_size_v2", False),
        ("10.3.0", "ICudaEngine", "device_memory_size_v2", True),
        ("8.6.1", "BuilderFlag", "STRICT_TYPES", True),
        ("10.0.1", "BuilderFlag", "STRICT_TYPES", False),
        ("8.2.1", "DataType", "UINT8", False),
        ("8.6.1", "DataType", "BF16", False),
        ("10.0.1", "DataType", "INT64", True),
    ],
)
def test_hasattr_tells_the_versions_apart(
    monkeypatch: pytest.MonkeyPatch, version: str, cls: str, name: str, there: bool
) -> None:
    assert hasattr(getattr(install(monkeypatch, version).tensorrt, cls), name) is there


def test_unlisted_names_can_neither_be_read_nor_set(monkeypatch: pytest.MonkeyPatch) -> None:
    double = install(monkeypatch, "8.2.1")
    rig = Rig(double)
    config = rig.trt.Builder(rig.logger).create_builder_config()
    things = (
        rig.engine,
        rig.context,
        config,
        rig.trt.ICudaEngine,
        rig.trt.DataType,
        rig.trt.DataType.FLOAT,
        rig.trt.Dims(),
    )
    for thing in things:
        with pytest.raises(AttributeError):
            thing.made_up  # noqa: B018 - reading is the test
        with pytest.raises(AttributeError):
            thing.made_up = 1
    with pytest.raises(AttributeError):
        rig.context.set_input_shape("x", (1,))
    with pytest.raises(AttributeError):
        rig.engine.num_bindings = 3
    with pytest.raises(AttributeError):
        rig.engine.serialize = None
    with pytest.raises(AttributeError):
        rig.trt.made_up  # noqa: B018 - reading is the test
    del things, thing
    rig.close()
    double.assert_all_freed()


def test_a_logger_of_ones_own_may_have_names_of_its_own(double: Double) -> None:
    logger = logger_of(double.tensorrt)
    logger.anything = 1
    assert logger.anything == 1


def test_what_the_double_does_not_do_says_so_when_used(double: Double) -> None:
    trt = double.tensorrt
    config = trt.Builder(logger_of(trt)).create_builder_config()
    assert hasattr(config, "set_device_type")
    with pytest.raises(NotImplementedError, match=r"IBuilderConfig\.set_device_type"):
        config.set_device_type(None, None)
    with pytest.raises(NotImplementedError, match=r"IBuilderConfig\.int8_calibrator"):
        config.int8_calibrator = None
    with pytest.raises(NotImplementedError, match=r"IBuilderConfig\.default_device_type"):
        bool(config.default_device_type)
    with pytest.raises(NotImplementedError, match="Refitter"):
        trt.Refitter(None, None)
    with pytest.raises(NotImplementedError, match="get_plugin_registry"):
        trt.get_plugin_registry()


def test_every_listed_member_is_done_or_says_that_it_is_not(double: Double) -> None:
    for name, listed in read_names(double.version)[0].items():
        if name not in ("Severity", "IHostMemory") and not is_enumeration(listed):
            assert native(getattr(double.tensorrt, name)) is getattr(double.tensorrt, name)


def test_enumerations_behave_as_pybind11_makes_them(double: Double) -> None:
    trt = double.tensorrt
    severity = trt.ILogger.Severity
    assert trt.ILogger.ERROR is severity.ERROR is trt.Logger.ERROR
    assert severity.ERROR < severity.WARNING
    assert severity.ERROR == 1
    assert int(trt.DataType.HALF) == 1
    assert trt.DataType(1) is trt.DataType.HALF
    assert trt.DataType.HALF != 1, "not an arithmetic one"
    with pytest.raises(TypeError):
        trt.DataType.HALF < trt.DataType.INT8  # noqa: B015 - comparing is the test
    assert 1 << int(trt.BuilderFlag.FP16) == 1
    assert str(trt.DataType.HALF) == "DataType.HALF"
    assert len({trt.DataType.HALF, trt.DataType.HALF}) == 1
    assert hasattr(trt.DataType.HALF, "name") is (double.version not in ("8.2.1", "8.4.1", "8.5.2"))
    assert set(trt.DataType.__members__) >= {"FLOAT", "HALF", "INT8", "INT32", "BOOL"}


def test_shapes_are_sequences_but_no_tuples(double: Double) -> None:
    dims = double.tensorrt.Dims((1, 2, 3))
    assert tuple(dims) == (1, 2, 3)
    assert len(dims) == 3
    assert dims[-1] == 3
    assert str(dims) == "(1, 2, 3)"
    assert not isinstance(dims, tuple)
    with pytest.raises(TypeError):
        hash(dims)


def test_the_log_of_touched_names_holds_what_was_used_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    double = install(monkeypatch, "8.2.1")
    trt = double.tensorrt
    assert double.touched == set()
    builder = trt.Builder(logger_of(trt))
    builder.create_builder_config().max_workspace_size = 1
    hasattr(builder, "max_threads")
    assert double.touched == {
        ("tensorrt", "Builder"),
        ("tensorrt", "ILogger"),
        ("Builder", "create_builder_config"),
        ("IBuilderConfig", "max_workspace_size"),
    }


def test_without_the_recorded_lists_a_test_is_skipped_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr("tests.doubles.tensorrt_double.names.RECORDED", tmp_path)
    assert "WENET_RECORDED_DATA" in missing(VERSIONS[0])
    with pytest.raises(pytest.skip.Exception, match=r"no recorded list of TensorRT 8\.2\.1"):
        install(monkeypatch, "8.2.1")
