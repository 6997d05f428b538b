//! The limit of open files: raised at the start, and shared out, so that clients cannot take what
//! store, node and webhooks need.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::remedy::Remedy;

/// Kept back: the store has up to 256 tables open and needs new files for each that it writes; the
/// rest is for the node (RPC, REST, ZMQ), webhooks, and the process itself.
const RESERVE: usize = 512;

/// Raises the soft limit to the hard one, which is as far as a process may go: the soft one is low
/// for the sake of old programs only.
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // Where the system wants it lower than it says, it stays as it is, and is shared out as such.
    let _ = setrlimit(Resource::Nofile, raised);
}

/// How many files may be open.
pub fn limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

/// How many of `limit` clients may take.
pub fn for_clients(limit: usize) -> usize {
    limit - RESERVE.min(limit / 2)
}

/// Why fewer than `connections` clients get in, and what to do, if that is so.
pub fn problem(connections: usize, limit: usize) -> Option<String> {
    let room = for_clients(limit);
    (connections > room).then(|| {
        format!(
            "limits.connections is {connections}, but {limit} open files (ulimit -Hn) leave room for {room}: {}",
            Remedy::RaiseHardLimit {
                to: connections + RESERVE,
                room
            }
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_enough_for_the_rest() {
        for (limit, clients) in [(0, 0), (1, 1), (256, 128), (1024, 512), (20_000, 19_488)] {
            assert_eq!(for_clients(limit), clients, "{limit}");
        }
        assert_eq!(for_clients(usize::MAX), usize::MAX - RESERVE);
    }

    #[test]
    fn what_the_problem_names_as_enough_is_enough() {
        let message = problem(10_000, 1024).expect("too few");
        assert!(
            message.contains("room for 512:") && message.contains(" to 10512,"),
            "{message}"
        );
        assert_eq!(problem(10_000, 10_512), None);
        assert!(problem(10_000, 10_511).is_some());
        assert_eq!(problem(512, 1024), None, "lowering the other is enough too");
    }
}
