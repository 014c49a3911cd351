#!/bin/sh
# Prove that the answers can be restored: back up, restore into a scratch directory, verify, compare.
#
#   sh deploy/restore_drill.sh DATA_DIR
#
# DATA_DIR is only read, and a proxy may use it meanwhile. Exit code 0: as many answers came back as were backed up.
set -eu

data=${1:?usage: sh deploy/restore_drill.sh DATA_DIR}
here=$(dirname "$0")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

fail() {
    printf '%s\n' "restore drill: $1" >&2
    exit 1
}

answers() {
    stored=$(kdproxy stats --quick --json --data-dir "$1") || return 1
    printf '%s' "$stored" |
        python3 -c 'import json, sys; stored = json.load(sys.stdin); print(stored["answers"] + stored["prompts"])'
}

before=$(answers "$data") || fail "$data cannot be read (see above). Nothing was changed."
sh "$here/backup.sh" "$data" "$scratch/backup"
# The disk is lost: all that is left is the backup.
mkdir "$scratch/restored"
cp "$scratch"/backup/*.jsonl "$scratch/restored/"
kdproxy verify --data-dir "$scratch/restored" || fail "the backup of $data does not verify (see above): do not rely on it. The original was not changed."
after=$(answers "$scratch/restored")
# Answers that were bought meanwhile make it more.
[ "$after" -ge "$before" ] || fail "$after of $before answers came back: what is missing would be bought again. The original was not changed."
printf '%s\n' "restore drill: $after answers came back and verify; $data holds $before" >&2
