#!/usr/bin/env bash
# Compiles TensorRT 8.2.1's Python bindings for a Python that JetPack 4 has none for, into a wheel.
# NOT YET RUN BY US ON A BOARD: the recipe is one that several public projects report as working on a Nano.
#
#   build-trt-bindings.sh FOLDER     leaves tensorrt-8.2.1.8-cp38-none-linux_aarch64.whl there
#
#   PY    Python's version (3.8)     JOBS  of make (1: a unit takes more than 1 GB; 2 needs swap on 4 GB)
#
# On aarch64 alone, native or under qemu: an x86 compiler makes a small wheel that cannot be loaded.
set -euo pipefail

folder=${1:?usage: build-trt-bindings.sh FOLDER}
py=${PY:-3.8}
jobs=${JOBS:-1}
tag=8.2.1
commit=6f38570b74066ef464744bc789f8512191f1cbc0             # of that tag
pybind=f7b499615e14d70ab098a20deb0cdb3889998a1a             # pybind11 2.8.1
min_bytes=$((300 * 1024))
include=/usr/include/aarch64-linux-gnu

fail() {
  echo "build-trt-bindings: $*" >&2
  exit 1
}

[ "$(uname -m)" = aarch64 ] || fail "this is $(uname -m): build on the board, or under qemu-aarch64"
for header in /usr/local/cuda/include/cuda.h "$include/NvInfer.h" "$include/NvOnnxParser.h"; do
  [ -e "$header" ] || fail "no $header: run install-headers.sh, or make nvidia Docker's default runtime"
done
command -v "python$py" >/dev/null || fail "no python$py: apt-get install python$py-dev python$py-venv"
headers=$("python$py" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
[ -e "$headers/Python.h" ] || fail "no $headers/Python.h: apt-get install python$py-dev"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

fetched() { # repository commit folder: one commit, without its history
  git init -q "$3"
  git -C "$3" fetch -q --depth 1 "$1" "$2"
  git -C "$3" checkout -q FETCH_HEAD
}
fetched https://github.com/NVIDIA/TensorRT.git "$commit" "$work/TensorRT"
fetched https://github.com/pybind/pybind11.git "$pybind" "$work/external/pybind11"

# The distribution's headers are CPython's, with the pyconfig.h that this Python was built with.
mkdir -p "$work/external/python$py"
ln -s "$headers" "$work/external/python$py/include"
# The parser's headers must be those of the libraries that are linked; the repository's own come as a submodule.
mkdir -p "$work/TensorRT/parsers/onnx"
ln -sf "$include"/NvOnnx*.h "$work/TensorRT/parsers/onnx/"

# NVIDIA's script packs with whatever is called python3, and compiles in twelve jobs.
"python$py" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'pip>=20.3,<25.1' 'setuptools<60' wheel
sed -i -E "s/make -j[0-9]+/make -j$jobs/" "$work/TensorRT/python/build.sh"
(
  cd "$work/TensorRT/python"
  PATH="$work/venv/bin:$PATH" EXT_PATH="$work/external" TRT_OSSPATH="$work/TensorRT" CUDA_ROOT=/usr/local/cuda \
    TARGET_ARCHITECTURE=aarch64 PYTHON_MAJOR_VERSION="${py%%.*}" PYTHON_MINOR_VERSION="${py#*.}" bash -e ./build.sh
)

wheels=("$work"/TensorRT/python/build/dist/tensorrt-"$tag".*.whl)
[ -e "${wheels[0]}" ] || fail "no wheel under python/build/dist: read make's output above"
"$work/venv/bin/pip" install --quiet --no-deps 'numpy==1.24.4'
"$work/venv/bin/pip" install --quiet --no-deps "${wheels[0]}"
library=$(find "$work/venv" -path '*/tensorrt/tensorrt.so')
[ -n "$library" ] || fail "${wheels[0]##*/} holds no tensorrt.so"
size=$(stat -c %s "$library")
[ "$size" -ge "$min_bytes" ] || fail "tensorrt.so has $size bytes, less than $min_bytes: it was not linked whole"
machine=$(od -An -tx1 -j18 -N1 "$library" | tr -d ' ')
[ "$machine" = b7 ] || fail "tensorrt.so is of ELF machine 0x$machine, not aarch64 (0xb7)"

# An import loads libnvinfer, which needs the driver's libraries: those are in a build only if nvidia is Docker's
# default runtime. Their absence says nothing about the wheel; anything else that is wrong does.
if said=$(cd / && "$work/venv/bin/python" -c 'import tensorrt; print(tensorrt.__version__)' 2>&1); then
  case $said in
    "$tag".*) echo "build-trt-bindings: imports as TensorRT $said" ;;
    *) fail "imports as TensorRT '$said', not $tag" ;;
  esac
else
  case $said in
    *"cannot open shared object file"*)
      echo "build-trt-bindings: compiled, NOT imported: the board's driver is not in this build (${said##*$'\n'})" ;;
    *) fail "cannot be imported: ${said##*$'\n'}" ;;
  esac
fi
cp "${wheels[0]}" "$folder/"
echo "build-trt-bindings: $folder/${wheels[0]##*/}, tensorrt.so has $size bytes"
