#!/bin/sh
# Makes an environment with another load generator: `peers/client.sh PYTHON FOLDER PINS`. Its pins clash with ours.
set -eu
python=$1 folder=$2 pins=$3

"$python" -m venv "$folder"
install() { "$folder/bin/python" -m pip install --quiet "$@"; }
torch=$(grep '^torch==' "$pins" || true)
[ -z "$torch" ] || install "$torch"  # first: its CPU build satisfies the pin
install --no-deps --requirement "$pins"  # SGLang asks for its engine, which its client does not use
# torchvision is a build for CUDA: SGLang's client imports it for images, which nobody sends, and its operators are missing
meta=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/torchvision/_meta_registrations.py
[ ! -f "$meta" ] || sed -i '/^@torch.library.register_fake/d' "$meta"
