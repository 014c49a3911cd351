#!/bin/sh
# Copy the journal, which is everything that was paid for; the proxy may run meanwhile.
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

sealed() { (cd "$data" && ls -1 | grep '^api_recovery\.[0-9][0-9]*\.jsonl$') || :; }

[ -f "$data/api_recovery.jsonl" ] || fail "$data has no api_recovery.jsonl: it is no data directory of kdproxy. Nothing was copied."
mkdir -p "$backup"
while :; do
    before=$(sealed)
    for name in $before api_recovery.jsonl; do
        # A sealed segment never changes.
        if [ "$name" != api_recovery.jsonl ] && cmp -s "$data/$name" "$backup/$name"; then continue; fi
        cp "$data/$name" "$backup/.$name.part" && mv "$backup/.$name.part" "$backup/$name" ||
            fail "$data/$name could not be copied to $backup: the backup is not complete. Free space there and run this again."
    done
    # The active file may have been sealed between two copies: then its end is in a segment that is not copied yet.
    [ "$before" = "$(sealed)" ] && break
done
printf '%s\n' "backup: $(cat "$backup"/api_recovery*.jsonl | wc -l | tr -d ' ') lines in $backup" >&2
