#!/usr/bin/env bash
# Compiles RocksDB, from the sources in the crate librocksdb-sys, into one static library that all profiles, tools and clones
# share, and prints the folder that holds it. The crate links it, unchanged, when ROCKSDB_LIB_DIR and ROCKSDB_STATIC are set;
# contrib/setup.sh writes both into .cargo/config.toml.
#
#   contrib/rocksdb.sh              compile it unless that was done, print its folder
#   contrib/rocksdb.sh flags        print the compiler's flags, one a line, for a test that compares them with the crate's
#
# The crate's own build script compiles 343 files one by one, and spends three fifths of the time reading the same headers
# again for each. Here some forty of them are compiled as one, which takes a quarter of the time.
#
# What differs from the crate's build script, and why:
#   -msse4.2 -mpclmul                   checksums in hardware, where this machine has them
#   -DROCKSDB_MALLOC_USABLE_SIZE        without it set_optimize_filters_for_memory of our store does nothing
#   -w                                  the warnings of other people's code are not ours to read
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/satwatch"
cxx=${CXX:-g++}

say() { printf 'rocksdb.sh: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

# The folder of a package that Cargo.lock names, downloaded when need be.
crate_folder() {
    cargo metadata --format-version 1 --locked --manifest-path "$repo/Cargo.toml" |
        grep -oE "\"manifest_path\":\"[^\"]*/$1-[0-9][^\"]*/Cargo.toml\"" | head -n 1 | sed -e 's,^"manifest_path":",,' -e 's,/Cargo.toml"$,,'
}

# has FEATURE...: whether every processor of this machine has these.
has() {
    local feature
    for feature in "$@"; do grep -qwm1 "$feature" /proc/cpuinfo 2>/dev/null || return 1; done
}

# One flag a line. The order of defines is that of the crate's build script for Linux.
flags() {
    printf '%s\n' -DLZ4=1 -DNDEBUG=1 -DHAVE_ALIGNED_NEW -DHAVE_UINT128_EXTENSION -DOS_LINUX -DROCKSDB_PLATFORM_POSIX \
        -DROCKSDB_LIB_IO_POSIX -DROCKSDB_SCHED_GETCPU_PRESENT -DROCKSDB_AUXV_GETAUXVAL_PRESENT -DROCKSDB_FALLOCATE_PRESENT \
        -DROCKSDB_RANGESYNC_PRESENT -DROCKSDB_MALLOC_USABLE_SIZE
    printf '%s\n' -O3 -fPIC -ffunction-sections -fdata-sections -std=c++20 "-include" cstdint -w
    case $(uname -m) in
    x86_64) ! has sse4_2 pclmulqdq || printf '%s\n' -msse4.2 -mpclmul ;;
    aarch64) ! has crc32 aes pmull || printf '%s\n' -march=armv8-a+crc+aes+crypto ;;
    esac
}

# How many compilers run at once, and how many files each takes: forty files take about 2 GB of memory.
parallel() {
    local jobs memory
    jobs=$(nproc)
    memory=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
    while [ "$jobs" -gt 1 ] && [ $((jobs * 1500)) -gt "$memory" ]; do jobs=$((jobs - 1)); done
    echo "$jobs" $((memory / jobs >= 2500 ? 40 : memory / jobs >= 1200 ? 12 : 4))
}

compile() {
    local crate=$1 lz4=$2 work=$3 jobs size sources source groups group done=0 began=$SECONDS
    read -r jobs size < <(parallel)
    mapfile -t flag < <(flags)
    mapfile -t sources < <(tr -d '\r' <"$crate/rocksdb_lib_sources.txt" | grep -vx 'util/build_version.cc' | grep .)
    local count=${#sources[@]}
    for ((group = 0; group * size < count; group++)); do
        for source in "${sources[@]:group*size:size}"; do printf '#include "rocksdb/%s"\n' "$source"; done >"$work/group$group.cc"
    done
    printf '#include "build_version.cc"\n' >"$work/group$group.cc"
    groups=$((group + 1))
    say "compiling RocksDB once for all: $count files in $groups groups, $jobs at a time; on two cores it takes about four minutes"
    # shellcheck disable=SC2016 # the inner shell expands them
    printf '%s\0' "$work"/group*.cc |
        xargs -0 -P "$jobs" -I{} sh -c 'source=$1 && shift && "$@" -c "$source" -o "$source.o" && echo "$source" || exit 255' compile {} \
            "$cxx" -I"$crate" -I"$crate/rocksdb/include" -I"$crate/rocksdb" -I"$crate/rocksdb/third-party/gtest-1.8.1/fused-src" \
            -I"$lz4" "${flag[@]}" |
        while read -r _; do
            done=$((done + 1))
            say "RocksDB: $done of $groups groups compiled, $((SECONDS - began)) s"
        done
    (cd "$work" && ar crs librocksdb.a group*.cc.o)
    rm -f "$work"/group*
}

build() {
    local crate lz4 key folder
    crate=$(crate_folder librocksdb-sys)
    lz4=$(crate_folder lz4-sys)/liblz4/lib
    [ -f "$crate/rocksdb_lib_sources.txt" ] && [ -f "$lz4/lz4.h" ] ||
        die "cargo did not bring the crates librocksdb-sys and lz4-sys: cargo fetch says why"
    key=$(printf '%s\n' "${crate##*/}" "$("$cxx" --version | head -n 1)" "$(uname -m)" "$(flags)" | sha256sum | cut -c 1-16)
    folder="$cache/rocksdb/$key"
    if [ ! -f "$folder/librocksdb.a" ]; then
        mkdir -p "$cache/rocksdb"
        # Two at once wait for each other; half a compilation is never taken for a whole one.
        exec 8>"$cache/rocksdb/lock"
        flock 8
        if [ ! -f "$folder/librocksdb.a" ]; then
            work=$(mktemp -d "$cache/rocksdb/new.XXXXXX")
            trap 'rm -rf "$work"' EXIT
            compile "$crate" "$lz4" "$work"
            [ -f "$work/librocksdb.a" ] || die "RocksDB did not compile"
            chmod 755 "$work"
            rm -rf "$folder"
            mv "$work" "$folder"
        fi
        exec 8>&-
    fi
    printf '%s\n' "$folder"
}

case ${1:-} in
'') build ;;
flags) flags ;;
*)
    sed -n '2,/^set -e/p' "$0" | sed -n 's/^# \{0,1\}//p' >&2
    exit 2
    ;;
esac
