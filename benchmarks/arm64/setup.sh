#!/usr/bin/env bash
# Makes FOLDER/python, a Python of 64-bit ARM with LiteRT, which runs on this processor by emulation. For Debian 12, as
# root; needs: apt-get install qemu-user-static mmdebstrap unzip
set -euo pipefail
if [ $# != 1 ]; then
  echo "usage: benchmarks/arm64/setup.sh FOLDER" >&2
  exit 1
fi
mkdir -p "$1"
folder=$(cd "$1" && pwd)

mmdebstrap --quiet --mode=root --variant=extract --architectures=arm64 \
  --include=python3.11-minimal,libpython3.11-stdlib,libstdc++6,libgcc-s1,zlib1g,libexpat1,libffi8,libssl3 \
  bookworm "$folder/root"

# LiteRT asks this file what the processor can do, and ends where it is that of another kind.
mkdir -p "$folder/root/proc"
for processor in 0 1; do
  printf 'processor\t: %d\nFeatures\t: fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp asimdrdm asimddp\n' "$processor"
  printf 'CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\nCPU revision\t: 1\n\n'
done >"$folder/root/proc/cpuinfo"

platforms=()
for tag in manylinux2014 manylinux_2_17 manylinux_2_27 manylinux_2_28; do platforms+=(--platform "${tag}_aarch64"); done
python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.11 "${platforms[@]}" \
  --dest "$folder/wheels" ai-edge-litert numpy backports.strenum flatbuffers protobuf tqdm typing-extensions
for wheel in "$folder"/wheels/*.whl; do unzip -qo "$wheel" -d "$folder/packages"; done

cat >"$folder/python" <<END
#!/bin/sh
PYTHONPATH="$folder/packages" exec qemu-aarch64-static -cpu neoverse-n1 -L "$folder/root" "$folder/root/usr/bin/python3.11" "\$@"
END
chmod +x "$folder/python"
"$folder/python" -c "import ai_edge_litert.interpreter, platform; print(platform.machine(), 'is ready')"
