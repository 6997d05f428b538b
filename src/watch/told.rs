//! What lines for people go back to: labels of wallets, and the amounts of transactions that were
//! told.

use std::collections::BTreeMap;

use serde_json::Value;

use super::words::{IS_CORRECTED, WALLET_LABEL};

/// So many amounts are kept; then all are forgotten.
const MOST_AMOUNTS: usize = 10_000;

#[derive(Debug, Default)]
pub struct Told {
    /// By id of the descriptor.
    labels: BTreeMap<String, String>,
    /// What a transaction brings, by whom it concerns and its id.
    amounts: BTreeMap<(String, String), i64>,
}

impl Told {
    /// Takes note of the label of a wallet, as descriptors and `label_change` have it.
    pub fn label(&mut self, wallet: &Value) {
        if let (Some(id), Some(label)) =
            (wallet["descriptor_id"].as_str(), wallet["label"].as_str())
        {
            self.labels.insert(id.to_owned(), label.to_owned());
        }
    }

    /// Adds [`WALLET_LABEL`].
    pub fn add_label(&self, data: &mut Value) {
        let label = data["descriptor_id"].as_str();
        let label = label.and_then(|id| self.labels.get(id)).cloned();
        if let (Some(label), Some(fields)) = (label, data.as_object_mut()) {
            fields.insert(WALLET_LABEL.to_owned(), label.into());
        }
    }

    /// Adds to an event what words need, and takes note of what it says.
    pub fn add(&mut self, name: &str, data: &mut Value) {
        if name == "label_change" {
            self.label(data);
        }
        self.add_label(data);
        let subject = ["address", "descriptor_id"].map(|field| data[field].as_str());
        let subject = subject.into_iter().flatten().next().unwrap_or_default();
        let subject = subject.to_owned();
        for transaction in data["transactions"].as_array().into_iter().flatten() {
            self.note(&subject, transaction);
        }
        if name == "transaction_update" {
            let is_corrected = self.note(&subject, data);
            if let Some(fields) = data.as_object_mut() {
                fields.insert(IS_CORRECTED.to_owned(), is_corrected.into());
            }
        }
    }

    /// Whether the amount was another one.
    fn note(&mut self, subject: &str, transaction: &Value) -> bool {
        let (Some(txid), Some(net)) = (transaction["txid"].as_str(), transaction["net"].as_i64())
        else {
            return false;
        };
        if self.amounts.len() >= MOST_AMOUNTS {
            self.amounts.clear();
        }
        let key = (subject.to_owned(), txid.to_owned());
        self.amounts.insert(key, net).is_some_and(|old| old != net)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn amounts_that_change_are_seen() {
        let mut told = Told::default();
        let seen = json!({ "txid": "ab", "net": 5 });
        told.add(
            "new_transactions",
            &mut json!({ "address": "a", "transactions": [seen] }),
        );
        for (subject, net, is_corrected) in [
            ("a", 5, false),
            ("a", 4, true),
            ("a", 4, false),
            // Told for the first time.
            ("b", 3, false),
        ] {
            let mut update = json!({ "address": subject, "txid": "ab", "net": net });
            told.add("transaction_update", &mut update);
            assert_eq!(update[IS_CORRECTED], is_corrected, "{subject} {net}");
        }
    }

    #[test]
    fn few_amounts_are_kept() {
        let mut told = Told::default();
        for number in 0..MOST_AMOUNTS + 10 {
            told.note("a", &json!({ "txid": number.to_string(), "net": 1 }));
            assert!(told.amounts.len() <= MOST_AMOUNTS);
        }
    }

    #[test]
    fn a_wallet_has_its_newest_label() {
        let mut told = Told::default();
        told.label(&json!({ "descriptor_id": "d0", "label": "rent" }));
        let mut balance = json!({ "descriptor_id": "d0" });
        told.add_label(&mut balance);
        assert_eq!(balance[WALLET_LABEL], "rent");
        let mut change = json!({ "descriptor_id": "d0", "label": "till" });
        told.add("label_change", &mut change);
        told.add_label(&mut balance);
        assert_eq!([&change[WALLET_LABEL], &balance[WALLET_LABEL]], ["till"; 2]);
        let mut other = json!({ "descriptor_id": "d1" });
        told.add_label(&mut other);
        assert_eq!(other, json!({ "descriptor_id": "d1" }));
    }
}
