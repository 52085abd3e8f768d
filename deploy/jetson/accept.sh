#!/usr/bin/env bash
# What a first owner runs on the board: tries everything once, and prints ONE JSON object of what worked and what it
# measured. Beside a daemon that is running (run.sh, the systemd unit, or by hand); the last step stops it. Tested
# against a daemon on a PC's CPU; NOT YET RUN ON A BOARD.
#
#   deploy/jetson/accept.sh [--host URL] [--token-file FILE] [--image FILE] [--seconds N] [--run COMMAND]
#                           [--container NAME | --unit NAME | --pid N] [--skip STEP,STEP]
#
#   --host        of the daemon (http://127.0.0.1:8000)       --image    PNG or JPEG to post (one is made)
#   --seconds     that power is watched idle, and under load (20)
#   --run         how `wenet-runtime` is called here (found: in the container, as the unit does, on the PATH, in /opt/wenet)
#   --container, --unit, --pid   what is stopped at the end (found: container wenet, unit wenet-runtime)
#   --skip        steps: doctor build profile health modes infer idle load metrics drain
#
# Exit code: 0 nothing failed, 1 something did, 2 it could not begin. A step that cannot be taken is `skipped`, and why.
set -uo pipefail
export LC_ALL=C.UTF-8 # JetPack 4's Python would read and write ASCII alone otherwise

host=http://127.0.0.1:8000 token_file='' image='' seconds=20 run='' container='' unit='' pid='' skip=''
usage() { sed -n '2,17s/^# \{0,1\}//p' "$0"; }
cannot() {
  echo "accept.sh: $*" >&2
  exit 2
}
while [ $# -gt 0 ]; do
  case $1 in
    --host | --token-file | --image | --seconds | --run | --container | --unit | --pid | --skip)
      [ $# -ge 2 ] || cannot "$1 needs a value"
      variable=${1#--}
      printf -v "${variable//-/_}" %s "$2"
      shift ;;
    -h | --help) usage; exit 0 ;;
    *) cannot "unknown option '$1'" ;;
  esac
  shift
done
[[ $seconds =~ ^[1-9][0-9]*$ ]] || cannot "--seconds takes a whole number of at least 1"
python=$(command -v python3) || cannot "no python3 here: it puts the JSON together"
command -v curl >/dev/null || cannot "no curl here: apt-get install curl"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# --- what is here ----------------------------------------------------------------------------------------------------
runs_container() { [ "$(docker inspect -f '{{.State.Running}}' "$1" 2>/dev/null)" = true ]; }
if [ -z "$container$unit$pid" ]; then
  if runs_container wenet; then container=wenet; elif systemctl is-active -q wenet-runtime 2>/dev/null; then unit=wenet-runtime; fi
fi
as_unit() { # how the unit calls it: as its user, in whose cache engines must be, and with its settings
  local user files
  user=$(systemctl show -p User "$1" | cut -d= -f2-)
  files=$(systemctl show -p EnvironmentFiles "$1" | sed -n 's/^EnvironmentFiles=\([^ ]*\).*/ -p EnvironmentFile=\1/p' | tr -d '\n')
  echo "systemd-run --quiet --pipe --wait --uid=${user:-root}$files /opt/wenet/bin/wenet-runtime"
}
if [ -z "$run" ]; then
  if [ -n "$container" ]; then run="docker exec $container wenet-runtime"
  elif [ -n "$unit" ]; then run=$(as_unit "$unit")
  elif command -v wenet-runtime >/dev/null; then run=wenet-runtime
  elif [ -x /opt/wenet/bin/wenet-runtime ]; then run=/opt/wenet/bin/wenet-runtime; fi
fi
touch "$work/header" && chmod 600 "$work/header"
if [ -n "$token_file" ]; then
  token=$(grep -v '^[[:space:]]*\(#\|$\)' "$token_file" | head -n1) || cannot "no token in $token_file"
  printf 'header = "Authorization: Bearer %s"\n' "${token#infer:}" >"$work/header" # not on a command line: ps shows those
fi
ask() { curl -sS --max-time 60 -K "$work/header" "$@"; }

# --- steps: JSON on stdout, the reason on stderr; 0 ok, 77 skipped, else failed ---------------------------------------
skipped() {
  echo "$*" >&2
  return 77
}
verb() { # of wenet-runtime; what it printed must be JSON
  [ -n "$run" ] || skipped "no wenet-runtime on the PATH, in /opt/wenet or in a container: give --run" || return
  local code=0
  # shellcheck disable=SC2086 # --run may be several words
  $run "$@" >"$work/out" </dev/null || code=1
  if "$python" -c 'import json, sys; json.load(open(sys.argv[1]))' "$work/out" 2>/dev/null; then
    cat "$work/out" # also where it failed: it says what did
  elif [ $code = 0 ]; then
    echo "wenet-runtime $1 printed no JSON" >&2
    code=1
  fi
  return $code
}
doctor() { verb doctor --json; }
build() { verb build --verify --json; }
profile() { verb profile; }
fetched() {
  local status
  status=$(ask -o "$work/got" -w '%{http_code}' "$host$1") || return
  [ "$status" = 200 ] || { echo "GET $1 answered $status" >&2; return 1; }
  cat "$work/got"
}
health() {
  fetched /v2/health/ready >/dev/null || return
  fetched /v2/health 2>/dev/null || fetched /v2/health/ready
}
modes() { fetched /modes | tee "$work/modes"; }

picture() { # 32 x 32, RGB, a gradient: any content will do
  [ -z "$image" ] || return 0
  image=$work/picture.png
  "$python" - "$image" <<'PY'
import struct, sys, zlib
rows = b"".join(b"\0" + bytes(c for x in range(32) for c in (8 * x, 8 * y, 128)) for y in range(32))
def part(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
head = struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)
with open(sys.argv[1], "wb") as file:
    file.write(b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b""))
PY
}
posted() { # budget in ms, file for the head of the reply
  ask -D "$2" -o /dev/null -w '%{http_code}' --data-binary "@$image" -H 'Content-Type:' -H 'Expect:' \
    -H "Content-Type: image/$([[ $image == *.jp*g ]] && echo jpeg || echo png)" -H "WeNet-Budget-Ms: $1" "$host/infer"
}
infer() { # one generous budget, one around each mode, one that nothing can meet
  [ -s "$work/modes" ] || skipped "the modes are not known" || return
  picture || return
  "$python" - "$work/modes" >"$work/budgets" <<'PY'
import json, sys
modes = json.load(open(sys.argv[1]))["modes"]
times = [mode["latency_ms"]["p95"] for mode in modes if mode["resident"] and mode["latency_ms"]]
print(10000, *(round(4 * ms + 5, 3) for ms in times), 0.001)
PY
  local budget status
  : >"$work/replies"
  for budget in $(<"$work/budgets"); do
    status=$(posted "$budget" "$work/head") || return
    { echo "budget $budget"; echo "status $status"; grep -i '^wenet-' "$work/head" | tr -d '\r'; echo; } >>"$work/replies"
  done
  "$python" - "$work/replies" <<'PY'
import json, sys
replies = []
for text in open(sys.argv[1]).read().strip().split("\n\n"):
    lines = text.splitlines()
    one = {"budget_ms": float(lines[0].split()[1]), "status": int(lines[1].split()[1])}
    for line in lines[2:]:
        name, value = line.split(":", 1)
        key = name.lower()[len("wenet-"):].replace("-", "_")
        try:
            one[key] = float(value)
        except ValueError:
            one[key] = value.strip()
    replies.append(one)
print(json.dumps({"replies": replies}))
if replies[0]["status"] != 200:
    sys.exit("a budget of 10 s was answered with %d" % replies[0]["status"])
if replies[-1]["status"] != 422:
    sys.exit("a budget of 0.001 ms was answered with %d, not 422" % replies[-1]["status"])
PY
}
watts() { # appends one reading of the whole board, W, if there is one
  ask "$host/metrics" 2>/dev/null | sed -n 's/^wenet_power_watts{.*rail="\([^"]*\)".*} /\1 /p' >>"$1"
}
summed() { # of readings in a file; nothing is made of none
  "$python" - "$@" <<'PY'
import json, sys
lines = [line.rsplit(" ", 1) for line in open(sys.argv[1])]
values = sorted(float(value) for _, value in lines)
found = {"readings": len(values), "rail": lines[0][0] if lines else None, "mean_w": None, "min_w": None, "max_w": None}
if values:
    found.update(mean_w=round(sum(values) / len(values), 3), min_w=values[0], max_w=values[-1])
if len(sys.argv) > 2:
    answers = [line.split() for line in open(sys.argv[2])]
    times = sorted(1e3 * float(taken) for status, taken in answers if status == "200")
    found.update(seconds=int(sys.argv[3]), answered=len(times), others=len(answers) - len(times))
    for share in (50, 95, 99):
        found["p%d_ms" % share] = round(times[min(len(times) - 1, share * len(times) // 100)], 3) if times else None
print(json.dumps(found))
if len(sys.argv) > 2 and not times:
    sys.exit("no request was answered under load")
PY
}
idle() {
  : >"$work/idle"
  local end=$((SECONDS + seconds))
  while [ $SECONDS -lt $end ]; do watts "$work/idle"; sleep 0.5; done
  summed "$work/idle"
}
posting() { # posts until the file $1 is there; status and seconds of each into $2
  local batch=$work/batch.$BASHPID
  # Forty requests for each process, or starting curl is all that is measured.
  for _ in {1..40}; do
    printf 'next\nurl = "%s/infer"\ndata-binary = "@%s"\noutput = "/dev/null"\nsilent\nmax-time = 60\n' "$host" "$image"
    printf 'header = "Content-Type: image/%s"\nheader = "WeNet-Budget-Ms: 10000"\n' "$([[ $image == *.jp*g ]] && echo jpeg || echo png)"
    cat "$work/header"
    printf 'write-out = "%%{http_code} %%{time_total}\\n"\n'
  done | tail -n +2 >"$batch"
  while [ ! -e "$1" ]; do curl -K "$batch" >>"$2" 2>/dev/null || [ -e "$1" ] || sleep 0.2; done
}
load() {
  picture || return
  rm -f "$work/stop"
  : >"$work/loaded" && : >"$work/answers"
  posting "$work/stop" "$work/answers" &
  local poster=$! end=$((SECONDS + seconds))
  while [ $SECONDS -lt $end ]; do watts "$work/loaded"; sleep 0.5; done
  touch "$work/stop"
  wait "$poster"
  summed "$work/loaded" "$work/answers" "$seconds"
}
metrics() {
  fetched /metrics >"$work/metrics" || return
  "$python" - "$work/metrics" <<'PY'
import json, re, sys
found = {}
for line in open(sys.argv[1]):
    match = re.match(r"(wenet_(?:requests_total|energy_joules_total|power_watts|mode_active|build_info)\b[^ ]*) (\S+)", line)
    if match:
        found[match.group(1)] = float(match.group(2))
print(json.dumps(found))
if not any(name.startswith("wenet_build_info") for name in found):
    sys.exit("/metrics has no wenet_build_info")
PY
}
stopped() { # sends SIGTERM and waits; prints the exit code, or nothing where it cannot be known
  if [ -n "$container" ]; then
    docker stop --time 40 "$container" >/dev/null && docker inspect -f '{{.State.ExitCode}}' "$container"
  elif [ -n "$unit" ]; then
    systemctl stop "$unit" && systemctl show -p ExecMainStatus "$unit" | cut -d= -f2
  else
    kill -TERM "$pid" || return
    for _ in {1..400}; do
      case $(ps -o stat= -p "$pid" 2>/dev/null) in '' | Z*) return 0 ;; esac
      sleep 0.1
    done
    echo "process $pid still runs 40 s after SIGTERM" >&2
    return 1
  fi
}
drain() { # SIGTERM while requests run: each accepted one is answered
  [ -n "$container$unit$pid" ] || skipped "nothing to stop: give --container, --unit or --pid" || return
  picture || return
  rm -f "$work/stop"
  : >"$work/last"
  posting "$work/stop" "$work/last" &
  local poster=$! code begun=$SECONDS failed=0
  for _ in {1..600}; do
    [ ! -s "$work/last" ] || break
    sleep 0.1
  done
  code=$(stopped) || failed=1
  touch "$work/stop"
  wait "$poster"
  [ $failed = 0 ] || return 1
  "$python" - "$work/last" "${code:-null}" $((SECONDS - begun)) <<'PY'
import collections, json, sys
counts = collections.Counter(line.split()[0] for line in open(sys.argv[1]))
code = json.loads(sys.argv[2])
refused = counts.pop("000", 0)  # after the daemon had gone
print(json.dumps({"exit_code": code, "seconds": int(sys.argv[3]), "statuses": counts, "refused_after": refused}))
if not counts["200"]:
    sys.exit("no request was answered before it stopped")
if code not in (0, None):
    sys.exit("the daemon ended with %d: accepted work was abandoned" % code)
if set(counts) - {"200", "503"}:
    sys.exit("requests were answered with %s" % ", ".join(sorted(set(counts) - {"200", "503"})))
PY
}

# --- take them -------------------------------------------------------------------------------------------------------
for step in doctor build profile health modes infer idle load metrics drain; do
  if [[ ,$skip, == *,$step,* ]]; then
    printf '%s\tskipped\t0\tby --skip\n' "$step" >>"$work/steps"
    continue
  fi
  echo "accept.sh: $step …" >&2
  begun=$SECONDS
  "$step" >"$work/$step.json" 2>"$work/error"
  case $? in 0) status=ok ;; 77) status=skipped ;; *) status=failed ;; esac
  reason=
  [ $status = ok ] || reason=$(grep -v '^[[:space:]]*$' "$work/error" | tail -n1 | tr '\t' ' ')
  printf '%s\t%s\t%s\t%s\n' "$step" $status $((SECONDS - begun)) "$reason" >>"$work/steps"
  echo "accept.sh: $step $status${reason:+ ($reason)}" >&2
done

model=$(tr -d '\0' 2>/dev/null </proc/device-tree/model)
release=$(head -n1 /etc/nv_tegra_release 2>/dev/null)
"$python" - "$work" "$model" "$release" "$(uname -srm)" <<'PY'
import json, os, sys
work, model, release, system = sys.argv[1:]
def measured(step):
    try:
        with open(os.path.join(work, step + ".json")) as file:
            return json.load(file)
    except (OSError, ValueError):
        return None
steps = {}
with open(os.path.join(work, "steps")) as file:
    for line in file:
        name, status, seconds, reason = line.rstrip("\n").split("\t")
        steps[name] = {"status": status, "seconds": int(seconds), "reason": reason or None, "measured": measured(name)}
def of(step):
    return steps[step]["measured"] or {}
replies = of("infer").get("replies") or [{}]
source = replies[0].get("energy_source")
engine = (of("build").get("engine") or {}).get("name")
served = of("modes").get("engine")
if engine and served and engine != served:
    steps["build"].update(status="failed", reason="built for %s, and the daemon serves by %s: give --run" % (engine, served))
print(json.dumps({
    "format": "wenet-acceptance/1",
    "machine": {"model": model or None, "l4t": release or None, "system": system, "jetson": bool(release)},
    "engine": engine,
    "simulated": engine == "sim" or source == "sim",
    "energy": {"source": source, "measured": source not in (None, "none", "sim", "estimate")},
    "passed": all(one["status"] != "failed" for one in steps.values()),
    "failed": [name for name, one in steps.items() if one["status"] == "failed"],
    "skipped": [name for name, one in steps.items() if one["status"] == "skipped"],
    "steps": steps,
}, indent=1))
sys.exit(any(one["status"] == "failed" for one in steps.values()))
PY
