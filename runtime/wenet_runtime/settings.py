"""Every setting of the daemon, declared once: flags, WENET_* variables and TOML keys derive from here.

Precedence: flag > environment > `--config` TOML > user TOML > system TOML > default.
"""

import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple, Type

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from wenet_runtime.errors import SettingsError
from wenet_runtime.settings_sources import check_lists, read_toml, variable_of, wrong_value

SYSTEM_TOML = Path("/etc/wenet/runtime.toml")
CONFIG = "WENET_CONFIG"  # the variable of `--config`


def _user_dir(variable: str, fallback: str) -> Path:
    return Path(os.environ.get(variable) or str(Path.home() / fallback)) / "wenet"


class Settings(BaseSettings):
    """The daemon's settings. Frozen; a value's range is checked here and nowhere else."""

    model_config = SettingsConfigDict(env_prefix="WENET_", extra="forbid", frozen=True)

    bundle: Path = Field(default=Path("bundle"), description="directory of the exported bundle")
    budget_ms: Optional[float] = Field(
        default=None, ge=0.001, le=600_000, description="end-to-end latency budget of requests that bring none, ms"
    )
    budget_mj: Optional[float] = Field(
        default=None, ge=0.001, le=1_000_000, description="energy budget of requests that bring none, mJ per row"
    )
    min_accuracy: Optional[float] = Field(
        default=None, ge=0, le=1, description="accuracy floor of requests that bring none, 0-1"
    )
    mode: Optional[str] = Field(default=None, description="pin one mode for requests that pin none")
    on_miss: str = Field(
        default="degrade", pattern="^(degrade|reject|late)$", description="when nothing fits: degrade, reject or late"
    )
    priority: int = Field(default=2, ge=1, le=3, description="priority of requests that bring none: 1 (first) to 3")
    attainment: float = Field(
        default=0.99, gt=0, lt=1, description="probability with which a chosen mode must finish in time"
    )
    power_w: Optional[float] = Field(
        default=None, gt=0, le=100_000, description="average power of the whole board that holds over a window, W"
    )
    power_window_s: float = Field(default=60.0, ge=1, le=86_400, description="window of --power-w, s")
    energy_wh: Optional[float] = Field(
        default=None, gt=0, le=1e6, description="energy that shall last for --hours from the start, Wh"
    )
    hours: Optional[float] = Field(default=None, gt=0, le=100_000, description="how long --energy-wh shall last")
    idle_w: Optional[float] = Field(
        default=None, ge=0, le=100_000, description="what the idle board draws, W; asked of the meter if not given"
    )
    cascade: bool = Field(default=False, description="try the cheaper modes first that the bundle is calibrated for")
    max_batch_rows: int = Field(
        default=8, ge=1, le=1024, description="rows of requests that may run together where the profile says it pays"
    )
    max_delay_ms: float = Field(
        default=0.0, ge=0, le=10_000, description="how long a request may wait for company in a batch, ms"
    )
    decision_log: Optional[Path] = Field(
        default=None, description="file of JSON lines that tells every decision; read it with `wenet-runtime explain`"
    )
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    engine: str = Field(
        default="ort",
        description="engine that runs the modes: ort, openvino, trt (TensorRT), ort-cuda, ort-tensorrt, "
        "auto (the quickest CPU engine here), sim (simulated)",
    )
    threads: int = Field(
        default=1, ge=0, le=256, description="threads of one inference; 0 measures what is best for each mode"
    )
    tune: bool = Field(default=True, description="measure how layers are best computed here before modes are built")
    engine_core: Optional[int] = Field(default=None, ge=0, description="pin the engine thread to this core")
    memory_mb: Optional[float] = Field(
        default=None,
        gt=0,
        le=1e9,
        description="what resident modes may take, MB: the fastest stays, others come and go; all stay if not given",
    )
    fp32_layers: List[str] = Field(
        default_factory=list,
        description="layers that TensorRT computes in fp32, by name with * and ?; may be repeated",
    )
    meter: str = Field(
        default="auto",
        description="source of watts: auto (the first that is here), ina3221, tegrastats, nvml, rapl, "
        "jtop (AGPL, see deploy/README.md), none, sim (simulated)",
    )
    power_rail: Optional[str] = Field(
        default=None,
        min_length=1,
        description="rail that is the whole board, or rails to be added as A+B; by the board's kind if not given",
    )
    require_power: bool = Field(
        default=False, description="judge energy budgets by a meter alone: refuse them where there is none"
    )
    cache_dir: Path = Field(
        default_factory=lambda: _user_dir("XDG_CACHE_HOME", ".cache"),
        description="where this device's engines and profiles are kept",
    )
    profile_rounds: int = Field(
        default=200, ge=10, le=100_000, description="runs of each mode when the device is profiled at the first start"
    )
    max_queue: int = Field(default=64, ge=1, le=100_000, description="how many requests may wait")
    max_connections: int = Field(
        default=256, ge=1, le=10_000, description="how many connections may be open; idle and slow ones give way"
    )
    drain_delay_s: float = Field(default=0.0, ge=0, le=600, description="seconds of further service after SIGTERM")
    drain_timeout_s: float = Field(default=30.0, ge=0, le=3600, description="seconds for accepted work to finish")
    allowed_host: List[str] = Field(
        default_factory=list, description="further Host names taken on a loopback address; may be repeated"
    )
    rate_limit: Optional[float] = Field(
        default=None,
        gt=0,
        le=1e6,
        description="inferences a second that one token, or one address without tokens, may ask for; any if not given",
    )
    trust_proxy_headers: bool = Field(
        default=False, description="take a proxy's deadline from x-envoy-expected-rq-timeout-ms"
    )
    token_file: Optional[Path] = Field(
        default=None,
        description="file of tokens that requests must bring, one a line, readable by its owner only; "
        "'infer:TOKEN' keeps one from /admin",
    )
    bundle_root: Optional[Path] = Field(
        default=None,
        description="folder that other bundles may come from while the server runs; that of --bundle if not given",
    )
    admin_bind: Optional[str] = Field(
        default=None,
        min_length=1,
        description="address of /admin alone, unix:PATH or HOST:PORT; that of all else if not given",
    )
    log_format: str = Field(
        default="auto", pattern="^(auto|text|json)$", description="log lines' form; auto: text on a terminal, else json"
    )
    access_log_every: int = Field(
        default=100, ge=0, le=10**9, description="log one of so many answered requests and all others; 0 logs none"
    )
    otel: bool = Field(default=False, description="trace requests with OpenTelemetry, as its OTEL_* variables say")
    otel_endpoint: Optional[str] = Field(
        default=None,
        pattern=r"^https?://[^\s/]\S*$",
        description="the same, to the collector at this address, e.g. http://127.0.0.1:4318",
    )
    tls_cert: Optional[Path] = Field(default=None, description="PEM file of the certificate and its chain: serve HTTPS")
    tls_key: Optional[Path] = Field(default=None, description="PEM file of the certificate's key")
    verify_key: Optional[Path] = Field(
        default=None,
        description="PEM file of an Ed25519 public key: only bundles that are signed with it are served",
    )
    insecure_no_auth: bool = Field(
        default=False, description="listen on other than loopback addresses without a token file"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("true and false are for settings that are on or off: give a value")
        return value

    @field_validator("host")
    @classmethod
    def _host_not_empty(cls, value: str) -> str:
        if not value:
            raise ValueError("empty; give 127.0.0.1 for this machine only")
        return value

    @model_validator(mode="after")
    def _go_together(self) -> "Settings":
        if (self.energy_wh is None) != (self.hours is None):
            raise ValueError("--energy-wh and --hours go together: give both, or --power-w")
        if self.admin_bind is not None and self.token_file is None:
            raise ValueError("--admin-bind opens nothing without --token-file: /admin always needs a token")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("--tls-cert and --tls-key go together: give both")
        if self.power_w is not None and self.energy_wh is not None:
            raise ValueError("--power-w and --energy-wh are two budgets for one thing: give one of them")
        return self


def load_settings(flags: Mapping[str, Any], *, config: Optional[Path] = None) -> Settings:
    """Join flags, environment and TOML files.

    Args:
        flags: settings given on the command line, those not given left out.
        config: a TOML file that must exist; that of the variable `WENET_CONFIG` if not given.

    Raises:
        SettingsError: an unknown key, an impossible value, values that contradict each other, or an unreadable file;
            names which.
    """
    check_lists((name for name, field in Settings.model_fields.items() if field.annotation == List[str]), os.environ)
    from_files: Dict[str, Any] = {}
    for _, values in toml_files(config):
        from_files.update(values)

    class Joined(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: Type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> Tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=from_files)

    try:
        return Joined(**flags)
    except ValidationError as error:
        descriptions = {name: str(field.description) for name, field in Settings.model_fields.items()}
        raise SettingsError(wrong_value(error, origins(flags, config, os.environ), descriptions)) from None


def origins(flags: Mapping[str, Any], config: Optional[Path], environment: Mapping[str, str]) -> Dict[str, str]:
    """Where the value of each setting comes from, by its name. Raises `SettingsError` of a bad file."""
    found = dict.fromkeys(Settings.model_fields, "default")
    for path, values in toml_files(config):
        found.update(dict.fromkeys(values, f"file {path}"))
    for name in found:
        variable = variable_of(name, environment)
        if variable is not None:
            found[name] = f"environment {variable}"
    found.update({name: f"flag --{name.replace('_', '-')}" for name in flags})
    return found


def toml_files(config: Optional[Path]) -> Iterator[Tuple[Path, Dict[str, Any]]]:
    """The TOML files that are read and what stands in each; a later one counts more. Raises `SettingsError`."""
    if config is None and os.environ.get(CONFIG):
        config = Path(os.environ[CONFIG])
    for path in (SYSTEM_TOML, _user_dir("XDG_CONFIG_HOME", ".config") / "runtime.toml", config):
        if path is not None and (path is config or _is_there(path)):
            yield path, read_toml(path, Settings.model_fields)


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except PermissionError:
        if path == SYSTEM_TOML:
            raise SettingsError(f"'{path}' may not be read by this user: let its folder be entered") from None
        return False  # a service may run with a home that is another's
