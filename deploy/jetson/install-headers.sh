#!/usr/bin/env bash
# Makes sure that what pycuda and TensorRT's bindings are compiled and linked with is there: CUDA, TensorRT, parsers.
# Called by Dockerfile.jetson, as root. NOT YET RUN ON A BOARD.
#
# It looks before it installs: where Docker's default runtime is nvidia, JetPack 4 mounts the host's files read-only
# into a build, and apt would fail to write there.
#
#   L4T_RELEASE  release of the Jetson apt repository (r32.7)
#   SOC          part of it for this chip (t210: Nano and TX1; t186: TX2; t194: Xavier)
set -euo pipefail

release=${L4T_RELEASE:-r32.7}
soc=${SOC:-t210}
root=${ROOT:-}   # for tests
include=$root/usr/include/aarch64-linux-gnu
libraries=$root/usr/lib/aarch64-linux-gnu

missing() {
  local path
  for path in "$root"/usr/local/cuda/include/{cuda.h,cudaProfiler.h,crt/host_defines.h} \
    "$include"/{NvInfer.h,NvOnnxParser.h} "$libraries"/lib{nvinfer,nvonnxparser,nvinfer_plugin,nvparsers}.so; do
    [ -e "$path" ] || echo "$path"
  done
}

lacking=$(missing)
if [ -z "$lacking" ]; then
  echo "install-headers: CUDA's and TensorRT's headers are here"
  exit 0
fi
printf 'install-headers: not here:\n%s\ninstalling from the Jetson apt repository %s (%s)\n' "$lacking" "$release" "$soc"
wget -qO "$root/etc/apt/trusted.gpg.d/jetson-ota-public.asc" https://repo.download.nvidia.com/jetson/jetson-ota-public.asc
for part in common "$soc"; do
  echo "deb https://repo.download.nvidia.com/jetson/$part $release main"
done >"$root/etc/apt/sources.list.d/nvidia-l4t-apt-source.list"
apt-get update
# nvcc's package holds crt/, which the runtime's headers read, and nvprof's cudaProfiler.h, which pycuda reads.
apt-get install -y --no-install-recommends cuda-cudart-dev-10-2 cuda-driver-dev-10-2 cuda-nvcc-10-2 cuda-nvprof-10-2 \
  libnvinfer-dev libnvinfer-plugin-dev libnvonnxparsers-dev libnvparsers-dev
rm -rf "$root"/var/lib/apt/lists/*
[ -e "$root/usr/local/cuda" ] || ln -s cuda-10.2 "$root/usr/local/cuda"

lacking=$(missing)
if [ -n "$lacking" ]; then
  printf 'install-headers: still not here:\n%s\n' "$lacking" >&2
  printf 'Let JetPack mount the host'\''s: "default-runtime": "nvidia" in /etc/docker/daemon.json, restart Docker, build again.\n' >&2
  exit 1
fi
