//! Where webhooks go and how: through a SOCKS proxy, to private targets that are listed, and to
//! receivers whose certificate is of an authority of one's own.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::receiver::{Receiver, Reply};
use super::socks::Socks;
use super::{consumer, put};
use crate::common::{COIN, Daemon, Node, Program, wait_until};

/// What a test delivery to a URL comes to.
fn tested(daemon: &Daemon, url: &str) -> Value {
    let made = put(daemon, "shop", &json!({ "url": url }));
    assert!(matches!(made.status, 200 | 201), "{url}: {}", made.text);
    let tested = daemon.request("POST", "/consumers/shop/test", &[], None);
    assert_eq!(tested.status, 200, "{}", tested.text);
    tested.json
}

fn refusal(daemon: &Daemon, url: &str) -> String {
    let answer = put(daemon, "shop", &json!({ "url": url }));
    let code = &answer.json["code"];
    assert_eq!(
        (answer.status, code),
        (400, &json!("webhook_target_refused"))
    );
    answer.json["error"]
        .as_str()
        .expect("a sentence")
        .to_owned()
}

#[test]
fn case_15_an_onion_is_refused_with_the_reason_and_reached_through_the_proxy_of_the_remedy() {
    let (node, receiver) = (Node::start(), Receiver::start(|_| Reply::Status(200)));
    let onion = "http://shopshopshop.onion/hook";
    let reason = refusal(&Daemon::start(&node), onion);
    assert!(reason.contains("Tor"), "{reason}");
    let (setting, _) = reason.split_once(" = \"socks5h://").expect("a remedy");
    let setting = setting.rsplit(' ').next().expect("the name of a setting");

    let socks = Socks::start(receiver.port());
    let daemon = Daemon::with(&node, &[(setting, &socks.url())]);
    let answer = tested(&daemon, onion);
    assert_eq!(answer["delivered"], true, "{answer}");
    let (post, _) = receiver.posts().remove(0);
    assert_eq!(post.headers["host"], "shopshopshop.onion");
    assert_eq!(socks.asked(), ["shopshopshop.onion:80"]);
}

#[test]
fn proxy_names_are_not_resolved_here_and_private_targets_stay_refused() {
    let (node, receiver) = (Node::start(), Receiver::start(|_| Reply::Status(200)));
    let socks = Socks::start(receiver.port());
    let proxy = ("webhooks.proxy", &*socks.url());
    let daemon = Daemon::with(&node, &[proxy]);
    // No name server knows it (RFC 6761): only the proxy can have made something of it.
    let answer = tested(&daemon, "http://shop.invalid:8080/");
    assert_eq!(answer["delivered"], true, "{answer}");
    assert_eq!(socks.asked(), ["shop.invalid:8080"]);
    for url in ["http://127.0.0.1/", "http://10.0.0.1/", "http://localhost/"] {
        let reason = refusal(&daemon, url);
        assert!(reason.contains("webhooks.allowed_targets"), "{reason}");
    }

    let listed = ("webhooks.allowed_targets", "127.0.0.0/8,localhost");
    let daemon = Daemon::with(&node, &[proxy, listed]);
    for host in ["127.0.0.1", "localhost"] {
        let answer = tested(&daemon, &receiver.url(host));
        assert_eq!(answer["delivered"], true, "{answer}");
    }
    assert_eq!(socks.asked().len(), 1, "what is listed is reached directly");

    let nowhere = ("webhooks.proxy", "socks5h://127.0.0.1:1");
    let daemon = Daemon::with(&node, &[nowhere]);
    let answer = tested(&daemon, "http://shop.invalid/");
    let error = answer["error"].as_str().expect("a sentence");
    assert!(error.contains("webhooks.proxy"), "{error}");
}

/// Runs openssl in a folder.
fn openssl(folder: &Path, args: &[&str]) {
    let output = Command::new("openssl")
        .args(args)
        .current_dir(folder)
        .output();
    let output = output.expect("openssl is installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {args:?}: {errors}");
}

/// An authority, and a certificate of it for localhost.
fn make_certificates(folder: &Path) {
    #[rustfmt::skip]
    openssl(folder, &[
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=an authority",
        "-keyout", "ca.key", "-out", "ca.pem",
    ]);
    #[rustfmt::skip]
    openssl(folder, &[
        "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost",
        "-keyout", "key.pem", "-out", "request.pem",
    ]);
    let names = "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n";
    std::fs::write(folder.join("names"), names).expect("the folder is ours");
    #[rustfmt::skip]
    openssl(folder, &[
        "x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2",
        "-set_serial", "1", "-extfile", "names", "-out", "certificate.pem",
    ]);
}

const TLS_RECEIVER: &str = r#"
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(FOLDER + "/certificate.pem", FOLDER + "/key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
print("port", server.server_address[1], flush=True)
server.serve_forever()
"#;

#[test]
fn certificates_of_an_authority_of_ones_own_are_taken_as_the_error_says() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    make_certificates(folder.path());
    let script = format!("FOLDER = {:?}\n{TLS_RECEIVER}", folder.path());
    let program = Program::python_text("a receiver with TLS", &script);
    let port = program.line("its port", |line| {
        line.strip_prefix("port ").map(str::to_owned)
    });
    let (node, url) = (Node::start(), format!("https://localhost:{port}/"));

    let listed = ("webhooks.allowed_targets", "localhost");
    let daemon = Daemon::with(&node, &[listed]);
    let answer = tested(&daemon, &url);
    let error = answer["error"].as_str().expect("a sentence");
    assert!(error.contains("update-ca-certificates"), "{error}");
    assert!(error.contains("SSL_CERT_FILE"), "{error}");
    assert_eq!(consumer(&daemon, "shop")["webhook"]["attempts"], json!([]));
    // Of what is delivered the log says it once, with the consumer's name.
    let address = node.address();
    daemon.watch(&address);
    node.pay(&address, COIN);
    wait_until("it was tried again", || {
        let attempts = consumer(&daemon, "shop")["webhook"]["attempts"].clone();
        (attempts.as_array()?.len() > 1).then_some(())
    });
    let log = daemon.log();
    let told = log.lines().filter(|line| line.contains("delivery failed"));
    let told: Vec<_> = told.collect();
    assert!(!told.is_empty(), "{log}");
    assert!(
        told.iter().all(|line| line.contains("consumer=\"shop\"")),
        "{told:#?}"
    );
    assert!(!log.contains("rustls_platform_verifier"), "{log}");

    let authority = folder.path().join("ca.pem").display().to_string();
    let daemon = Daemon::with(&node, &[listed, ("SSL_CERT_FILE", &authority)]);
    let answer = tested(&daemon, &url);
    assert_eq!(answer["status"], 204, "{answer}");
}
