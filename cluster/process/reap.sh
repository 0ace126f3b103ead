#!/bin/sh
# reap.sh FOLDER: when the process that holds its stdin open has ended, or closes it, kill the rest of Ray and
# remove the folder. Processes of Ray are known by their open log files, which lie in the folder.
cat >/dev/null
find /proc/[0-9]*/fd -lname "$1/*" 2>/dev/null | cut -d/ -f3 | sort -u | grep -vx "$PPID" | xargs -r kill -KILL 2>/dev/null
rm -rf "$1"
