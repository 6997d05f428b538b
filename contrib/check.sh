#!/usr/bin/env bash
# Every check there is, and exactly what CI runs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export RUST_BACKTRACE=1
# Tests with a node mostly wait for it; more of them than cores halve the time.
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-4}"
# A case that fails is made smaller for a minute at most: who looks into it can do so for longer.
export PROPTEST_MAX_SHRINK_TIME="${PROPTEST_MAX_SHRINK_TIME:-60000}"

step() { printf '\n== %s\n' "$*"; }

step "what this machine lacks"
environment=$(contrib/setup.sh)
eval "$environment"

step "format and lints: shell, Python, Rust"
linters="${XDG_CACHE_HOME:-$HOME/.cache}/satwatch/linters/bin"
git ls-files -z '*.sh' .ci/run | xargs -0 "$linters/shellcheck"
"$linters/ruff" check --config contrib/ruff.toml .
"$linters/ruff" format --check --config contrib/ruff.toml .
"$linters/mypy" --config-file contrib/python/mypy.ini contrib/python/{satwatch,watch,consumer,webhook}.py
cargo fmt --check
cargo clippy --all-targets -- -D warnings

step "dependencies: none unused, where they come from, their licences, none twice"
"$linters/cargo-shear" --locked --deny-warnings
"$linters/cargo-deny" --locked --config contrib/deny.toml check bans licenses sources

step "build"
cargo test --no-run

step "the main job: three payments, pushed"
regtest/up.sh --bin "$CARGO_TARGET_DIR/debug/satwatch" --payments 3

step "a short soak: random operations with lost messages, compared with the node"
regtest/soak/run.sh --bin "$CARGO_TARGET_DIR/debug/satwatch" --seed 7 --steps 60 --drop 0.1

step "a short soak of edges: they, Redis, its replica and the primary are killed beside clients"
regtest/soak/edges.sh --bin "$CARGO_TARGET_DIR/debug/satwatch" --seed 5 --steps 28

step "tests, and beside them the demo: pings, a kill -9 of the daemon, a restart of the node"
log=$(mktemp)
demo_log=$(mktemp)
regtest/demo_check.py --bin "$CARGO_TARGET_DIR/debug/satwatch" >"$demo_log" 2>&1 &
demo=$!
# The demo has usually ended by then; a failed command in a trap would be the script's exit code.
trap 'kill "$demo" 2>/dev/null || true; rm -f "$log" "$demo_log"' EXIT
code=0
cargo test --no-fail-fast 2>&1 | tee "$log" || code=$?
wait "$demo" || code=1
cat "$demo_log"

# One line over all test binaries.
awk '/^test result: / { passed += $4; failed += $6; ignored += $8 }
    END { printf "\n%d passed, %d failed, %d skipped\n", passed, failed, ignored }' "$log"
# Who reads only the end of the log finds out there what went wrong.
((code == 0)) || grep --no-group-separator -A 12 "panicked at" "$log" | cut -c 1-2000 | tail -n 120
exit "$code"
