#!/usr/bin/env bash
# satwatch at work, in one command: a regtest node, the daemon, and a wallet that pays a watched
# address now and then. Each event is printed as one JSON line, as a client receives it. Ctrl-C (or
# closing the terminal) ends everything and leaves nothing behind. A daemon that ends is started
# again; a node that is stopped is waited for.
#
#   regtest/up.sh                 until Ctrl-C
#     --payments N                end once N payments were pushed: exit code 0, or 1 when they do
#                                 not come in time or the daemon ends
#     --every SECONDS             time between two payments (default 5; with --payments, 1)
#     --port PORT                 where the daemon listens (default 5005, or a free port if that one
#                                 is taken)
#     --bin PATH                  a satwatch that is built already
#
#   regtest/up.sh --detach        for tests of other programs: starts node and daemon at free ports
#                                 and leaves them running, without payments; the wallet has coins.
#                                 Says where they are, and that regtest/down.sh FOLDER ends them
#     --json                      says it as one JSON object
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(dirname "$here")
payments=
every=
port=
bin=
detach=
json=

usage() {
    sed -n '2,/^set -e/p' "$0" | sed -n 's/^# \{0,1\}//p'
    exit "$1"
}
wrong() {
    echo "up.sh: $*" >&2
    exit 2
}
while [ $# -gt 0 ]; do
    value=${2-}
    case $1 in
    --detach)
        detach=yes
        shift
        continue
        ;;
    --json)
        json=yes
        shift
        continue
        ;;
    --payments)
        [[ $value =~ ^[1-9][0-9]{0,8}$ ]] || wrong "--payments wants a number from 1"
        payments=$value
        ;;
    --every)
        [[ $value =~ ^(0|[1-9][0-9]*)(\.[0-9]+)?$ ]] || wrong "--every wants seconds"
        every=$value
        ;;
    --port)
        [[ $value =~ ^[0-9]{1,5}$ && $((10#$value)) -le 65535 ]] || wrong "--port wants a number up to 65535"
        port=$value
        ;;
    --bin)
        [ -f "$value" ] && [ -x "$value" ] || wrong "--bin wants the path of a satwatch that can be run"
        bin=$(realpath "$value")
        ;;
    -h | --help) usage 0 ;;
    *) usage 2 >&2 ;;
    esac
    shift 2
done
[ -z "$json" ] || [ "$detach" ] || wrong "--json goes with --detach"
[ -z "$detach" ] || [ -z "$payments$every" ] || wrong "--detach makes no payments: leave --payments and --every out"
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
pause=
# Whether one of what was started still runs.
# shellcheck disable=SC2329 # `down` calls it
running() {
    local pid
    for pid in $daemon $listener $pause; do ! kill -0 "$pid" || return 0; done
    return 1
}

# Ends what was started, by process id, and removes the folder; once, whatever the way out. A
# terminal that is gone takes no words: nothing here stops at an error.
# shellcheck disable=SC2329 # the trap below calls it
down() {
    local code=$? pid
    set +e
    trap '' INT TERM HUP PIPE
    trap - EXIT
    # CONT, because one that is stopped hears of its end only when it goes on.
    for pid in $daemon $listener $pause; do kill -TERM "$pid" && kill -CONT "$pid"; done
    for _ in $(seq 100); do
        running || break
        sleep 0.1
    done
    for pid in $daemon $listener $pause; do kill -KILL "$pid"; done
    if [ "$folder" ]; then
        [ ! -f "$folder/node/node.env" ] || "$here/node.sh" stop "$folder/node"
        rm -rf "$folder"
    fi
    exit "$code"
} 2>/dev/null
trap down EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 141' PIPE
trap 'exit 143' TERM

build() {
    local environment
    environment=$("$repo/contrib/setup.sh" build)
    eval "$environment"
    say "Building satwatch (dev profile: for a demo the quickest to build is quick enough)."
    (cd "$repo" && cargo build --bin satwatch)
    bin="$CARGO_TARGET_DIR/debug/satwatch"
}

# The URL in the start-up line of the log; empty until it is there.
listening() { sed -nE 's,.*listening on (http://[^ "]+[0-9]).*,\1,p' "$folder/satwatch.log" | head -n 1; }

start_daemon() {
    # Started in the temporary folder, so that no settings.toml of somebody's is picked up.
    # Detached, it has a session of its own, which no end of a terminal reaches.
    (
        cd "$folder"
        SATWATCH__SERVER__LISTEN="127.0.0.1:$port" SATWATCH__STORE__PATH="$folder/store" \
            SATWATCH__BITCOIND__RPC_URL="$NODE_RPC_URL" SATWATCH__BITCOIND__COOKIE_FILE="$NODE_COOKIE" \
            exec ${detach:+setsid} "$bin" run
    ) </dev/null >>"$folder/satwatch.log" 2>&1 &
    daemon=$!
    started=$SECONDS
    echo "$daemon" >"$folder/daemon.pid"
}

# The first start; later ones are at the same port.
start_first_daemon() {
    if [ "$detach" ]; then
        port=${port:-0}
    elif [ -z "$port" ]; then
        port=5005
        ! (exec 8<>/dev/tcp/127.0.0.1/$port) 2>/dev/null || port=0
    fi
    start_daemon
    local deadline=$((SECONDS + 60))
    until url=$(listening) && [ "$url" ] && curl -sf "$url/health/ready" >/dev/null; do
        kill -0 "$daemon" 2>/dev/null || die "the daemon ended at its start:
$(cat "$folder/satwatch.log")"
        [ $SECONDS -lt $deadline ] || die "the daemon was not ready within 60 seconds:
$(cat "$folder/satwatch.log")
$([ -z "$url" ] || curl -s "$url/health/ready")"
        sleep 0.1
    done
    port=${url##*:}
}

# Starts the daemon again when it has ended.
mind_daemon() {
    ! kill -0 "$daemon" 2>/dev/null || return 0
    local code=0
    wait "$daemon" 2>/dev/null || code=$?
    if [ $((SECONDS - started)) -lt 10 ]; then failures=$((failures + 1)); else failures=0; fi
    if [ "$payments" ] || [ $failures -ge 5 ]; then
        die "the daemon ended (exit code $code). Its log ends with:
$(tail -n 20 "$folder/satwatch.log")"
    fi
    say "The daemon ended (exit code $code); it is started again."
    sleep $failures
    start_daemon
}

# A payment, and a block after every fourth.
pay() {
    # A node that was away for long calls itself in initial download until a block comes.
    [ -z "$waiting" ] || cli -generate 1 || return 1
    cli sendtoaddress "$address" "0.$(printf '%08d' $((RANDOM * 100 + RANDOM % 100 + 1000)))" || return 1
    paid=$((paid + 1))
    [ $((paid % 4)) -ne 0 ] || cli -generate 1
}

# Pays, and says once when the node does not do it, and once when it does again.
try_to_pay() {
    if pay >/dev/null 2>"$folder/pay.log"; then
        [ -z "$waiting" ] || say "The node answers again: payments go on."
        waiting=
    elif [ -z "$waiting" ]; then
        waiting=yes
        say "No payment: $(if [ -f "$folder/node/node.env" ]; then grep -m 1 . "$folder/pay.log"; else echo "the node is stopped."; fi)
It is tried again every $every seconds. To start a node that was stopped: $here/node.sh start $folder/node"
    fi
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

Nothing is missed and nothing comes twice over these:
  kill -9 \$(cat $folder/daemon.pid)
  $here/node.sh stop $folder/node
  $here/node.sh start $folder/node

In JavaScript (npm install socket.io-client):
  const { io } = require('socket.io-client');
  const socket = io('$url');
  socket.on('connect', () => socket.emit('subscribe_address', { address: '$address' }));
  socket.on('new_transactions', (data) => console.log(data));
  socket.on('balance_change', (data) => console.log(data.old_balance_btc, '->', data.new_balance_btc));

In Python (pip install 'python-socketio[client]'):
  import socketio
  sio = socketio.Client()
  sio.on('connect', lambda: sio.emit('subscribe_address', {'address': '$address'}))
  sio.on('balance_change', lambda data: print(data['old_balance_btc'], '->', data['new_balance_btc']))
  sio.connect('$url')
  sio.wait()

What a client receives, one JSON line an event:
"
}

# Where what was left running is, for people or programs.
say_where() {
    if [ -z "$json" ]; then
        cat <<WHERE
satwatch: $url
node: $NODE_RPC_URL (cookie $NODE_COOKIE, wallet satwatch)
bitcoin-cli: $here/node.sh cli $folder/node
end both: $here/down.sh $folder
WHERE
        return
    fi
    python3 - "$url" "$folder" "$daemon" "$NODE_RPC_URL" "$NODE_COOKIE" "$NODE_ZMQ" "$NODE_PID" "$here" <<'SCRIPT'
import json, sys

url, folder, daemon, rpc, cookie, zmq, node, here = sys.argv[1:]
print(
    json.dumps(
        {
            "url": url,
            "folder": folder,
            "log": f"{folder}/satwatch.log",
            "pid": int(daemon),
            "node": {"rpc_url": rpc, "cookie_file": cookie, "wallet": "satwatch", "zmq": zmq, "pid": int(node)},
            "cli": [f"{here}/node.sh", "cli", f"{folder}/node"],
            "down": [f"{here}/down.sh", folder],
        }
    )
)
SCRIPT
}

[ "$bin" ] || build
folder=$(mktemp -d "${TMPDIR:-/tmp}/satwatch.XXXXXX")
say "Starting a regtest node."
"$here/node.sh" start "$folder/node"
# shellcheck source=/dev/null
. "$folder/node/node.env"
cli() { "$here/node.sh" cli "$folder/node" -rpcclienttimeout=30 "$@"; }
# 101 would do, but below height 122 one payment in a thousand gets the lock time 21, which Knots
# refuses as a parasite.
mine() { cli -generate 125 >/dev/null; }
if [ "$detach" ]; then
    mine
    start_first_daemon
    say_where
    trap - EXIT
    exit 0
fi
# The watched address is in a wallet of its own that is then closed: the paying wallet never spends
# from it.
cli -named createwallet wallet_name=watched load_on_startup=false >/dev/null
address=$(cli -rpcwallet=watched getnewaddress "" bech32)
cli unloadwallet watched >/dev/null
say "Mining 125 blocks, so that the wallet has coins."
mine
failures=0
start_first_daemon
banner

python3 "$here/listen.py" "$url" "$address" ${payments:+--payments "$payments" --deadline $((60 + payments * (${every%.*} + 3)))} &
listener=$!
paid=0
waiting=
while kill -0 "$listener" 2>/dev/null; do
    sleep "$every" &
    pause=$!
    # A signal ends the wait at once, and so does the end of any of the three.
    while kill -0 "$pause" 2>/dev/null && kill -0 "$listener" 2>/dev/null; do
        # (In silence: the shell would print the whole command of one that was killed.)
        wait -n "$pause" "$daemon" "$listener" 2>/dev/null || true
        mind_daemon
    done
    ! kill -0 "$listener" 2>/dev/null || try_to_pay
done
wait "$listener" && code=0 || code=$?
case $code in
0) say "$payments payments were pushed." ;;
141) ;; # nobody reads its lines any more
*) say "The listener ended (exit code $code). The daemon's log ends with:" && tail -n 20 "$folder/satwatch.log" >&2 ;;
esac
exit "$code"
