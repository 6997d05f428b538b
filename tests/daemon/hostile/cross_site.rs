//! A page of another site, in a real browser on the daemon's own machine, and one whose name was
//! made to resolve to it: they read nothing and change nothing, by no way that a browser has.

use serde_json::Value;

use super::well_behaved::WellBehaved;
use crate::common::{Daemon, Program};

/// What a page may not have done: what is watched and whether the node is followed.
fn state(daemon: &Daemon) -> (Value, Value) {
    let status = daemon.get("/status").json;
    (
        status["address_count"].clone(),
        status["is_running"].clone(),
    )
}

#[test]
fn a_page_of_another_site_reads_and_changes_nothing_by_any_way() {
    let node = super::node();
    let daemon = Daemon::start(&node);
    let open = Daemon::with(&node, &[("server.allowed_origins", "*")]);
    let well_behaved = WellBehaved::begin(&node, &daemon);
    let (url, open_url, address) = (daemon.url(), open.url(), node.address());
    let mut program = Program::node("cross_site.mjs", &[&url, &open_url, &address]);
    let seen = program.line("what it saw", |line| {
        let seen = serde_json::from_str::<Value>(line).ok();
        seen.filter(Value::is_object)
    });
    program.ends_well();

    let closed = &seen["closed"];
    let read = closed["read"].as_object().expect("by name");
    let rebound = closed["read"]["rebound"].as_object().expect("by name");
    for (name, what) in read
        .iter()
        .chain(rebound)
        .filter(|(name, _)| *name != "rebound")
    {
        assert_eq!(what, "hidden", "{name}: {closed:#}");
    }
    // They came, and each was refused.
    let answers = closed["answers"].as_array().expect("a list");
    for answer in answers {
        assert_eq!(answer["status"], 403, "{answer}");
    }
    let came = |method: &str, path: &str| {
        let same = |it: &&Value| it["method"] == method && it["path"] == path;
        answers.iter().filter(same).count()
    };
    for (method, path, least) in [
        ("POST", "/stop", 5),
        ("POST", "/add_address", 5),
        ("GET", "/addresses", 3),
        ("GET", "/status", 4),
        ("GET", "/socket.io/", 2),
        ("GET", "/events", 1),
        ("GET", "/", 1),
    ] {
        assert!(came(method, path) >= least, "{method} {path}: {answers:#?}");
    }
    assert_eq!(state(&daemon), (Value::from(1), Value::from(true)));

    // Where all origins are let in, the same attempts do what they want.
    let let_in = &seen["open"]["read"];
    for name in ["status", "add", "webSocket", "polling"] {
        assert_eq!(let_in[name], "read", "{name}: {let_in:#}");
    }
    assert_eq!(state(&open).1, Value::from(false), "it was stopped");
    // But a name that is not the daemon's is not let in there either.
    for (name, what) in let_in["rebound"].as_object().expect("by name") {
        assert_eq!(what, "hidden", "{name} of the rebound page");
    }
    well_behaved.end();
}
