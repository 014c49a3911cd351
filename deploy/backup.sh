#!/bin/sh
# Copy the journal, which is everything that was paid for, and the events log beside it; the proxy may run meanwhile.
#
#   sh deploy/backup.sh DATA_DIR BACKUP_DIR
#
# A file of the backup is replaced whole. Nothing is deleted, in either place.
set -eu
umask 077

data=${1:?usage: sh deploy/backup.sh DATA_DIR BACKUP_DIR}
backup=${2:?usage: sh deploy/backup.sh DATA_DIR BACKUP_DIR}

fail() {
    printf '%s\n' "backup: $1" >&2
    exit 1
}

# sealed LOG: its sealed segments, which never change.
sealed() { (cd "$data" && ls -1 | grep "^$1\.[0-9][0-9]*\.jsonl\$") || :; }

# copy LOG: its sealed segments, then its active file.
copy() {
    while :; do
        before=$(sealed "$1")
        for name in $before "$1.jsonl"; do
            if [ "$name" != "$1.jsonl" ] && cmp -s "$data/$name" "$backup/$name"; then continue; fi
            cp "$data/$name" "$backup/.$name.part" && mv "$backup/.$name.part" "$backup/$name" ||
                fail "$data/$name could not be copied to $backup: the backup is not complete. Free space there and run this again."
        done
        # The active file may have been sealed between two copies: then its end is in a segment that is not copied yet.
        [ "$before" = "$(sealed "$1")" ] && break
    done
}

[ -f "$data/api_recovery.jsonl" ] || fail "$data has no api_recovery.jsonl: it is no data directory of kdproxy. Nothing was copied."
mkdir -p "$backup"
# The journal last: each answer whose call the copied events know of as ended is in it.
[ ! -f "$data/events.jsonl" ] || copy events
copy api_recovery
printf '%s\n' "backup: $(cat "$backup"/api_recovery*.jsonl | wc -l | tr -d ' ') lines in $backup" >&2
