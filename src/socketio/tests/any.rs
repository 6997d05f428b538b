//! Any messages in any order.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Input {
    Text(String),
    Binary(usize),
    /// The client comes back with the private id that it was given at this place, and this offset;
    /// `true`: its old session has ended.
    Back(usize, usize, bool),
    News,
}

fn input() -> impl Strategy<Value = Input> {
    let namespace = prop_oneof![
        Just(""),
        Just("/custom,"),
        Just("/n1,"),
        Just("/private,"),
        Just("/x"),
        Just("/n1?a=1,")
    ];
    let body = prop_oneof![
        Just(String::new()),
        "(echo|ack|leave|leave all|work|é)".prop_map(|name| format!("[\"{name}\",1]")),
        Just(r#"7["a",{"_placeholder":true,"num":0}]"#.to_owned()),
        any::<String>(),
    ];
    prop_oneof![
        8 => ("(0|1|2|3|51-|62-)", namespace, body).prop_map(|(kind, namespace, body)| Input::Text(kind + namespace + &body)),
        2 => (0_usize..100).prop_map(Input::Binary),
        1 => Just(Input::Text(r#"0{"recover":true}"#.to_owned())),
        1 => Just(Input::Text(r#"0/n1,{"recover":true}"#.to_owned())),
        2 => (0_usize..4, 0_usize..4, any::<bool>()).prop_map(|(place, offset, ended)| Input::Back(place, offset, ended)),
        1 => Just(Input::News),
        1 => any::<String>().prop_map(Input::Text),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_messages_leave_pairs_of_connected_and_disconnected(four in any::<bool>(), inputs in prop::collection::vec(input(), 0..60)) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
            let mut client = if four { Client::four() } else { Client::new() };
            let (mut gone, mut pids) = (Vec::new(), Vec::new());
            for input in inputs {
                match input {
                    // The application acknowledges only what asks for it.
                    Input::Text(text) if text.contains("ack") && !text.contains('7') => {}
                    Input::Text(text) => client.text(&text).await,
                    Input::Binary(len) => {
                        if let Some(work) = client.layer.message(&client.session, Message::Binary(vec![0; len].into())) {
                            work.await;
                        }
                    }
                    Input::Back(place, offset, ended) => {
                        if ended {
                            client.end(CloseReason::TransportClose);
                        }
                        let again = client.beside();
                        gone.push(std::mem::replace(&mut client, again));
                        let pid = pids.get(place).cloned().unwrap_or_default();
                        client.text(&format!(r#"0{{"recover":true,"pid":"{pid}","offset":"{offset}"}}"#)).await;
                    }
                    Input::News => client.app.publish(Encoded::event("/", "news", &1).unwrap()),
                }
                for line in client.raw() {
                    pids.extend(line.split_once(r#""pid":""#).map(|(_, rest)| rest[..20].to_owned()));
                }
            }
            for client in gone.iter().chain([&client]) {
                client.end(CloseReason::TransportClose);
            }
            let (here, lost) = client.layer.sessions().counts();
            assert_eq!((here, lost), (0, client.app.lost.lock().unwrap().len()));
            let log = client.logged();
            let count = |word: &str| log.iter().filter(|line| line.starts_with(word)).count();
            assert_eq!(count("connected") + count("resumed"), count("disconnected"));
            assert_eq!(client.layer.budget().used(), 0);
        });
    }
}
