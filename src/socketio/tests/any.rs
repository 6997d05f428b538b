//! Any messages in any order.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Input {
    Text(String),
    Binary(usize),
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
        1 => any::<String>().prop_map(Input::Text),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_messages_leave_pairs_of_connected_and_disconnected(four in any::<bool>(), inputs in prop::collection::vec(input(), 0..60)) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
            let client = if four { Client::four() } else { Client::new() };
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
                }
            }
            client.end(CloseReason::TransportClose);
            let log = client.logged();
            let count = |word: &str| log.iter().filter(|line| line.starts_with(word)).count();
            assert_eq!(count("connected"), count("disconnected"));
            assert_eq!(client.layer.budget().used(), 0);
        });
    }
}
