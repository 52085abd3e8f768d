"""Every setting is declared once; flag > environment > --config > user's TOML > default."""

from pathlib import Path
from typing import Any, Dict

import pytest
import typer.main

from wenet_runtime.cli.commands import app
from wenet_runtime.errors import SettingsError
from wenet_runtime.settings import Settings, load_settings


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def user_toml(tmp_path: Path) -> Path:
    """Where the user's own settings lie (see `clean_environment`)."""
    return tmp_path / "xdg-config" / "wenet" / "runtime.toml"


def test_without_anything_the_defaults_hold(tmp_path: Path) -> None:
    settings = load_settings({})
    assert (settings.host, settings.port, settings.bundle) == ("127.0.0.1", 8000, Path("bundle"))
    assert (settings.budget_ms, settings.on_miss, settings.attainment) == (None, "degrade", 0.99)
    assert settings.cache_dir == tmp_path / "xdg-cache" / "wenet"
    assert not settings.insecure_no_auth


def test_the_nearer_source_wins(tmp_path: Path, user_toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def budget_ms(flags: Dict[str, Any]) -> Any:
        return load_settings(flags, config=config).budget_ms

    config = None
    monkeypatch.setattr("wenet_runtime.settings.SYSTEM_TOML", write(tmp_path / "system.toml", "budget_ms = 1"))
    assert budget_ms({}) == 1
    write(user_toml, "budget_ms = 2")
    assert budget_ms({}) == 2
    config = write(tmp_path / "given.toml", "budget_ms = 3")
    assert budget_ms({}) == 3
    monkeypatch.setenv("WENET_BUDGET_MS", "4")
    assert budget_ms({}) == 4
    assert budget_ms({"budget_ms": 5.0}) == 5


def test_sources_join_key_by_key(tmp_path: Path, user_toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(user_toml, 'port = 1\nallowed_host = ["board"]')
    monkeypatch.setenv("WENET_ENGINE", "sim")
    settings = load_settings({"threads": 2}, config=write(tmp_path / "c.toml", "max_queue = 3"))
    found = (settings.port, settings.allowed_host, settings.engine, settings.threads, settings.max_queue)
    assert found == (1, ["board"], "sim", 2, 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("budget_mss = 5", "unknown key 'budget_mss': did you mean 'budget_ms'"),
        ("zzzzzz = 5", "unknown key 'zzzzzz': known are bundle, budget_ms"),
        ("budget_ms = ", "is no TOML"),
        ("budget_ms = 0", r"--budget-ms \(WENET_BUDGET_MS\) is 0, from file .*c.toml: Input should be"),
        ("budget_ms = 'abc'", r"is 'abc', from file .*c.toml: Input should be a valid number"),
        ("budget_ms = true", r"is True, from file .*c.toml: true and false are for settings that are on or off"),
        ("port = false", r"is False, from file .*c.toml: true and false are"),
        ("on_miss = 'foo'", "is 'foo', from file .*c.toml: choose one of degrade, reject, late$"),
        ("otel_endpoint = 'here'", "is 'here', from file .*c.toml: it is the same, to the collector at"),
    ],
)
def test_a_bad_file_is_refused_with_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load_settings({}, config=write(tmp_path / "c.toml", text))


def test_a_file_that_is_no_utf_8_is_refused_with_the_place(tmp_path: Path) -> None:
    (tmp_path / "u.toml").write_bytes(b"port = 1 # \xff")
    with pytest.raises(SettingsError, match=r"u\.toml is no TOML: byte 11 is no UTF-8; save it as UTF-8"):
        load_settings({}, config=tmp_path / "u.toml")


def test_the_file_may_be_named_by_a_variable_and_a_flag_counts_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WENET_CONFIG", str(write(tmp_path / "a.toml", "port = 1")))
    assert load_settings({}).port == 1
    assert load_settings({}, config=write(tmp_path / "b.toml", "port = 2")).port == 2
    monkeypatch.setenv("WENET_CONFIG", "nowhere.toml")
    with pytest.raises(SettingsError, match=r"cannot read nowhere\.toml"):
        load_settings({})


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read .*nowhere.toml: No such file"):
        load_settings({}, config=tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("budget_ms", 0.0),
        ("budget_ms", 600_001.0),
        ("budget_ms", float("nan")),
        ("budget_ms", float("inf")),
        ("budget_mj", -1.0),
        ("min_accuracy", 1.1),
        ("on_miss", "ignore"),
        ("attainment", 1.0),
        ("host", ""),
        ("port", 65536),
        ("threads", -1),
        ("memory_mb", 0.0),
        ("memory_mb", float("nan")),
        ("max_queue", 0),
        ("max_connections", 0),
        ("drain_timeout_s", -1.0),
        ("profile_rounds", 9),
        ("log_format", "xml"),
        ("access_log_every", -1),
        ("otel_endpoint", "127.0.0.1:4318"),
    ],
)
def test_a_value_out_of_range_is_refused_by_flag_and_variable(name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=rf"--{name.replace('_', '-')} \(WENET_{name.upper()}\) is "):
        load_settings({name: value})


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"energy_wh": 10.0}, "--energy-wh and --hours go together: give both, or --power-w"),
        ({"hours": 10.0}, "--energy-wh and --hours go together: give both, or --power-w"),
        (
            {"power_w": 5.0, "energy_wh": 10.0, "hours": 2.0},
            "--power-w and --energy-wh are two budgets for one thing: give one of them",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused_before_anything_is_built(
    flags: Dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(flags)
    assert str(refused.value) == said


def test_settings_of_several_sources_can_contradict_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WENET_HOURS", "2")
    with pytest.raises(SettingsError, match="go together"):
        load_settings({"power_w": 5.0})
    assert load_settings({"energy_wh": 5.0}).hours == 2


def test_a_folder_that_may_not_be_entered_holds_no_settings_of_this_user(
    tmp_path: Path, user_toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = {str(user_toml)}
    is_file = Path.is_file

    def looked(path: Path) -> bool:
        if str(path) in closed:
            raise PermissionError(13, "Permission denied")
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", looked)
    assert load_settings({}).port == 8000
    closed.add(str(tmp_path / "no-system.toml"))
    with pytest.raises(SettingsError, match=r"no-system\.toml' may not be read by this user"):
        load_settings({})


def test_a_variable_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WENET_PORT", "http")
    with pytest.raises(SettingsError, match=r"WENET_PORT\) is 'http', from environment WENET_PORT: "):
        load_settings({})


@pytest.mark.parametrize("name", ["WENET_ALLOWED_HOST", "wenet_fp32_layers"])
def test_a_variable_that_should_be_a_list_says_how_one_is_given(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("a,b", "", '"a"', "[1]"):
        monkeypatch.setenv(name, value)
        with pytest.raises(SettingsError) as refused:
            load_settings({})
        said = f"""{name} is {value!r}, which is no JSON list of texts: give {name}='["one", "two"]'"""
        assert str(refused.value) == said
    monkeypatch.setenv(name, '["one", "two"]')
    assert getattr(load_settings({}), name[6:].lower()) == ["one", "two"]


def test_settings_do_not_change_once_loaded() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings({}).port = 1  # type: ignore[misc]


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_has_a_description_and_a_flag(name: str) -> None:

    assert Settings.model_fields[name].description
    command = typer.main.get_command(app)
    flags = {option for parameter in command.params for option in parameter.opts}
    assert "--" + name.replace("_", "-") in flags
