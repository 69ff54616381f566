#!/bin/sh
# A folder for PYTHONPATH with what a machine with torch and pandas but no package registry lacks:
# `peers/carried.sh FOLDER [PYTHON_VERSION]`, run where there is a registry; about 10 MB. The first is built from its source.
set -eu
folder=$1 version=${2:-3.12} pins=$(dirname "$0")/../constraints.txt
pin() { grep "^$1==" "$pins"; }
install() { python3 -m pip install --quiet --upgrade --no-deps --target "$folder" "$@"; }
install "$(pin antlr4-python3-runtime)"
install --only-binary=:all: --implementation cp --python-version "$version" \
  --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
  "$(pin hydra-core)" "$(pin omegaconf)" "$(pin msgspec)" "$(pin pyzmq)"
