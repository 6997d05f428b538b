//! What the daemon draws on a terminal.

use serde_json::json;

use crate::common::{Daemon, Node, wait_until};

/// Gives the command that follows a terminal, passes its output on to standard error and SIGTERM to
/// it, and ends as it does.
const TERMINAL: &str = "
import fcntl, os, pty, signal, struct, sys, termios
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[1], sys.argv[1:])
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 120, 0, 0))
signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
while True:
    try:
        part = os.read(terminal, 4096)
    except OSError:
        break
    os.write(2, part)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
";
const DRAWN: [&str; 2] = ["catching up [", "history scans ["];

#[test]
fn progress_is_drawn_on_a_terminal_below_whole_log_lines_and_nowhere_else() {
    let node = Node::start();
    let settings = [("log.level", "info"), ("NO_COLOR", "1")];
    let address = node.address();
    let mut drawing = Daemon::launched_by(&["python3", "-c", TERMINAL], &node, &settings);
    let mut plain = Daemon::with(&node, &settings);
    drawing.wait_ready();
    for daemon in [&drawing, &plain] {
        daemon.watch(&address);
    }
    for daemon in [&mut drawing, &mut plain] {
        daemon.stop();
    }
    for _ in 0..8 {
        node.mine_to_nobody(500);
    }
    for daemon in [&mut drawing, &mut plain] {
        daemon.restart();
        let scan = json!({ "from_height": 0 });
        let asked = daemon.post(&format!("/scan_history/{address}"), &scan);
        assert_eq!(asked.status, 202, "{}", asked.text);
        daemon.wait_tip(&node);
        daemon.wait_complete(&address);
    }
    let log = wait_until("something was drawn", || {
        let log = drawing.log();
        DRAWN.iter().any(|name| log.contains(name)).then_some(log)
    });
    drawing.stop();
    // A line is drawn over from its beginning, so what a log line stands behind ends with that.
    for line in log.lines().filter(|line| line.contains("satwatch::")) {
        let (before, _) = line.split_once("Z ").expect("a time");
        let before = before.rsplit(['\r', 'K', 'J']).next().expect("one part");
        assert!(!before.contains('['), "{line:?}");
    }
    plain.stop();
    assert!(!plain.log().contains(['\r', '\u{1b}']), "{}", plain.log());
    assert!(!DRAWN.iter().any(|name| plain.log().contains(name)));
}
