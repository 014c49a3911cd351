#!/bin/sh
# Install one lock file, every file checked against its hash, or the project itself, or torch, which no lock holds, into
# the virtual environment.
#
#   sh tools/install.sh DIR LOCK [PIP OPTION ...]
#   sh tools/install.sh DIR .
#   sh tools/install.sh DIR torch REQUIREMENT
#
# The marker .unfinished stays behind when this is cut short; tools/venv.sh then looks for half-installed packages.
set -eu

venv=$1
what=$2
shift 2

# A user's own pip settings may ask for --user, which a virtual environment refuses.
PIP_USER=0
export PIP_USER

pip() { "$venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check "$@"; }

: >"$venv/.unfinished"
case $what in
    .) pip --no-deps --no-build-isolation --editable . ;;
    torch)
        printf '%s\n' "kdproxy: installing torch" >&2
        pip "$@"
        ;;
    *)
        printf '%s\n' "kdproxy: installing $what" >&2
        # --no-deps: a lock is complete. pip's resolver looks past it for a requirement with an extra (google-auth[requests])
        # as soon as a newer release exists, and then refuses the release that it has no hash for.
        pip --require-hashes --no-deps "$@" -r "$what"
        ;;
esac
rm -f "$venv/.unfinished"
