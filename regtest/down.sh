#!/usr/bin/env bash
# Ends what regtest/up.sh --detach has left running, by process id, and removes its folder.
#
#   regtest/down.sh FOLDER
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
wrong() {
    echo "down.sh: $*" >&2
    exit 2
}
[ $# -eq 1 ] || wrong "say which: regtest/down.sh FOLDER, as up.sh --detach said it"
[ -f "$1/daemon.pid" ] && [ -d "$1/node" ] || wrong "$1 is no folder of up.sh --detach, or it is down already"
folder=$(cd "$1" && pwd -P)
daemon=$(cat "$folder/daemon.pid")
# Whether that process is the daemon that was started in this folder, and no other one.
runs() { [ "$(readlink "/proc/$daemon/cwd" 2>/dev/null)" = "$folder" ]; }
if runs; then
    kill -TERM "$daemon" 2>/dev/null || true
    kill -CONT "$daemon" 2>/dev/null || true
    for _ in $(seq 100); do
        runs || break
        sleep 0.1
    done
    ! runs || kill -KILL "$daemon" 2>/dev/null || true
fi
[ ! -f "$folder/node/node.env" ] || "$here/node.sh" stop "$folder/node"
rm -rf "$folder"
