#!/usr/bin/env bash
# The soak of edges: a real node, a primary, Redis with a replica, three edges behind HAProxy and
# stock clients, while each of these is killed, frozen, emptied, promoted or put back; what every
# client got, over all its connections, is compared with the log of the primary.
#
#   regtest/soak/edges.sh --seed N --steps M
#     --bin PATH        a satwatch that is built already (it is copied first); otherwise it is built
#     --without NAME    a trouble (edge_trouble.py) that does not happen; may come more than once
#     --keep            keep the folder with all logs also when nothing differs
#
# Exit code 0 only when nothing differs. What is done and how to replay it: see the head of edges.py.
set -euo pipefail

case " $* " in
*" -h "* | *" --help "*)
    sed -n '2,/^set -e/p' "$0" | sed -n 's/^# \{0,1\}//p'
    exit 0
    ;;
esac
exec "$(dirname "${BASH_SOURCE[0]}")/run.sh" --program edges.py "$@"
