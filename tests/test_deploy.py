"""What deploy/ and Dockerfile.jetson promise, as far as a machine that is no Jetson can tell.

Linters that are not installed are skipped here; `make check-images` brings them.
"""

import fnmatch
import grp
import http.server
import json
import os
import re
import shlex
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.dockerfile import Stage, stages
from tests.runtime.sysfs_trees import nano
from tests.supernets import write_test_bundle
from tests.test_repository import ROOT
from wenet_runtime.board import MODEL_VARIABLE
from wenet_runtime.service.tokens import check_file, read_tokens
from wenet_runtime.settings import Settings, load_settings

DEPLOY = ROOT / "deploy"
README = (DEPLOY / "README.md").read_text()
JETSON = DEPLOY / "jetson"
SCRIPTS = sorted(JETSON.glob("*.sh"))
STAGES = stages((ROOT / "Dockerfile.jetson").read_text())
UID = 10001
IMAGES = {  # the two argument sets
    "nano": {"BASE": "nvcr.io/nvidia/l4t-tensorrt:r8.2.1-runtime", "PY": "3.8", "TRT_BINDINGS": "oss"},
    "orin": {"BASE": "nvcr.io/nvidia/l4t-jetpack:r36.4.0", "PY": "3.10", "TRT_BINDINGS": "system"},
}
KNOWN = {f"WENET_{name.upper()}" for name in Settings.model_fields} | {MODEL_VARIABLE}
FLAGS = {"--" + name.replace("_", "-") for name in Settings.model_fields}


def tool(name: str) -> str:
    """A linter's path; skips where there is none."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} here: `make check-images` installs it")
    return found


def stage(name: str) -> Stage:
    return next(one for one in STAGES if one.name == name)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No WENET_* variable and no user's cache or settings reaches a test."""
    for name in [name for name in os.environ if name.startswith("WENET_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg-cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg-config"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("deploy") / "bundle"
    write_test_bundle(path)
    return path


# --- Dockerfile.jetson ------------------------------------------------------------------------------------------------


def test_the_dockerfile_is_clean_to_hadolint() -> None:
    done = subprocess.run([tool("hadolint"), ROOT / "Dockerfile.jetson"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_run_instruction_is_clean_to_shellcheck(tmp_path: Path) -> None:
    shellcheck = tool("shellcheck")
    for one in STAGES:
        declared = "".join(f'{name}="$1"\n' for name in one.arguments)
        for number, instruction in enumerate(one.of("RUN")):
            script = tmp_path / f"{one.name}-{number}.sh"
            script.write_text(f"#!/bin/sh\n# shellcheck disable=SC2034\n{declared}{instruction.text}\n")
            done = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout


def test_there_are_three_stages_and_the_last_holds_no_compiler() -> None:
    assert [one.name for one in STAGES] == ["", "base", "wheels", "final"]
    assert [one.base for one in STAGES[1:]] == ["${BASE}", "base", "base"]
    compilers = re.compile(r"build-essential|cmake|-dev\b|apt-get")
    assert compilers.search(" ".join(one.text for one in stage("wheels").of("RUN")))
    assert not compilers.search(" ".join(one.text for one in stage("final").of("RUN")))
    assert [one.text for one in stage("final").of("COPY")] == ["--from=wheels /opt/wenet /opt/wenet"]


def test_a_stage_declares_every_argument_that_it_uses_and_the_defaults_are_the_nano_s() -> None:
    declared: dict[str, str] = {}
    for one in STAGES[1:]:
        texts = " ".join(instruction.text for instruction in one.instructions if instruction.word == "RUN")
        used = set(re.findall(r"\$\{(PY|TRT_BINDINGS|JOBS)\b", texts))
        assert used <= set(one.arguments), one.name
        declared.update(one.arguments)
    declared["BASE"] = STAGES[0].arguments["BASE"]
    assert {name: declared[name] for name in IMAGES["nano"]} == IMAGES["nano"]


@pytest.mark.parametrize("text", [README, (ROOT / "Dockerfile.jetson").read_text()], ids=["README", "Dockerfile"])
def test_the_orin_s_arguments_are_the_documented_ones(text: str) -> None:
    joined = re.sub(r"\\\n#?\s*", " ", text)
    build = next(line for line in joined.splitlines() if "docker build" in line and "--build-arg" in line)
    assert dict(re.findall(r"--build-arg (\w+)=(\S+)", build)) == IMAGES["orin"]


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_the_install_lines_name_a_constraints_file_that_is_there_and_pins_pycuda(image: dict[str, str]) -> None:
    text = " ".join(one.text for one in stage("wheels").of("RUN"))
    names = set(re.findall(r'"(constraints-[^"]+)"', text))
    assert len(names) == 1
    script = f"grep '^pycuda==' \"{names.pop()}\""
    done = subprocess.run(
        ["sh", "-c", script], cwd=ROOT, env={"PY": image["PY"]}, capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"pycuda==[\d.]+\n", done.stdout)


def test_what_is_copied_is_in_the_repository_and_reaches_the_build() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    for one in STAGES:
        for instruction in one.of("COPY"):
            if "--from=" in instruction.text:
                continue
            for name in instruction.words[:-1]:
                assert (ROOT / name).exists(), name
                reached = False
                for pattern in ignored:  # the last that matches decides
                    bare = pattern.lstrip("!")
                    if fnmatch.fnmatch(name, bare) or name.startswith(f"{bare}/"):
                        reached = pattern.startswith("!")
                assert reached, f"{name} is kept out by .dockerignore"


def test_the_image_runs_as_nobody_and_every_variable_that_it_sets_is_a_setting() -> None:
    final = stage("final")
    made = " ".join(one.text for one in final.of("RUN"))
    assert final.of("USER")[-1].text == str(UID)
    assert f"--uid {UID} " in made
    settings = dict(re.findall(r"\b(WENET_\w+)=(\S+)", final.of("ENV")[0].text))
    assert set(settings) <= KNOWN
    assert settings == {
        "WENET_ENGINE": "trt",
        "WENET_METER": "auto",
        "WENET_CACHE_DIR": "/var/cache/wenet",
        "WENET_BUNDLE": "/bundle",
    }
    assert final.of("VOLUME")[0].text == settings["WENET_CACHE_DIR"]
    assert f"-m 0700 {settings['WENET_CACHE_DIR']}" in made
    assert final.of("ENTRYPOINT")[0].listed == ["wenet-runtime"]


def test_nvidia_s_tegrastats_is_not_in_the_image() -> None:
    assert "tegrastats" not in " ".join(one.text for part in STAGES for one in part.instructions)


class Ready(http.server.BaseHTTPRequestHandler):
    """Answers as the daemon's readiness does."""

    status = 200

    def do_GET(self) -> None:
        assert self.path == "/v2/health/ready"
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *parts: Any) -> None:
        """Nothing."""


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_healthcheck_asks_whether_the_daemon_is_ready(
    status: int, healthy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ready, "status", status)
    interpreter, option, code = stage("final").of("HEALTHCHECK")[0].listed
    assert (interpreter, option) == ("/opt/wenet/bin/python", "-c")
    port = re.search(r":(\d+)/", code)
    assert port is not None
    assert port.group(1) == stage("final").of("EXPOSE")[0].text == str(Settings().port)
    with http.server.HTTPServer(("127.0.0.1", 0), Ready) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        code = code.replace(port.group(0), f":{server.server_port}/")
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
        server.shutdown()
    assert (done.returncode == 0) is healthy


# --- scripts ----------------------------------------------------------------------------------------------------------


def test_every_script_is_executable_says_what_it_is_and_is_clean_to_shellcheck() -> None:
    names = ["accept.sh", "build-trt-bindings.sh", "install-headers.sh", "open-rails.sh", "run.sh"]
    assert [path.name for path in SCRIPTS] == names
    for path in SCRIPTS:
        lines = path.read_text().splitlines()
        assert path.stat().st_mode & stat.S_IXUSR, path
        assert lines[0] in ("#!/usr/bin/env bash", "#!/bin/sh")
        assert "NOT YET RUN" in "\n".join(lines[:12]), path
        subprocess.run(["bash", "-n", path], check=True)
    subprocess.run([tool("shellcheck"), *SCRIPTS], check=True)


def script(name: str, *words: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(JETSON / name), *map(str, words)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


def write(path: Path, text: str = "", mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def board(root: Path, *, iio: int | None = None, hwmon: int | None = None, **files: str) -> Path:
    """A host's files: INA3221 of JetPack 4 or 5 with this mode, /etc/group, and others by path."""
    (root / "etc").mkdir(parents=True)
    if iio is not None:
        for name in ("in_power0_input", "in_power1_input"):
            write(root / "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0" / name, "1200\n", iio)
    if hwmon is not None:
        write(root / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/curr1_input", "240\n", hwmon)
    for path, text in files.items():
        write(root / path, text)
    return root


GROUPS = "root:x:0:\nvideo:x:44:nano\n"
ANY_BOARD = {
    "etc/group": GROUPS,
    "etc/nv_tegra_release": "# R32 (release), REVISION: 7.1, GCID: 1, BOARD: t210ref\n",
    "usr/bin/tegrastats": "",
    "sys/kernel/debug/x": "",
    "proc/device-tree/model": "NVIDIA Jetson Nano Developer Kit\0",
}


def dry_run(root: Path, bundle: Path, tmp_path: Path, *words: str) -> tuple[list[str], str]:
    """The command that run.sh would run on that host, and what it said."""
    done = script("run.sh", "--dry-run", "--bundle", bundle, "--token", tmp_path / "token", *words, HOST_ROOT=str(root))
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "token").exists()
    return shlex.split(done.stdout), done.stderr


def of(command: list[str], option: str) -> list[str]:
    return [value for flag, value in zip(command, command[1:], strict=False) if flag == option]


def test_a_nano_whose_rails_are_root_s_runs_as_root_and_says_why(tmp_path: Path, bundle: Path) -> None:
    root = board(tmp_path / "nano", iio=0o600, **ANY_BOARD)
    command, said = dry_run(root, bundle, tmp_path, "--", "--budget-ms", "50")
    token = tmp_path / "token"
    assert command[:3] == ["docker", "run", "-d"]
    assert of(command, "--user") == ["0"]
    assert "only root may read the power rails (/sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0" in said
    assert of(command, "--runtime") == ["nvidia"]
    assert of(command, "-p") == ["8000:8000"]
    assert of(command, "-e") == [f"{MODEL_VARIABLE}=NVIDIA Jetson Nano Developer Kit"]
    assert of(command, "-v") == [
        f"{bundle}:/bundle:ro",
        f"{token}:/run/secrets/wenet-token:ro",
        "wenet-cache-root:/var/cache/wenet",
        "/usr/bin/tegrastats:/usr/bin/tegrastats:ro",
        "/etc/nv_tegra_release:/etc/nv_tegra_release:ro",
        "/sys/kernel/debug:/sys/kernel/debug:ro",
    ]
    served = command[command.index("wenet-runtime") + 1 :]
    assert served == [
        *("--bundle", "/bundle", "--host", "0.0.0.0", "--port", "8000"),
        *("--token-file", "/run/secrets/wenet-token", "--budget-ms", "50"),
    ]
    assert {word for word in served if word.startswith("--")} <= FLAGS
    assert int(of(command, "--stop-timeout")[0]) >= Settings().drain_timeout_s + 10


@pytest.mark.parametrize(
    ("rails", "said"),
    [({"hwmon": 0o444}, "may be read"), ({"iio": 0o644}, "may be read"), ({}, "no INA3221 power rails here")],
    ids=["orin", "nano with chmod o+r", "nano 2GB"],
)
def test_where_everybody_reads_the_rails_or_there_are_none_nobody_is_root(
    rails: dict[str, int], said: str, tmp_path: Path, bundle: Path
) -> None:
    root = board(tmp_path / "board", **rails, **{**ANY_BOARD, "etc/group": f"{GROUPS}render:x:104:\n"})  # type: ignore[arg-type]
    command, why = dry_run(root, bundle, tmp_path)
    assert of(command, "--user") == [str(UID)]
    assert of(command, "--group-add") == ["44", "104"]
    assert of(command, "--cap-drop") == ["ALL"]
    assert "wenet-cache:/var/cache/wenet" in of(command, "-v")
    assert not [mount for mount in of(command, "-v") if "debug" in mount]
    assert said in why


def test_rails_that_a_group_may_read_are_read_by_that_group(tmp_path: Path, bundle: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to another group")
    root = board(tmp_path / "nano", iio=0o440, **ANY_BOARD)
    for path in root.glob("sys/bus/i2c/drivers/ina3221x/*/*/in_power*"):
        os.chown(path, 0, 44)
    command, _ = dry_run(root, bundle, tmp_path)
    assert of(command, "--user") == [str(UID)]
    assert of(command, "--group-add") == ["44"]


def test_one_rail_that_is_closed_is_enough_to_need_root(tmp_path: Path, bundle: Path) -> None:
    root = board(tmp_path / "nano", iio=0o644, **ANY_BOARD)
    next(root.glob("sys/bus/i2c/drivers/ina3221x/*/*/in_power1*")).chmod(0o640)
    assert of(dry_run(root, bundle, tmp_path)[0], "--user") == ["0"]


def test_what_is_not_on_the_host_is_not_mounted(tmp_path: Path, bundle: Path) -> None:
    command, _ = dry_run(board(tmp_path / "bare"), bundle, tmp_path)
    assert len(of(command, "-v")) == 3
    assert of(command, "-e") == of(command, "--group-add") == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--budget-ms", "50"], "options of wenet-runtime stand after --"),
        (["--bundle", "/nowhere"], "no bundle at /nowhere"),
        (["--port"], "--port needs a value"),
    ],
)
def test_run_sh_refuses_what_it_cannot_do_and_says_what_to_do(words: list[str], said: str) -> None:
    done = script("run.sh", "--dry-run", *words)
    assert done.returncode == 2
    assert said in done.stderr


def test_run_sh_makes_a_token_that_the_daemon_inside_takes(tmp_path: Path, bundle: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give the token to the user inside")
    root = board(tmp_path / "board", hwmon=0o444, **ANY_BOARD)
    docker = f'#!/bin/sh\n[ "$1" != inspect ] || exit 1\nprintf "%s\\n" "$@" > {tmp_path}/called\n'
    write(tmp_path / "bin/docker", docker, 0o755)
    words = ("--bundle", bundle, "--token", tmp_path / "token")
    where = {"HOST_ROOT": str(root), "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    assert script("run.sh", *words, **where).returncode == 0
    token = (tmp_path / "token").read_text()
    status = (tmp_path / "token").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (UID, 0o600)
    check_file(tmp_path / "token", status, user=UID)
    os.chown(tmp_path / "token", 0, 0)
    read_tokens(tmp_path / "token")
    assert (tmp_path / "called").read_text().split("\n")[:2] == ["run", "-d"]
    os.chown(tmp_path / "token", 1000, 1000)  # one that its owner made before, for everybody to read
    (tmp_path / "token").chmod(0o644)
    assert script("run.sh", *words, **where).returncode == 0
    status = (tmp_path / "token").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (UID, 0o600)
    assert (tmp_path / "token").read_text() == token


def test_run_sh_says_what_to_do_with_a_container_that_is_there(tmp_path: Path, bundle: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give the token to the user inside")
    root = board(tmp_path / "board", hwmon=0o444, **ANY_BOARD)
    write(tmp_path / "bin/docker", '#!/bin/sh\n[ "$1" = inspect ]\n', 0o755)
    where = {"HOST_ROOT": str(root), "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    done = script("run.sh", "--bundle", bundle, "--token", tmp_path / "token", "--name", "two", **where)
    assert (done.returncode, "docker rm -f two" in done.stderr) == (2, True)


def test_headers_that_are_here_are_not_installed_and_missing_ones_are_named(tmp_path: Path) -> None:
    root, called = tmp_path / "root", tmp_path / "called"
    for name in ("wget", "apt-get"):
        write(tmp_path / "bin" / name, f'#!/bin/sh\necho {name} "$@" >> {called}\n', 0o755)
    for folder in ("etc/apt/sources.list.d", "etc/apt/trusted.gpg.d", "usr/local"):
        (root / folder).mkdir(parents=True)
    where = {"ROOT": str(root), "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    done = script("install-headers.sh", **where)
    assert done.returncode == 1
    assert "NvInfer.h" in done.stderr
    assert '"default-runtime": "nvidia"' in done.stderr
    installed = called.read_text()
    assert "apt-get install -y --no-install-recommends cuda-cudart-dev-10-2" in installed
    assert {"cuda-nvcc-10-2", "cuda-nvprof-10-2"} <= set(installed.split())  # crt/host_defines.h and cudaProfiler.h
    assert {"host_defines.h", "cudaProfiler.h", "libnvparsers.so"} <= {Path(one).name for one in done.stderr.split()}
    assert "r32.7 main" in (root / "etc/apt/sources.list.d/nvidia-l4t-apt-source.list").read_text()
    called.unlink()
    (root / "usr/local/cuda").unlink()
    for path in re.findall(r"^(/\S+)$", done.stderr, re.MULTILINE):
        write(Path(path))
    assert script("install-headers.sh", **where).returncode == 0
    assert not called.exists()


def test_bindings_are_not_built_by_a_foreign_compiler_nor_without_headers(tmp_path: Path) -> None:
    where = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    if Path("/usr/include/aarch64-linux-gnu/NvInfer.h").exists():
        pytest.skip("TensorRT's headers are here: it would build")
    for machine, said in (("x86_64", "this is x86_64: build on the board"), ("aarch64", ".h: run install-headers.sh")):
        write(tmp_path / "bin/uname", f"#!/bin/sh\necho {machine}\n", 0o755)
        done = script("build-trt-bindings.sh", tmp_path / "out", **where)
        assert done.returncode == 1
        assert said in done.stderr


# --- accept.sh --------------------------------------------------------------------------------------------------------


def runtime(*words: str) -> list[str]:
    return [sys.executable, "-m", "wenet_runtime.cli", *words]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@pytest.fixture
def served(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """A daemon on the CPU with the simulated meter and a token file; its settings are in the environment."""
    token = write(tmp_path / "token", "0123456789abcdef0123456789abcdef\n", 0o600)
    port = free_port()
    for name, value in (
        *(("BUNDLE", bundle), ("CACHE_DIR", tmp_path / "cache"), ("METER", "sim"), ("PROFILE_ROUNDS", "10")),
        *(("PORT", port), ("TOKEN_FILE", token)),
    ):
        monkeypatch.setenv(f"WENET_{name}", str(value))
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(runtime(), stderr=file)
    end = time.monotonic() + 120
    while "serving" not in log.read_text():
        assert time.monotonic() < end, log.read_text()
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    yield process, f"http://127.0.0.1:{port}"
    if process.poll() is None:
        process.kill()
    process.wait()


def accepted(served: tuple["subprocess.Popen[bytes]", str], *words: str) -> tuple[int, dict[str, Any]]:
    process, host = served
    run = shlex.join(runtime())
    done = script("accept.sh", "--host", host, "--seconds", "1", "--run", run, "--pid", str(process.pid), *words)
    return done.returncode, json.loads(done.stdout)


@pytest.mark.slow
def test_accept_takes_every_step_and_says_what_was_simulated(
    served: tuple["subprocess.Popen[bytes]", str], tmp_path: Path
) -> None:
    code, told = accepted(served, "--token-file", str(tmp_path / "token"))
    steps = told["steps"]
    assert {name: one["reason"] for name, one in steps.items()} == dict.fromkeys(steps)
    assert (code, told["passed"], told["failed"], told["skipped"]) == (0, True, [], [])
    assert told["engine"] == "ort"
    assert told["energy"] == {"source": "sim", "measured": False}
    assert told["simulated"] is True
    assert told["machine"]["jetson"] is Path("/etc/nv_tegra_release").exists()
    assert steps["build"]["measured"]["verified"] is True
    assert len(steps["infer"]["measured"]["replies"]) == 2 + len(steps["modes"]["measured"]["modes"])
    assert steps["idle"]["measured"]["rail"] == "sim"
    assert steps["load"]["measured"]["answered"] > 0
    assert steps["load"]["measured"]["mean_w"] > 0
    assert steps["drain"]["measured"]["statuses"]["200"] > 0
    assert served[0].wait(60) == 0


@pytest.mark.slow
def test_accept_fails_where_the_daemon_does_not_let_it_in(served: tuple["subprocess.Popen[bytes]", str]) -> None:
    code, told = accepted(served, "--skip", "doctor,build,profile,drain")
    assert (code, told["passed"]) == (1, False)
    assert told["skipped"] == ["doctor", "build", "profile", "infer", "drain"]
    assert told["failed"] == ["modes", "load", "metrics"]
    assert told["steps"]["modes"]["reason"] == "GET /modes answered 401"
    assert told["energy"] == {"source": None, "measured": False}
    assert told["steps"]["idle"]["measured"]["mean_w"] is None
    assert served[0].poll() is None


@pytest.mark.slow
def test_accept_names_a_step_that_cannot_be_taken_and_makes_up_nothing(tmp_path: Path) -> None:
    words = ("--host", f"http://127.0.0.1:{free_port()}", "--seconds", "1")
    broken = write(tmp_path / "broken", "#!/bin/sh\necho no device >&2\nexit 5\n", 0o755)
    done = script("accept.sh", *words, "--skip", "load,idle,drain", "--run", broken)
    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert told["failed"] == ["doctor", "build", "profile", "health", "modes", "metrics"]
    assert told["steps"]["build"] | {"seconds": 0} == {
        "status": "failed",
        "seconds": 0,
        "reason": "no device",
        "measured": None,
    }
    assert told["engine"] is None
    telling = write(tmp_path / "telling", '#!/bin/sh\necho "{\\"of\\": 3}"\necho m3 deviates >&2\nexit 1\n', 0o755)
    told = json.loads(
        script("accept.sh", *words, "--skip", "health,modes,infer,load,idle,metrics,drain", "--run", telling).stdout
    )
    assert (told["steps"]["build"]["reason"], told["steps"]["build"]["measured"]) == ("m3 deviates", {"of": 3})
    mute = write(tmp_path / "mute", "#!/bin/sh\n", 0o755)
    told = json.loads(
        script("accept.sh", *words, "--skip", "health,modes,infer,load,idle,metrics,drain", "--run", mute).stdout
    )
    assert told["steps"]["profile"]["reason"] == "wenet-runtime profile printed no JSON"
    assert script("accept.sh", "--seconds", "none").returncode == 2


def test_accept_prints_its_json_whatever_letters_a_step_says_and_however_old_the_python_is(tmp_path: Path) -> None:
    says = write(tmp_path / "says", "#!/bin/sh\nprintf '%s' 'has SHA-256 abc…' >&2\nexit 1\n", 0o755)
    old = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # as Python 3.6 of JetPack 4 reads files
    words = ("--host", "http://127.0.0.1:1", "--run", str(says), "--skip", "health,modes,infer,load,idle,metrics,drain")
    done = script("accept.sh", *words, **old)
    assert json.loads(done.stdout)["steps"]["doctor"]["reason"] == "has SHA-256 abc…"


# --- systemd ----------------------------------------------------------------------------------------------------------

UNIT = DEPLOY / "systemd/wenet-runtime.service"
DROP_INS = sorted((DEPLOY / "systemd/wenet-runtime.service.d").glob("*.conf"))
NEWER = {  # directives by the version of systemd that first knows them
    "RestrictSUIDSGID": 242, "ProtectHostname": 242, "ProtectKernelLogs": 244, "ProtectClock": 245, "ProtectProc": 247,
    "ProcSubset": 247, "LoadCredential": 247, "SetCredential": 247, "ExecCondition": 243, "PrivateIPC": 248,
    "TimeoutStartFailureSec": 246, "OOMPolicy": 243, "RestartKillSignal": 244, "RestartMode": 254,
    "CoredumpFilter": 246, "SystemCallLog": 247, "ExtensionImages": 248, "RestartSteps": 254, "MemoryKSM": 254,
}  # fmt: skip


def directives(path: Path) -> dict[str, str]:
    """Key and value of a unit or environment file; the last of a name."""
    lines = (line for line in path.read_text().splitlines() if "=" in line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A root file system with the unit, its drop-ins and what it names."""
    systemd = tmp_path / "etc/systemd/system"
    (systemd / f"{UNIT.name}.d").mkdir(parents=True)
    shutil.copy(UNIT, systemd)
    for path in DROP_INS:
        shutil.copy(path, systemd / f"{UNIT.name}.d")
    for name in ("sysinit", "basic", "network", "multi-user", "shutdown", "local-fs"):
        write(systemd / f"{name}.target", "[Unit]\nDescription=stands in\nDefaultDependencies=no\n")
    for name in ("systemd-tmpfiles-setup", "systemd-journald"):
        write(systemd / f"{name}.service", "[Service]\nExecStart=/opt/wenet/bin/wenet-runtime\n")
    write(tmp_path / "opt/wenet/bin/wenet-runtime", "#!/bin/sh\n", 0o755)
    return tmp_path


def analyze(*words: str | Path) -> str:
    done = subprocess.run([tool("systemd-analyze"), *words], capture_output=True, text=True, timeout=60, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze is older than the options that are needed")
    return done.stdout + done.stderr


def test_systemd_takes_the_unit_with_and_without_its_drop_ins(host: Path) -> None:
    for drop_ins in (True, False):
        if not drop_ins:
            shutil.rmtree(host / f"etc/systemd/system/{UNIT.name}.d")
        said = analyze("verify", "--man=no", f"--root={host}", f"/etc/systemd/system/{UNIT.name}")
        assert [line for line in said.splitlines() if "wenet" in line or "conf:" in line] == []


def test_the_unit_is_exposed_little(host: Path) -> None:
    limits = {True: 2.5, False: 4.5}
    for drop_ins, limit in limits.items():
        if not drop_ins:
            shutil.rmtree(host / f"etc/systemd/system/{UNIT.name}.d")
        said = analyze("security", "--offline=true", f"--root={host}", UNIT.name)
        level = re.search(r"exposure level for \S+: ([\d.]+)", said)
        assert level is not None, said
        assert float(level.group(1)) <= limit, said


def test_the_unit_is_not_started_again_where_only_a_person_can_help() -> None:
    assert directives(UNIT)["RestartPreventExitStatus"] == "2 3 4"


def test_the_unit_uses_what_ubuntu_18_04_s_systemd_knows() -> None:
    unit = directives(UNIT)
    assert set(unit) & set(NEWER) == set()
    assert "@" not in unit.get("SystemCallFilter", "")  # 237 would read an unknown set as an empty list
    assert [path.name for path in DROP_INS] == ["credential.conf", "jetpack6.conf", "newer.conf"]
    assert "LoadCredential" in directives(DROP_INS[0])
    assert max(NEWER.get(name, 0) for name in directives(DROP_INS[2])) <= 247


def test_the_unit_waits_for_the_drain_and_hides_no_gpu() -> None:
    unit, environment = directives(UNIT), directives(DEPLOY / "systemd/runtime.env")
    assert unit["Type"] == "notify"
    assert unit["NotifyAccess"] == "main"
    assert int(unit["WatchdogSec"]) >= 30  # the daemon itself calls a thread stuck after 30 s
    assert int(unit["TimeoutStopSec"]) >= float(environment["WENET_DRAIN_TIMEOUT_S"]) + 10
    assert "video" in unit["SupplementaryGroups"]
    assert {"PrivateDevices", "DynamicUser", "DevicePolicy", "ProtectClock"} & set(unit) == set()
    assert unit["EnvironmentFile"] == "/etc/wenet/runtime.env"
    assert environment["WENET_CACHE_DIR"] == f"/var/cache/{unit['CacheDirectory']}"


def test_the_environment_file_holds_settings_that_the_daemon_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (DEPLOY / "systemd/runtime.env").read_text()
    found = dict(re.findall(r"^#?(WENET_\w+)=(.*)$", text, re.MULTILINE))
    assert set(found) <= KNOWN
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    settings = load_settings({})
    assert (settings.engine, settings.meter) == ("trt", "auto")


def test_the_rails_of_jetpack_4_6_are_opened_to_the_group_video(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to another group")
    chip = nano(tmp_path / "sys")  # behind a link, as on a board
    files = [one for one in chip.iterdir() if one.is_file()]
    for one in files:
        one.chmod(0o600)
    done = script("open-rails.sh", ROOT=str(tmp_path))
    assert done.returncode == 0, done.stderr
    modes = {one.name: (one.stat().st_gid, stat.S_IMODE(one.stat().st_mode)) for one in files}
    opened = {name for name, mode in modes.items() if mode == (grp.getgrnam("video").gr_gid, 0o440)}
    assert {"rail_name_0", "in_power0_input", "in_voltage0_input", "in_current0_input"} <= opened
    assert all(mode == (0, 0o600) for name, mode in modes.items() if name not in opened)
    assert f"open-rails: {len(opened)} files" in done.stdout
    assert "ExecStart=/usr/local/sbin/wenet-open-rails" in (DEPLOY / "systemd/wenet-rails.service").read_text()
    assert "open-rails.sh /usr/local/sbin/wenet-open-rails" in README


def test_where_no_rails_are_nothing_is_opened(tmp_path: Path) -> None:
    done = script("open-rails.sh", ROOT=str(tmp_path))
    assert (done.returncode, "open-rails: 0 files" in done.stdout) == (0, True)


# --- k3s --------------------------------------------------------------------------------------------------------------

K3S = DEPLOY / "k3s"


def manifest(name: str) -> Any:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not here")
    return yaml.safe_load((K3S / name).read_text())


def test_every_manifest_keeps_kubernetes_schemas() -> None:
    validate = tool("kubernetes-validate")
    for path in sorted(K3S.glob("*.yaml")):
        if path.name not in ("kustomization.yaml", "podmonitor.yaml"):  # no schemas: not Kubernetes' own
            done = subprocess.run([validate, "--strict", path], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr


def test_kustomize_joins_them_into_one_namespace() -> None:
    command = [tool("kubectl"), "kustomize", K3S]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n  namespace: wenet\n") == 2  # DaemonSet and Service; the others have none
    named = set(manifest("kustomization.yaml")["resources"]) | {"podmonitor.yaml", "kustomization.yaml"}
    assert named == {path.name for path in K3S.glob("*.yaml")}


def test_the_daemonset_drains_before_it_is_killed_and_is_probed_as_the_api_says() -> None:
    pod = manifest("daemonset.yaml")["spec"]["template"]["spec"]
    container = pod["containers"][0]
    options = dict(word.split("=", 1) for word in container["args"])
    assert set(options) <= FLAGS
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "5"]
    assert options["--drain-delay-s"] == "5"
    longest = 5 + float(options["--drain-delay-s"]) + float(options["--drain-timeout-s"])
    assert pod["terminationGracePeriodSeconds"] >= longest + 10
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/v2/health/ready", "readiness": "/v2/health/ready", "liveness": "/v2/health/live"}
    assert container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"] >= 3600
    assert str(container["ports"][0]["containerPort"]) == options["--port"]
    assert manifest("service.yaml")["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]


def test_the_daemonset_runs_as_the_image_s_user_with_nothing_it_does_not_need() -> None:
    pod = manifest("daemonset.yaml")["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == UID
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    image = dict(re.findall(r"\b(WENET_\w+)=(\S+)", stage("final").of("ENV")[0].text))
    assert mounts["bundle"] == image["WENET_BUNDLE"]
    assert mounts["cache"] == image["WENET_CACHE_DIR"]
    assert {one["name"] for one in pod["volumes"]} == set(mounts)
    assert {one["name"] for one in container["env"]} <= KNOWN
    assert f"--token-file={mounts['token']}/token" in container["args"]


def test_the_token_of_the_secret_is_one_that_the_daemon_takes() -> None:
    volumes = manifest("daemonset.yaml")["spec"]["template"]["spec"]["volumes"]
    mode = next(one for one in volumes if one["name"] == "token")["secret"]["defaultMode"]
    status = os.stat_result((stat.S_IFREG | mode, 0, 0, 1, 0, UID, 33, 0, 0, 0))  # root's, of the pod's fsGroup
    check_file(Path("/run/secrets/wenet/token"), status, user=UID)
    assert mode & stat.S_IRGRP


def test_prometheus_is_told_the_port_the_path_and_the_token() -> None:
    template = manifest("daemonset.yaml")["spec"]["template"]
    port = template["spec"]["containers"][0]["ports"][0]
    notes = template["metadata"]["annotations"]
    assert (notes["prometheus.io/port"], notes["prometheus.io/path"]) == (str(port["containerPort"]), "/metrics")
    monitor = manifest("podmonitor.yaml")["spec"]
    endpoint = monitor["podMetricsEndpoints"][0]
    assert (endpoint["port"], endpoint["path"]) == (port["name"], "/metrics")
    assert monitor["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    credentials = endpoint["authorization"]["credentials"]
    assert f"secret generic {credentials['name']} " in README
    assert f"--from-literal={credentials['key']}=" in README


# --- README -----------------------------------------------------------------------------------------------------------


def test_every_section_with_commands_is_run_or_marked_as_the_board_s() -> None:
    titles = [part.split("\n")[0] for part in README.split("\n## ")[1:] if "```sh" in part]
    assert [title for title in titles if "*on the board*" not in title] == ["A Linux machine"]


def test_every_file_that_the_readme_names_is_there() -> None:
    for name in re.findall(r"\b(?:deploy/[\w./-]+\w|constraints-py\w+\.txt|Dockerfile\.jetson)", README):
        assert (ROOT / name).exists(), name
    for title in re.findall(r"\]\(#([\w-]+)\)", README):
        headings = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
        assert title in {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}, title
