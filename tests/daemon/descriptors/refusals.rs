//! What is refused, what is said of it, and that the log does not repeat it.

use serde_json::{Value, json};

use super::{add, id, of, of_owner};
use crate::common::{Answer, Client, Daemon, Node};

fn says(answer: &Answer, words: &str) {
    let sentence = answer.json["error"].as_str().unwrap_or_default();
    assert!(sentence.contains(words), "{words}: {}", answer.text);
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

#[test]
fn what_is_said_of_a_refused_wallet_helps() {
    let node = Node::start();
    let daemon = Daemon::with(&node, &[("limits.descriptor_scripts", "5000")]);
    let descriptor = of_owner(&node);
    let with = |name: &str, value: Value| {
        let mut body = json!({ "descriptor": descriptor, "history": "none" });
        body[name] = value;
        body
    };
    let refused = daemon.post("/add_address", &json!({ "address": descriptor }));
    says(
        &refused,
        "send it to POST /descriptors, which watches the wallet as one thing",
    );
    for name in ["desc", "xpub"] {
        let refused = daemon.post("/descriptors", &json!({ name: descriptor }));
        says(&refused, "write it as `descriptor`");
    }
    let refused = daemon.post("/descriptors", &with("internal", json!(true)));
    says(&refused, "write both keychains into one descriptor");
    let refused = daemon.post("/descriptors", &with("range", json!([0, 5000])));
    says(
        &refused,
        "Lower range or gap_limit, or have the limit raised",
    );
    let added = add(&daemon, &with("range", json!([0, 1000])));
    let wallet = id(&added);
    let again = json!({ "descriptor": descriptor, "history": "utxo" });
    let refused = daemon.post("/descriptors", &again);
    says(
        &refused,
        "Remove it with DELETE /descriptors/<id>, and add it again",
    );
    let path = format!("/descriptors/{wallet}");
    assert_eq!(daemon.request("DELETE", &path, &[], None).status, 200);
    add(&daemon, &again);

    let refused = daemon.get(&format!("{path}/addresses?after=7"));
    says(&refused, "write the `next` of the page before as `from`");
    let first = of(&daemon, &wallet, "/addresses?limit=1");
    let next = of(
        &daemon,
        &wallet,
        &format!("/addresses?from={}", first["next"]),
    );
    assert_eq!(next["addresses"][0]["index"], 1);
    let single = json!({ "descriptor": descriptor.replace("<0;1>", "7"), "history": "none" });
    let single = id(&add(&daemon, &single));
    let give = |body: Value| daemon.post(&format!("/descriptors/{single}/next_address"), &body);
    says(
        &give(json!({ "keychain": "internal" })),
        "Leave \"keychain\" out, or write \"external\"",
    );
    assert_eq!(give(json!({})).status, 200);
    assert_eq!(give(json!({ "keychain": "external" })).status, 200);

    let client = Client::connect(&daemon);
    let ask = |body: &Value| text(&client.ask("subscribe_descriptor", body)["error"]);
    assert!(ask(&json!({ "id": wallet })).contains("write it as `descriptor_id`"));
    let label = ask(&json!({ "descriptor_id": wallet, "label": "x" }));
    assert!(label.contains("POST /descriptors takes it"), "{label}");
    let labelled = json!({ "descriptor": descriptor, "label": "x" });
    assert_eq!(daemon.post("/descriptors", &labelled).status, 200);

    let mine = text(&first["addresses"][0]["address"]);
    let off = || daemon.request("DELETE", &format!("/addresses/{mine}"), &[], None);
    says(&off(), "Remove that with DELETE /descriptors/<id>");
    assert_eq!(daemon.request("DELETE", &path, &[], None).status, 200);
}

#[test]
fn a_private_key_comes_into_no_answer_and_no_log() {
    let node = Node::start();
    let daemon = Daemon::with(&node, &[("log.level", "trace")]);
    let listed = node.owner("listdescriptors", json!([true]));
    let secret = text(&listed["descriptors"][0]["desc"]);
    let key = secret
        .split(|c: char| !c.is_ascii_alphanumeric())
        .find(|word| word.starts_with("tprv"))
        .expect("a private key");
    let refused = daemon.post("/descriptors", &json!({ "descriptor": secret }));
    assert_eq!(refused.json["code"], "private_key", "{}", refused.text);
    let client = Client::connect(&daemon);
    let error = client.ask("subscribe_descriptor", &json!({ "descriptor": secret }));
    assert_eq!(error["code"], "private_key", "{error}");
    daemon.get(&format!("/descriptors/{key}"));
    let part = key.get(10..40).expect("it is longer");
    for said in [refused.text, error.to_string(), daemon.log()] {
        assert!(!said.contains(part), "{said}");
    }
    assert_eq!(daemon.get("/descriptors").json["total"], 0);
}
