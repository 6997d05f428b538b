#!/usr/bin/env bash
# Runs a fuzz target from the inputs that are kept, and keeps those that reach what the others do not.
#
#   contrib/fuzz/run.sh TARGET [options of libFuzzer, such as -runs=10000000]
#
# Needs cargo-fuzz and a nightly Rust, and what the daemon's build needs (contrib/setup.sh build). Inputs are kept in
# contrib/fuzz/corpus/TARGET, one a line in base64; tests/protocol/fuzzed.rs runs all of them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# Of a target, in files and in bytes.
MOST=400
BYTES=150000

target=${1:?which target}
shift
kept=contrib/fuzz/corpus/$target
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/inputs" "$work/fewest"

number=0
while read -r line; do
    number=$((number + 1))
    base64 -d <<<"$line" >"$work/inputs/$number"
done < <(cat "$kept" 2>/dev/null)

# The daemon's versions.
[ -e contrib/fuzz/Cargo.lock ] || cp Cargo.lock contrib/fuzz/
fuzz() { cargo +nightly fuzz run --fuzz-dir contrib/fuzz --sanitizer none "$target" "$@"; }
code=0
fuzz "$work/inputs" -- -max_len=2000 -timeout=10 "$@" || code=$?

fuzz "$work/fewest" "$work/inputs" -- -max_len=2000 -set_cover_merge=1 2>/dev/null
find "$work/fewest" -type f -size +0 -printf '%s %p\n' | shuf -n "$MOST" |
    awk -v most="$BYTES" '{ bytes += $1; if (bytes <= most) print $2 }' |
    while read -r file; do base64 -w 0 "$file" && echo; done | sort -u >"$work/kept"
mkdir -p contrib/fuzz/corpus
cp "$work/kept" "$kept"
exit "$code"
