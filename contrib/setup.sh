#!/usr/bin/env bash
# Installs what this machine lacks to build satwatch and to run its tests, and says what and why.
#
#   contrib/setup.sh build              what the build needs: cargo, a C++ compiler, libclang, RocksDB (compiled once)
#   eval "$(contrib/setup.sh)"          that, and what the tests need: rustfmt, clippy, linters, a bitcoind, Node.js and
#                                       Python with the stock Socket.IO and Redis clients, Chromium, nginx, HAProxy, Caddy
#                                       and redis-server
#
# What cargo needs to know goes into .cargo/config.toml of this clone, so that a plain `cargo build` afterwards finds it.
# Standard output is an `export` line for a shell that goes on to run cargo: the target folder that all clones share.
# Everything for people goes to standard error. System packages are installed only on Debian and its kin and only as root;
# otherwise the missing thing is named. All the rest goes into ${XDG_CACHE_HOME:-$HOME/.cache}/satwatch. With everything
# there it takes a second or two.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/satwatch"
scope=${1:-all}
missing=()
cargo_env=()

say() { printf 'setup.sh: %s\n' "$*" >&2; }
lack() {
    say "MISSING $*"
    missing+=("$*")
}
have() { type -P "$1" >/dev/null; }
# for_cargo NAME VALUE: a variable that cargo and its build scripts are to see.
for_cargo() { cargo_env+=("$1 = \"$2\""); }

apt_updated=
# install_apt REASON PACKAGE...: fails when this is no Debian machine or we are not root.
install_apt() {
    local reason=$1
    shift
    [ "$(id -u)" = 0 ] && have apt-get || return 1
    say "installing $* (Debian): $reason"
    if [ -z "$apt_updated" ]; then
        # A third-party source that cannot be reached must not stop what the other sources have.
        DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 update >&2 || say "apt-get update had errors; going on"
        apt_updated=yes
    fi
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@" </dev/null >&2
}

need_rust() {
    have cargo || lack "cargo: install Rust 1.95 or newer with rustup"
    [ "$scope" = build ] && return
    cargo fmt --version >/dev/null 2>&1 || lack "rustfmt: rustup component add rustfmt"
    cargo clippy --version >/dev/null 2>&1 || lack "clippy: rustup component add clippy"
}

need_compiler() {
    have g++ && have gcc || install_apt "RocksDB and libzmq are C++" gcc g++ || lack "g++: RocksDB and libzmq are C++; install gcc and g++"
}

# The folder of a libclang that bindgen finds by itself, with clang's own headers beside it.
libclang_of_the_system() {
    local folder
    for folder in $(compgen -G '/usr/lib/llvm-*/lib' || true) $(compgen -G '/usr/lib/*-linux-gnu' || true) /usr/lib64 /usr/lib; do
        compgen -G "$folder/libclang[.-]*so*" >/dev/null || continue
        compgen -G "$folder/clang/*/include/stdbool.h" >/dev/null || compgen -G "/usr/lib/clang/*/include/stdbool.h" >/dev/null || continue
        return 0
    done
    return 1
}

# libclang for bindgen, which makes RocksDB's bindings. PyPI's wheel has no headers of its own, so it borrows gcc's.
need_libclang() {
    [ "${LIBCLANG_PATH:-}" ] || libclang_of_the_system || install_apt "bindgen needs libclang to bind RocksDB" libclang-dev && return
    local target="$cache/libclang"
    if ! compgen -G "$target/clang/native/libclang.so*" >/dev/null; then
        say "installing the libclang wheel into $target: bindgen needs libclang to bind RocksDB"
        { have python3 && python3 -m pip install -q --disable-pip-version-check --no-deps --target "$target" libclang >&2; } || {
            lack "libclang: install libclang-dev (bindgen needs it to bind RocksDB), or Python 3 with pip so that this script can"
            return
        }
    fi
    for_cargo LIBCLANG_PATH "$target/clang/native"
    for_cargo BINDGEN_EXTRA_CLANG_ARGS "-I$(gcc -print-file-name=include)"
}

need_rocksdb() {
    [ ${#missing[@]} -eq 0 ] || return 0
    local folder
    folder=$("$repo/contrib/rocksdb.sh") || {
        lack "RocksDB: contrib/rocksdb.sh could not compile it; what it printed says why"
        return
    }
    for_cargo ROCKSDB_LIB_DIR "$folder"
    for_cargo ROCKSDB_STATIC 1
}

# .cargo/config.toml of this clone. One that somebody else wrote is left as it is, and the lines for it are named.
write_cargo_config() {
    local file="$repo/.cargo/config.toml" mark="# Written by contrib/setup.sh; made anew each time." content
    content=$(printf '%s\n' "$mark" '[env]' "${cargo_env[@]}")
    if [ -f "$file" ] && [ "$(head -n 1 "$file")" != "$mark" ]; then
        local line
        for line in "${cargo_env[@]}"; do
            grep -qxF "$line" "$file" || {
                lack "lines in $file, which setup.sh did not write: put them there, or remove the file"$'\n'"${content#*$'\n'}"
                return
            }
        done
    elif [ "$(cat "$file" 2>/dev/null)" != "$content" ]; then
        mkdir -p "$repo/.cargo"
        printf '%s\n' "$content" >"$file"
    fi
}

need_bitcoind() {
    "$repo/regtest/node.sh" path >/dev/null || lack "bitcoind: the tests run a real node; put one on the PATH or set BITCOIND=/path/to/bitcoind"
}

# fresh FOLDER KEY: whether FOLDER was filled for KEY; `filled` records it.
fresh() { [ "$(cat "$1/.satwatch-key" 2>/dev/null)" = "$2" ]; }
filled() { printf '%s\n' "$2" >"$1/.satwatch-key"; }

# An environment of its own for one list of Python packages: folder, list (a file of this repository), what for.
need_python_packages() {
    have python3 || {
        lack "python3 (3.9 or newer): the tests run python-socketio, and regtest/up.sh its listener"
        return
    }
    local folder="$cache/$1" list="$repo/$2" key
    key=$(python3 -V && cat "$repo/contrib/python/requirements.txt" "$list")
    # A Python that was removed or moved leaves an environment that cannot run.
    fresh "$folder" "$key" && "$folder/bin/python" -c '' 2>/dev/null && return
    say "installing the packages of $2 into $folder: $3"
    rm -rf "$folder"
    python3 -m venv "$folder" >&2 || {
        rm -rf "$folder"
        install_apt "the Python clients get an environment of their own" python3-venv && python3 -m venv "$folder" >&2
    } || {
        lack "Python's venv: install python3-venv"
        return
    }
    "$folder/bin/python" -m pip install -q --disable-pip-version-check -r "$list" >&2 || {
        lack "the packages of $2: pip could not install them"
        return
    }
    filled "$folder" "$key"
}

need_js_clients() {
    { have node && have npm; } || {
        lack "Node.js 18 or newer with npm: the tests run socket.io-client and drive the page"
        return
    }
    local folder="$cache/js" key
    key=$(cat "$repo/tests/clients/package.json")
    fresh "$folder" "$key" && return
    say "installing socket.io, socket.io-client, redis, standardwebhooks, playwright-core, axe-core, jsqr and typescript into $folder: the tests run the stock JavaScript libraries, drive the page, look it over, and check the types of contrib/js"
    rm -rf "$folder"
    mkdir -p "$folder"
    cp "$repo/tests/clients/package.json" "$folder/"
    (cd "$folder" && npm install --silent --no-audit --no-fund --no-package-lock --ignore-scripts >&2) || {
        lack "the packages of tests/clients/package.json: npm could not install them"
        return
    }
    filled "$folder" "$key"
}

need_chromium() {
    local name
    for name in "${CHROMIUM:-}" chromium chromium-browser google-chrome; do
        [ "$name" ] && have "$name" && return
    done
    install_apt "a test opens the daemon's page in a real browser" chromium ||
        lack "chromium: a test opens the daemon's page in it; install it or set CHROMIUM=/path/to/it"
}

# Proxies and Redis. Their services are not to start: two of them would want port 80.
need_servers() {
    local name missing_ones=() policy=/usr/sbin/policy-rc.d made=
    for name in nginx haproxy caddy redis-server; do
        have "$name" || [ -x "/usr/sbin/$name" ] || missing_ones+=("$name")
    done
    [ ${#missing_ones[@]} -gt 0 ] || return 0
    if [ "$(id -u)" = 0 ] && [ ! -e "$policy" ]; then
        # However this script ends, other packages may start their services after it.
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\n[ ! -d /proc/%s ] || exit 101\n' $$ >"$policy"
        chmod +x "$policy"
        made=yes
    fi
    install_apt "tests run the daemon behind the proxies, and beside Redis" "${missing_ones[@]/#nginx/nginx-light}" ||
        lack "${missing_ones[*]}: tests run the daemon behind the proxies, and beside Redis"
    if [ "$made" ]; then
        rm -f "$policy"
        trap - EXIT
    fi
}

case $scope in build | all) ;; *)
    sed -n '2,/^set -e/p' "$0" | sed -n 's/^# \{0,1\}//p' >&2
    exit 2
    ;;
esac

mkdir -p "$cache"
# Two at once (a demo beside the tests) would install into the same folders.
exec 9>"$cache/setup.lock"
flock 9
need_rust
need_compiler
need_libclang
need_rocksdb
write_cargo_config
if [ "$scope" = all ]; then
    need_bitcoind
    need_python_packages linters contrib/linters.txt "the checks look over scripts and dependencies"
    need_python_packages python tests/clients/requirements.txt "the tests connect with the stock Python clients, and the soak drops messages with pyzmq"
    need_python_packages python-eio3 tests/clients/requirements-eio3.txt "the tests connect with the stock Python client of Socket.IO 2 too"
    need_js_clients
    need_chromium
    need_servers
fi
if [ ${#missing[@]} -gt 0 ]; then
    say "cannot go on without:"
    printf '  - %s\n' "${missing[@]}" >&2
    exit 1
fi
# All clones and checks share one target folder.
target="${CARGO_TARGET_DIR:-$cache/target}"
mkdir -p "$target"
# In it cargo tells the clones of one package apart by the files' times only, and would take another clone's newer build for ours.
if [ "$(cat "$target/.satwatch-clone" 2>/dev/null)" != "$repo" ]; then
    for folder in src tests examples benches; do [ ! -d "$repo/$folder" ] || find "$repo/$folder" -type f -exec touch {} +; done
    printf '%s\n' "$repo" >"$target/.satwatch-clone"
fi
printf 'export CARGO_TARGET_DIR=%q\n' "$target"
