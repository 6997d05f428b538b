#!/usr/bin/env bash
# satwatch at work, in one command: a regtest node, the daemon, and a wallet that pays a watched address now and then.
# Each event is printed as one JSON line, as a client receives it. Ctrl-C ends everything and leaves nothing behind.
#
#   regtest/up.sh                 until Ctrl-C
#     --payments N                end once N payments were pushed: exit code 0, or 1 when they do not come in time
#     --every SECONDS             time between two payments (default 5; with --payments, 1)
#     --port PORT                 where the daemon listens (default 5005, or a free port if that one is taken)
#     --bin PATH                  a satwatch that is built already
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(dirname "$here")
payments=
every=
port=
bin=

usage() {
    sed -n '2,/^set -e/p' "$0" | sed -n 's/^# \{0,1\}//p'
    exit "$1"
}
while [ $# -gt 0 ]; do
    case $1 in
    --payments) payments=${2:?--payments wants a number} && shift 2 ;;
    --every) every=${2:?--every wants seconds} && shift 2 ;;
    --port) port=${2:?--port wants a number} && shift 2 ;;
    --bin) bin=${2:?--bin wants a path} && shift 2 ;;
    -h | --help) usage 0 ;;
    *) usage 2 >&2 ;;
    esac
done
every=${every:-$([ "$payments" ] && echo 1 || echo 5)}

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }
[ -t 2 ] || say() { printf '%s\n' "$*" >&2; }
die() {
    say "up.sh: $*"
    exit 1
}
for tool in curl python3; do type -P $tool >/dev/null || die "$tool is missing: install it"; done

folder=
daemon=
listener=
# Ends what was started, by process id, and removes the folder; once, whatever the way out.
down() {
    local code=$?
    trap '' INT TERM HUP
    trap - EXIT
    [ -z "$listener" ] || kill "$listener" 2>/dev/null || true
    if [ "$daemon" ] && kill "$daemon" 2>/dev/null; then
        for _ in $(seq 100); do
            kill -0 "$daemon" 2>/dev/null || break
            sleep 0.1
        done
        kill -9 "$daemon" 2>/dev/null || true
    fi
    if [ "$folder" ]; then
        [ ! -f "$folder/node/node.env" ] || "$here/node.sh" stop "$folder/node" || true
        rm -rf "$folder"
    fi
    exit "$code"
}
trap down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

build() {
    local environment
    environment=$("$repo/contrib/setup.sh" build)
    eval "$environment"
    say "Building satwatch (release)."
    compgen -G "$CARGO_TARGET_DIR/release/deps/librocksdb*" >/dev/null || say "The first build compiles RocksDB: about half an hour on two cores."
    (cd "$repo" && cargo build --release --bin satwatch)
    bin="$CARGO_TARGET_DIR/release/satwatch"
}

# The URL in the start-up line of the log; empty until it is there.
listening() { sed -nE 's,.*listening on (http://[^ "]+[0-9]).*,\1,p' "$folder/satwatch.log" | head -n 1; }

start_daemon() {
    if [ -z "$port" ]; then
        port=5005
        ! (exec 8<>/dev/tcp/127.0.0.1/$port) 2>/dev/null || port=0
    fi
    . "$folder/node/node.env"
    : >"$folder/satwatch.log"
    # Started in the temporary folder, so that no settings.toml of somebody's is picked up.
    (
        cd "$folder"
        SATWATCH__SERVER__LISTEN="127.0.0.1:$port" SATWATCH__STORE__PATH="$folder/store" SATWATCH__BITCOIND__RPC_URL="$NODE_RPC_URL" \
            SATWATCH__BITCOIND__COOKIE_FILE="$NODE_COOKIE" exec "$bin" run
    ) </dev/null >"$folder/satwatch.log" 2>&1 &
    daemon=$!
    local deadline=$((SECONDS + 60))
    until url=$(listening) && [ "$url" ] && curl -sf "$url/health/ready" >/dev/null; do
        kill -0 "$daemon" 2>/dev/null || die "the daemon ended at its start:
$(cat "$folder/satwatch.log")"
        [ $SECONDS -lt $deadline ] || die "the daemon was not ready within 60 seconds:
$(cat "$folder/satwatch.log")
$([ -z "$url" ] || curl -s "$url/health/ready")"
        sleep 0.1
    done
}

banner() {
    say "
satwatch is up: $url (open it in a browser)
Watching $address. A payment every $every seconds, a block every four payments. Ctrl-C ends it.

In a shell:
  curl $url/status
  curl $url/balance/$address
  curl $url/transactions/$address
  $here/node.sh cli $folder/node sendtoaddress $address 0.01
  $here/node.sh cli $folder/node -generate 1

In JavaScript (npm install socket.io-client):
  const { io } = require('socket.io-client');
  const socket = io('$url');
  socket.emit('subscribe_address', { address: '$address' });
  socket.on('new_transactions', (data) => console.log(data));
  socket.on('balance_change', (data) => console.log(data.old_balance_btc, '->', data.new_balance_btc));

In Python (pip install 'python-socketio[client]'):
  import socketio
  sio = socketio.Client()
  sio.on('balance_change', lambda data: print(data['old_balance_btc'], '->', data['new_balance_btc']))
  sio.connect('$url')
  sio.emit('subscribe_address', {'address': '$address'})
  sio.wait()

What a client receives, one JSON line an event:
"
}

[ "$bin" ] || build
[ -x "$bin" ] || die "$bin cannot be run"
folder=$(mktemp -d "${TMPDIR:-/tmp}/satwatch.XXXXXX")
say "Starting a regtest node."
"$here/node.sh" start "$folder/node"
cli() { "$here/node.sh" cli "$folder/node" "$@"; }
# The watched address is in a wallet of its own that is then closed: the paying wallet never spends from it.
cli -named createwallet wallet_name=watched load_on_startup=false >/dev/null
address=$(cli -rpcwallet=watched getnewaddress "" bech32)
cli unloadwallet watched >/dev/null
say "Mining 125 blocks, so that the wallet has coins."
# 101 would do, but below height 122 one payment in a thousand gets the lock time 21, which Knots refuses as a parasite.
cli -generate 125 >/dev/null
start_daemon
banner

python3 "$here/listen.py" "$url" "$address" ${payments:+--payments "$payments" --deadline $((60 + payments * (every + 2)))} &
listener=$!
paid=0
# The background sleep lets a signal end the wait at once.
while sleep "$every" & wait $!; kill -0 "$listener" 2>/dev/null; do
    cli sendtoaddress "$address" "0.$(printf '%08d' $((RANDOM * 100 + RANDOM % 100 + 1000)))" >/dev/null
    paid=$((paid + 1))
    [ $((paid % 4)) -ne 0 ] || cli -generate 1 >/dev/null
done
wait "$listener" && code=0 || code=$?
listener=
[ "$code" -ne 0 ] || say "$payments payments were pushed."
[ "$code" -eq 0 ] || { say "The daemon's log ends with:" && tail -n 20 "$folder/satwatch.log" >&2; }
exit "$code"
