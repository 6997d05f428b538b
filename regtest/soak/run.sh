#!/usr/bin/env bash
# The soak: seeded random operations on a real node and the real daemon, messages dropped,
# everything compared with the node; and stock clients, readers of consumers and receivers of
# webhooks that are killed, stalled and cut, all that they got compared with the event log.
#
#   regtest/soak/run.sh --seed N --steps M
#     --drop 0.1        part of the ZMQ messages that is lost (default 0)
#     --apart           each ZMQ topic on an address of its own, so that no order holds between them
#     --alone           without the crowd of stock clients that are killed, stalled and cut meanwhile
#     --bin PATH        a satwatch that is built already (it is copied first); otherwise it is built
#     --keep            keep the folder with all logs also when nothing differs
#
# Exit code 0 only when nothing differs. Otherwise it prints the seed, the step and what differs,
# and leaves a folder with all logs. What is done and how to replay it: see the head of soak.py.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
python="${XDG_CACHE_HOME:-$HOME/.cache}/satwatch/python/bin/python"
bin=''
program=soak.py
export NODE_PATH="${XDG_CACHE_HOME:-$HOME/.cache}/satwatch/js/node_modules"
rest=()
while [ $# -gt 0 ]; do
    case $1 in
    --program) program=${2:?--program wants a name} && shift 2 ;;
    --bin) bin=${2:?--bin wants a path} && shift 2 ;;
    -h | --help)
        sed -n '2,/^set -e/p' "$0" | sed -n 's/^# \{0,1\}//p'
        exit 0
        ;;
    *) rest+=("$1") && shift ;;
    esac
done

if ! "$python" -c 'import zmq' 2>/dev/null || ! [ -d "$NODE_PATH/socket.io-client" ]; then
    environment=$("$repo/contrib/setup.sh")
fi
if [ -z "$bin" ]; then
    environment=$("$repo/contrib/setup.sh" build)
    eval "$environment"
    (cd "$repo" && cargo build --release --bin satwatch)
    bin="$CARGO_TARGET_DIR/release/satwatch"
fi
bitcoind=$("$repo/regtest/node.sh" path)
exec "$python" -B "$here/$program" --bin "$bin" --bitcoind "$bitcoind" ${rest[@]+"${rest[@]}"}
