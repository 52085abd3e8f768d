"""`wenet-runtime settings`: every value, and where it comes from."""

import json
from pathlib import Path
from typing import Any

import pytest

from wenet_runtime.cli.settings_shown import misspelt
from wenet_runtime.settings import Settings, origins


def shown(found: Any, name: str) -> Any:
    one = json.loads(found.stdout)[name]
    return one["value"], one["from"]


def test_each_value_names_the_source_that_counted(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, user, given = tmp_path / "system.toml", tmp_path / "xdg-config" / "wenet" / "runtime.toml", "given.toml"
    user.parent.mkdir(parents=True)
    system.write_text("threads = 2\nport = 1\nmax_queue = 3\nmeter = 'sim'\nhost = 'localhost'")
    user.write_text("port = 2\nmax_queue = 4\nmeter = 'none'\nhost = '::1'")
    (tmp_path / given).write_text("max_queue = 5\nmeter = 'rapl'\nhost = '127.0.0.2'")
    monkeypatch.setattr("wenet_runtime.settings.SYSTEM_TOML", system)
    monkeypatch.setenv("WENET_METER", "auto")
    monkeypatch.setenv("wenet_host", "127.0.0.3")
    found = command("settings", "--json", "--host", "127.0.0.4", "--config", given)
    assert found.exit_code == 0
    assert shown(found, "on_miss") == ("degrade", "default")
    assert shown(found, "threads") == (2, f"file {system}")
    assert shown(found, "port") == (2, f"file {user}")
    assert shown(found, "max_queue") == (5, f"file {given}")
    assert shown(found, "meter") == ("auto", "environment WENET_METER")
    assert shown(found, "host") == ("127.0.0.4", "flag --host")


def test_a_variable_counts_in_any_case_of_letters() -> None:
    assert origins({}, None, {"wenet_host": "x"})["host"] == "environment wenet_host"


def test_every_setting_is_shown_for_a_person_too(command: Any) -> None:
    found = command("settings", "--budget-ms", "50", "--allowed-host", "a", "--allowed-host", "b", "--cascade")
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in found.stdout.splitlines()}
    assert set(rows) == set(Settings.model_fields)
    assert rows["budget_ms"] == "50.0 flag --budget-ms"
    assert rows["allowed_host"] == "a, b flag --allowed-host"
    assert rows["cascade"] == "yes flag --cascade"
    assert rows["budget_mj"] == "not given default"


def test_a_token_is_never_shown_only_where_it_lies(command: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("sesame-open-up-now\n")
    found = command("settings", "--token-file", "token", "--json")
    assert shown(found, "token_file") == ("token", "flag --token-file")
    assert "sesame" not in found.stdout + found.stderr


def test_a_variable_that_is_nearly_a_setting_is_told(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WENET_BUGDET_MS", "5")
    found = command("settings")
    assert (
        found.stderr
        == "warning: the environment has WENET_BUGDET_MS, which is no setting: did you mean WENET_BUDGET_MS?\n"
    )
    monkeypatch.setattr("wenet_runtime.service.doctor.examine", lambda settings: [])
    assert command("doctor").stderr == found.stderr
    assert (
        misspelt(
            {"WENET_URL": "x", "WENET_CONFIG": "x", "WENET_BUDGET_MS": "1", "WENETTY": "1", "WENET_SOMETHING_ELSE": "x"}
        )
        == []
    )


def test_values_that_cannot_be_exit_2(command: Any, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("budget_mss = 5")
    for words in (["--config", "c.toml"], ["--budget-ms", "0"], ["--hours", "2"]):
        found = command("settings", *words)
        assert (found.exit_code, found.stdout) == (2, "")
