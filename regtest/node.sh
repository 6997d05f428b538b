#!/usr/bin/env bash
# Finds or unpacks a bitcoind, and runs regtest nodes with it.
#
#   regtest/node.sh path                     print the bitcoind to run (unpacks one the first time)
#   regtest/node.sh start DIR [options] [bitcoind arguments]
#                                            start a regtest node that keeps everything in DIR, with
#                                            a wallet
#       --rpc-port N, --zmq-port N           ports; those that DIR had before, or free ones
#       --no-zmq                             publish nothing
#       --no-wallet                          no wallet (and so no payments)
#   regtest/node.sh cli DIR arguments...     bitcoin-cli for that node
#   regtest/node.sh stop DIR                 stop that node and wait until it is gone
#
# `start` leaves DIR/node.env (NODE_PID, NODE_RPC_URL, NODE_RPC_PORT, NODE_COOKIE, NODE_ZMQ), to be
# sourced.
#
# Which bitcoind: $BITCOIND, else `bitcoind` on the PATH, else Debian's bitcoin-knots, downloaded
# with apt (which checks its signatures) and unpacked with the C library it wants into
# ${XDG_CACHE_HOME:-$HOME/.cache}/satwatch/node. That needs no root and changes nothing outside that
# folder.
set -euo pipefail

cache="${XDG_CACHE_HOME:-$HOME/.cache}/satwatch/node"
suites=(trixie trixie-backports)
packages=(bitcoin-knots libc6 libstdc++6 libgcc-s1 libevent-core-2.1-7t64 libevent-extra-2.1-7t64 libevent-pthreads-2.1-7t64
    libsqlite3-0 libzmq5 libsodium23 libpgm-5.3-0t64 libnorm1t64 libbsd0 libmd0 libgssapi-krb5-2 libkrb5-3 libk5crypto3
    libcom-err2 libkrb5support0 libkeyutils1 libssl3t64)

say() { printf 'node.sh: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

# The Debian mirrors that this machine's apt uses already, one a line.
mirrors() {
    {
        # shellcheck disable=SC2016 # apt-get expands it
        apt-get indextargets --format '$(REPO_URI)' 2>/dev/null || true
        cat /etc/apt/sources.list.d/*.sources 2>/dev/null | sed -n 's/^URIs:[[:space:]]*//p' | tr -s ' ' '\n' || true
        cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
            sed -nE 's/^deb[[:space:]]+(\[[^]]*\][[:space:]]+)?([^[:space:]]+).*/\2/p' || true
    } | sed 's,/*$,,' | awk '/\/debian$/ && !seen[$0]++'
}

# unpack: fills $cache; two at once wait for each other, and half an unpacking is never taken for a
# whole one.
unpack() {
    type -P apt-get dpkg >/dev/null ||
        die "no bitcoind found and this is no Debian machine: install Bitcoin Core or Knots (22 or newer) and set BITCOIND=/path/to/bitcoind"
    local keyring=/usr/share/keyrings/debian-archive-keyring.gpg arch mirror work found=
    [ -r "$keyring" ] || die "$keyring is missing: apt-get install debian-archive-keyring, or set BITCOIND=/path/to/bitcoind"
    arch=$(dpkg --print-architecture)
    work="$cache.new.$$"
    rm -rf "$work"
    mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial" "$work/debs" "$work/root"
    trap 'rm -rf "$work"' EXIT
    : >"$work/apt/status"
    local apt=(apt-get -q -o Dir::State="$work/apt" -o Dir::State::lists="$work/apt/lists" -o Dir::State::status="$work/apt/status"
        -o Dir::Cache="$work/apt/cache" -o Dir::Etc::sourcelist="$work/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null -o APT::Architecture="$arch"
        -o APT::Architectures="$arch" -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none -o Acquire::Retries=3
        -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false)
    for mirror in $(mirrors); do
        say "no bitcoind on this machine: unpacking Debian's bitcoin-knots into $cache (once, about 17 MB to download)"
        printf "deb [signed-by=$keyring] $mirror %s main\n" "${suites[@]}" >"$work/apt/sources.list"
        if "${apt[@]}" update >"$work/apt/log" 2>&1 &&
            (cd "$work/debs" && "${apt[@]}" download "${packages[@]}" >>"$work/apt/log" 2>&1); then
            found=yes
            break
        fi
        tail -n 5 "$work/apt/log" >&2
    done
    [ "$found" ] || die "apt could not bring bitcoin-knots: put a bitcoind on the PATH or set BITCOIND=/path/to/bitcoind"
    local deb loader
    for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$work/root"; done
    loader=$(cd "$work/root" && compgen -G 'usr/lib/*/ld-linux*.so.*' | head -n 1) || true
    [ "$loader" ] || die "the unpacked libc6 has no loader under usr/lib/*/ (architecture $arch)"
    local program
    for program in bitcoind bitcoin-cli; do
        # exec, so that the process id is the program's own.
        cat >"$work/$program" <<WRAP
#!/bin/sh
here=\$(dirname "\$(readlink -f "\$0")")
exec "\$here/root/$loader" --library-path "\$here/root/$(dirname "$loader")" "\$here/root/usr/bin/$program" "\$@"
WRAP
        chmod +x "$work/$program"
    done
    "$work/bitcoind" -version >/dev/null || die "the unpacked bitcoind does not start (architecture $arch)"
    rm -rf "$work/apt" "$work/debs" "$cache"
    mv "$work" "$cache"
    trap - EXIT
}

# The bitcoind to run.
find_bitcoind() {
    if [ "${BITCOIND:-}" ]; then
        type -P "$BITCOIND" || die "BITCOIND=$BITCOIND cannot be run"
    elif type -P bitcoind; then
        :
    else
        if [ ! -x "$cache/bitcoind" ]; then
            mkdir -p "$(dirname "$cache")"
            exec 9>"$cache.lock"
            flock 9
            [ -x "$cache/bitcoind" ] || (unpack)
            exec 9>&-
        fi
        echo "$cache/bitcoind"
    fi
}

find_bitcoin_cli() {
    local node beside
    node=$(type -P bitcoind || true)
    node=${BITCOIND:-$node}
    if [ "$node" ]; then
        beside="$(dirname "$(type -P "$node" || echo "$node")")/bitcoin-cli"
        if [ -x "$beside" ]; then echo "$beside"; else type -P bitcoin-cli || die "no bitcoin-cli beside $node nor on the PATH"; fi
    else
        find_bitcoind >/dev/null
        echo "$cache/bitcoin-cli"
    fi
}

# A port that nothing listens on, below the range that the kernel hands out by itself.
free_port() {
    local port
    for _ in $(seq 100); do
        port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
        if ! (exec 8<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return
        fi
    done
    die "no free port found on 127.0.0.1"
}

# setting DIR NAME: the rest of the line of DIR's bitcoin.conf that begins with NAME, if any.
setting() { sed -n "s/^$2//p" "$1/bitcoin.conf" 2>/dev/null || true; }

start() {
    local dir=${1:?DIR is missing} rpc='' zmq='' wallet=1 publish=1 pid
    shift
    while [ $# -gt 0 ]; do
        case $1 in
        --rpc-port) rpc=$2 && shift 2 ;;
        --zmq-port) zmq=$2 && shift 2 ;;
        --no-zmq) publish= && shift ;;
        --no-wallet) wallet= && shift ;;
        *) break ;;
        esac
    done
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    if [ -f "$dir/node.env" ]; then
        # shellcheck source=/dev/null
        . "$dir/node.env"
        ! runs "$NODE_PID" "$dir" || die "a node runs in $dir already (process $NODE_PID)"
    fi
    # A node that is started again is found where it was.
    rpc=${rpc:-$(setting "$dir" 'rpcport=')}
    rpc=${rpc:-$(free_port)}
    zmq=${zmq:-$(setting "$dir" 'zmqpubrawtx=tcp:\/\/127.0.0.1:')}
    zmq=${zmq:-$(free_port)}
    # One address for all topics keeps their order; a high-water mark of 0 keeps every message of a
    # big block.
    {
        printf '%s\n' 'regtest=1' '[regtest]' 'server=1' 'rest=1' 'listen=0' 'dnsseed=0' 'fixedseeds=0' 'fallbackfee=0.0002' \
            'printtoconsole=0' 'dbcache=16' 'par=1' 'checkmempool=0' 'checkblockindex=0' "rpcport=$rpc"
        if [ "$publish" ]; then
            local topic
            for topic in rawblock rawtx sequence; do printf '%s\n' "zmqpub$topic=tcp://127.0.0.1:$zmq" "zmqpub${topic}hwm=0"; done
        fi
    } >"$dir/bitcoin.conf"
    local node
    node=$(find_bitcoind)
    # No signal between the start and the note of its process id: the node could never be ended.
    trap '' INT TERM HUP
    setsid "$node" -datadir="$dir" "$@" </dev/null >"$dir/bitcoind.log" 2>&1 &
    pid=$!
    printf 'NODE_PID=%q\nNODE_RPC_PORT=%q\nNODE_RPC_URL=%q\nNODE_COOKIE=%q\nNODE_ZMQ=%q\n' "$pid" "$rpc" "http://127.0.0.1:$rpc" \
        "$dir/regtest/.cookie" "${publish:+tcp://127.0.0.1:$zmq}" >"$dir/node.env"
    trap - INT TERM HUP
    local deadline=$((SECONDS + 60))
    until cli "$dir" getblockchaininfo >/dev/null 2>&1; do
        kill -0 "$pid" 2>/dev/null || die "bitcoind ended at its start: $(tail -n 3 "$dir/bitcoind.log" | tr '\n' ' ')"
        [ $SECONDS -lt $deadline ] || {
            stop "$dir"
            die "bitcoind did not answer within 60 seconds; see $dir/regtest/debug.log"
        }
        sleep 0.1
    done
    if [ "$wallet" ] && [ -z "$(cli "$dir" listwallets | tr -d '[] \n')" ]; then
        cli "$dir" -named createwallet wallet_name=satwatch load_on_startup=true >/dev/null
    fi
}

# runs PID DIR: whether that process is the bitcoind of this folder (a zombie has no command line).
runs() { tr '\0' '\n' 2>/dev/null <"/proc/$1/cmdline" | grep -qxF -- "-datadir=$2"; }

# Ends the node named in DIR, and only that, by its process id.
stop() {
    local dir NODE_PID=
    dir=$(cd "${1:?DIR is missing}" && pwd)
    [ -f "$dir/node.env" ] || die "no node was started in $dir"
    # shellcheck source=/dev/null
    . "$dir/node.env"
    if runs "$NODE_PID" "$dir"; then
        kill "$NODE_PID" 2>/dev/null || true
        kill -CONT "$NODE_PID" 2>/dev/null || true
        for _ in $(seq 300); do
            runs "$NODE_PID" "$dir" || break
            sleep 0.1
        done
        ! runs "$NODE_PID" "$dir" || kill -9 "$NODE_PID" 2>/dev/null || true
    fi
    rm -f "$dir/node.env"
}

cli() {
    local dir=${1:?DIR is missing}
    shift
    "$(find_bitcoin_cli)" -datadir="$dir" "$@"
}

case ${1:-} in
path) find_bitcoind ;;
start | stop | cli)
    "$@"
    ;;
*)
    sed -n '2,/^set -e/p' "$0" | sed -n 's/^# \{0,1\}//p'
    exit 2
    ;;
esac
