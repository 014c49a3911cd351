#!/bin/sh
# Make the virtual environment, or mend one whose making or filling was cut short.
#
#   sh tools/venv.sh DIR          PYTHON=... names the interpreter; otherwise the first one that fits
#
# An environment that works is kept, whatever else was installed into it. POSIX sh, GNU and BSD tools.
set -eu

venv=$1
python=$venv/bin/python
fits='import sys; sys.exit(sys.version_info < (3, 11))'
version='import platform; print(platform.python_version())'

say() { printf '%s\n' "kdproxy: $*" >&2; }

fail() {
    say "$1"
    shift
    for hint in "$@"; do printf '%s\n' "  $hint" >&2; done
    exit 1
}

hint_python() {
    case $(uname -s) in
        Darwin) echo "brew install python@3.13" ;;
        *) echo "apt install python3 python3-venv   (Debian 12 or later)" ;;
    esac
}

hint_venv() {
    case $(uname -s) in
        Darwin) echo "brew install python@3.13, then: make $goal PYTHON=python3.13" ;;
        *) echo "apt install python3-venv   (for a Python that is not the system's: python3.X-venv)" ;;
    esac
}

goal=${KDPROXY_GOAL:-setup}

# pip writes INSTALLER and then RECORD last: a package without them was cut short, and pip would take it for whole.
drop_cut_packages() {
    for info in "$venv"/lib/python3*/site-packages/*.dist-info; do
        [ -d "$info" ] || continue
        if [ ! -f "$info/INSTALLER" ] || [ ! -f "$info/RECORD" ]; then
            say "$(basename "$info" .dist-info) was left half installed: it is installed again"
            rm -rf "$info"
        fi
    done
}

if "$python" -c '' 2>/dev/null; then
    if ! "$python" -c "$fits"; then
        fail "$venv was made with Python $("$python" -c "$version"); kdproxy needs 3.11 or later" \
            "make clean, then run this again (PYTHON=/path/to/python3.13 picks the interpreter)"
    fi
    drop_cut_packages
    rm -f "$venv"/.unfinished
    if "$python" -c 'import pip; from importlib.metadata import version; version("pip")' 2>/dev/null; then
        exit 0
    fi
    say "$venv has no working pip: it is made again"
elif [ -e "$venv" ]; then
    say "$venv does not start (half made, moved, or its Python is gone): it is made again"
fi

chosen=''
without_venv=''
too_old=''
for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    # Version managers put shims on PATH that exist and don't run, so each candidate is tried. What runs and ignores its
    # arguments (PYTHON=/bin/true) is no Python either: it has to say something.
    [ "$("$candidate" -c 'print(6 * 7)' 2>/dev/null </dev/null)" = 42 ] || continue
    if ! "$candidate" -c "$fits"; then
        too_old="$too_old $candidate=$("$candidate" -c "$version")"
    elif ! "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
        without_venv="$without_venv $candidate"
    else
        chosen=$candidate
        break
    fi
done

if [ -z "$chosen" ]; then
    if [ -n "$without_venv" ]; then
        fail "Python is here ($(echo $without_venv)), but its venv module is not" "$(hint_venv)"
    elif [ -n "$too_old" ]; then
        fail "kdproxy needs Python 3.11 or later; found$too_old" \
            "$(hint_python)" "or: make $goal PYTHON=/path/to/python3.13"
    elif [ -n "${PYTHON:-}" ]; then
        fail "PYTHON=$PYTHON does not run as a Python; nothing was made or changed" "give the path of a Python 3.11 or later, or leave PYTHON away"
    fi
    fail "no Python 3.11 or later found" "$(hint_python)" "or: make $goal PYTHON=/path/to/python3.13"
fi

say "making $venv with $chosen ($("$chosen" -c "$version"))"
rm -rf "$venv"
"$chosen" -m venv "$venv"
