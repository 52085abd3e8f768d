#!/usr/bin/env bash
# Starts the container on a Jetson: the one `docker run` that goes with Dockerfile.jetson. NOT YET RUN ON A BOARD.
#
#   sudo deploy/jetson/run.sh [--dry-run] [--image NAME] [--name NAME] [--bundle DIR] [--token FILE] [--port N]
#                             [-- OPTIONS OF wenet-runtime, e.g. --budget-ms 50]
#
# What depends on the board is decided by looking, and said: the user inside, groups, which host files are mounted.
# --dry-run prints the command and makes nothing.
set -euo pipefail

image=wenet-runtime name=wenet bundle=$PWD/bundle token=$PWD/token port=8000 dry=
root=${HOST_ROOT:-}   # for tests: where the host's /sys, /dev, /etc … are looked at
own_uid=10001         # the image's
token_inside=/run/secrets/wenet-token

say() { echo "run.sh: $*" >&2; }
fail() {
  say "$*"
  exit 2
}
usage() { sed -n '2,9s/^# \{0,1\}//p' "$0"; }

while [ $# -gt 0 ]; do
  case $1 in
    --dry-run) dry=1 ;;
    --image | --name | --bundle | --token | --port)
      [ $# -ge 2 ] || fail "$1 needs a value"
      printf -v "${1#--}" %s "$2"
      shift ;;
    -h | --help) usage; exit 0 ;;
    --) shift; break ;;
    *) fail "unknown option '$1': options of wenet-runtime stand after --" ;;
  esac
  shift
done

[ -f "$bundle/manifest.json" ] || fail "no bundle at $bundle: copy one there (wenet-trainer export), or give --bundle DIR"
bundle=$(cd "$bundle" && pwd)
case $token in /*) ;; *) token=$PWD/$token ;; esac

# --- who runs it inside: uid 0 only where nobody else may read the power rails (JetPack 4.6) -------------------------
rails=() closed=() open_to=
for file in "$root"/sys/bus/i2c/drivers/ina3221x/*/iio:device*/in_power*_input \
  "$root"/sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/curr[1-3]_input; do
  [ -e "$file" ] || continue
  rails+=("$file")
  mode=$(stat -c %a "$file")
  if (((8#$mode & 4) == 0)); then
    group=$(stat -c %g "$file")
    # A group of its own may have been given them: deploy/jetson/open-rails.sh.
    if (((8#$mode & 8#40) != 0 && group != 0)); then open_to=$group; else closed+=("$file"); fi
  fi
done
groups=()
if [ ${#rails[@]} -eq 0 ]; then
  uid=$own_uid
  say "no INA3221 power rails here: uid $uid, energy will be unknown"
elif [ ${#closed[@]} -gt 0 ]; then
  uid=0
  say "only root may read the power rails (${closed[0]#"$root"}): uid 0 inside. To run as uid $own_uid instead, install"
  say "wenet-rails.service as deploy/README.md says, docker rm -f $name, and start again (engines are built again then)"
else
  uid=$own_uid
  say "the power rails may be read: uid $uid"
  [ -z "$open_to" ] || groups+=(--group-add "$open_to")
fi
if [ "$uid" != 0 ]; then # /dev/nvhost*, /dev/nvmap and, from JetPack 6 on, /dev/dri belong to these
  for group in video render; do
    gid=$(awk -F: -v name="$group" '$1 == name { print $3 }' "$root/etc/group" 2>/dev/null || true)
    if [ -n "$gid" ] && [ "$gid" != "$open_to" ]; then groups+=(--group-add "$gid"); fi
  done
fi

# --- the token: nobody but the user inside, or root, may own or read it ----------------------------------------------
if [ -n "$dry" ]; then
  [ -e "$token" ] || say "would make $token (0600)"
else
  if [ ! -e "$token" ]; then
    (umask 077 && od -An -tx1 -N32 /dev/urandom | tr -d ' \n' >"$token" && echo >>"$token")
    say "made $token: send it as Authorization: Bearer"
  fi
  owner=$(stat -c %u "$token")
  if [ "$owner" != "$uid" ]; then
    chown "$uid" "$token" 2>/dev/null || fail "$token belongs to uid $owner, and inside it must be uid $uid: run this with sudo"
  fi
  chmod 600 "$token"
fi

# --- host files, where there are any ---------------------------------------------------------------------------------
cache=wenet-cache
files=(/usr/bin/tegrastats /etc/nv_tegra_release /etc/nvpmodel.conf /var/lib/nvpmodel/status)
if [ "$uid" = 0 ]; then
  cache=wenet-cache-root # what root builds, uid 10001 could not read later
  files+=(/sys/kernel/debug) # tegrastats reads clocks there, as root alone
fi
mounts=(-v "$bundle:/bundle:ro" -v "$token:$token_inside:ro" -v "$cache:/var/cache/wenet")
for path in "${files[@]}"; do
  [ ! -e "$root$path" ] || mounts+=(-v "$path:$path:ro")
done
# No single file of /proc can be mounted, so the board's name travels as a variable.
board=()
if [ -r "$root/proc/device-tree/model" ]; then
  board=(-e "WENET_BOARD_MODEL=$(tr -d '\0' <"$root/proc/device-tree/model")")
fi
confined=(--security-opt no-new-privileges)
[ "$uid" = 0 ] || confined+=(--cap-drop ALL) # root inside needs one: the image's cache is another user's

# Docker's own 10 s before SIGKILL are less than the drain's 30.
command=(docker run -d --name "$name" --runtime nvidia --restart unless-stopped --stop-timeout 40 --user "$uid"
  ${groups[@]+"${groups[@]}"} "${confined[@]}" ${board[@]+"${board[@]}"} -p "$port:8000" "${mounts[@]}"
  "$image" --bundle /bundle --host 0.0.0.0 --port 8000 --token-file "$token_inside" "$@")

if [ -n "$dry" ]; then
  printf '%q ' "${command[@]}"
  echo
  exit 0
fi
if docker inspect "$name" >/dev/null 2>&1; then
  fail "a container $name is there already: docker rm -f $name, or give --name"
fi
[ -e "$root/etc/nv_tegra_release" ] || say "warning: no /etc/nv_tegra_release: this does not look like a Jetson"
exec "${command[@]}"
