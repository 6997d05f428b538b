//! Arbitrary rows, for the tests of the files beside this one.

use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
    absolute, transaction,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::tracker::{
    Balance, Baseline, BlockId, BlockRow, Coverage, Derivation, DescriptorId, DescriptorRow,
    DescriptorScan, EarlierOutput, Keychain, KeychainRow, Net, OutputRow, ScanRow, ScanState,
    ScriptHash, Spend, Staged, Status, Touch, TxRow, WalletRow, WatchRow, WayBack,
};

pub fn txid() -> impl Strategy<Value = Txid> {
    any::<[u8; 32]>().prop_map(Txid::from_byte_array)
}

pub fn block_hash() -> impl Strategy<Value = BlockHash> {
    any::<[u8; 32]>().prop_map(BlockHash::from_byte_array)
}

pub fn block_id() -> impl Strategy<Value = BlockId> {
    (any::<u32>(), block_hash()).prop_map(|(height, hash)| BlockId { height, hash })
}

pub fn script() -> impl Strategy<Value = ScriptHash> {
    any::<[u8; 32]>().prop_map(ScriptHash)
}

pub fn descriptor_id() -> impl Strategy<Value = DescriptorId> {
    any::<[u8; 32]>().prop_map(DescriptorId)
}

pub fn keychain() -> impl Strategy<Value = Keychain> {
    prop_oneof![Just(Keychain::External), Just(Keychain::Internal)]
}

pub fn derivation() -> impl Strategy<Value = Derivation> {
    (descriptor_id(), keychain(), any::<u32>()).prop_map(|(descriptor, keychain, index)| {
        Derivation {
            descriptor,
            keychain,
            index,
        }
    })
}

pub fn descriptor_row() -> impl Strategy<Value = DescriptorRow> {
    let keychain = (option::of(any::<u32>()), any::<[u32; 5]>()).prop_map(
        |(last_used, [reserved, window, watched_to, derived, first])| KeychainRow {
            last_used,
            reserved,
            window,
            watched_to,
            derived,
            first,
        },
    );
    (
        vec(keychain, 0..3),
        vec(any::<u8>(), 0..4),
        (option::of(balance()), balance()),
        (any::<bool>(), any::<[u32; 2]>()),
        any::<[u64; 4]>(),
        vec(derivation(), 0..3),
    )
        .prop_map(
            |(
                keychains,
                depths,
                (held, balance),
                (is_ranged, [gap_limit, from_height]),
                [awaited, utxo_count, tx_count, updated],
                left_out,
            )| DescriptorRow {
                keychains,
                is_ranged,
                gap_limit,
                depths,
                from_height,
                awaited,
                held,
                balance,
                utxo_count,
                tx_count,
                updated,
                left_out,
            },
        )
}

pub fn wallet_row() -> impl Strategy<Value = WalletRow> {
    let baseline = prop_oneof![
        Just(Baseline::Skip),
        Just(Baseline::IfMissing),
        Just(Baseline::Refresh)
    ];
    (any::<[String; 2]>(), any::<u64>(), baseline).prop_map(|([text, label], added, baseline)| {
        WalletRow {
            text,
            label,
            added,
            baseline,
        }
    })
}

pub fn spk() -> impl Strategy<Value = ScriptBuf> {
    vec(any::<u8>(), 0..300).prop_map(ScriptBuf::from_bytes)
}

pub fn outpoint() -> impl Strategy<Value = OutPoint> {
    (txid(), any::<u32>()).prop_map(|(txid, vout)| OutPoint { txid, vout })
}

pub fn balance() -> impl Strategy<Value = Balance> {
    any::<(i64, i64)>().prop_map(|(confirmed, unconfirmed)| Balance {
        confirmed,
        unconfirmed,
    })
}

pub fn status() -> impl Strategy<Value = Status> {
    prop_oneof![
        Just(Status::Mempool),
        (block_id(), any::<u32>())
            .prop_map(|(block, position)| Status::Confirmed { block, position }),
        txid().prop_map(|by| Status::Replaced { by }),
        txid().prop_map(|by| Status::Conflicted { by }),
        Just(Status::Evicted),
    ]
}

pub fn tx() -> impl Strategy<Value = Transaction> {
    let input = (
        outpoint(),
        spk(),
        prop_oneof![any::<u32>(), Just(u32::MAX)],
        vec(vec(any::<u8>(), 0..80), 0..3),
    )
        .prop_map(|(previous_output, script_sig, sequence, witness)| TxIn {
            previous_output,
            script_sig,
            sequence: Sequence(sequence),
            witness: Witness::from_slice(&witness),
        });
    let output = (any::<u64>(), spk()).prop_map(|(value, script_pubkey)| TxOut {
        value: Amount::from_sat(value),
        script_pubkey,
    });
    (
        prop_oneof![any::<i32>(), Just(3)],
        any::<u32>(),
        vec(input, 1..4),
        vec(output, 0..4),
    )
        .prop_map(|(version, lock_time, input, output)| Transaction {
            version: transaction::Version(version),
            lock_time: absolute::LockTime::from_consensus(lock_time),
            input,
            output,
        })
}

pub fn watch_row() -> impl Strategy<Value = WatchRow> {
    let coverage = (
        any::<(u32, [bool; 4])>(),
        option::of((balance(), any::<i64>())),
    )
        .prop_map(
            |((from_height, [utxos_complete, pending, left_out, in_portions]), staged)| Coverage {
                from_height,
                utxos_complete,
                pending,
                staged: staged.map(|(balance, utxo_count)| Staged {
                    balance,
                    utxo_count,
                }),
                left_out,
                in_portions,
            },
        );
    (
        spk(),
        any::<String>(),
        vec(any::<u8>(), 0..9),
        coverage,
        balance(),
        (any::<bool>(), vec(derivation(), 0..3)),
        any::<[u64; 5]>(),
    )
        .prop_map(
            |(
                spk,
                label,
                depths,
                coverage,
                balance,
                (listed, derivations),
                [added, utxo_count, outputs, tx_count, updated],
            )| {
                WatchRow {
                    spk,
                    listed,
                    derivations,
                    label,
                    added,
                    depths,
                    coverage,
                    balance,
                    utxo_count,
                    outputs,
                    tx_count,
                    updated,
                }
            },
        )
}

pub fn output_row() -> impl Strategy<Value = OutputRow> {
    let spend =
        (txid(), option::of(any::<u32>())).prop_map(|(txid, height)| Spend { txid, height });
    let earlier = (any::<u32>(), txid(), any::<u32>());
    let earlier = earlier.prop_map(|(height, spender, spent_at)| EarlierOutput {
        height,
        spender,
        spent_at,
    });
    (
        script(),
        any::<u64>(),
        option::of(any::<u32>()),
        any::<bool>(),
        option::of(spend),
        vec(earlier, 0..3),
    )
        .prop_map(
            |(script, value, height, coinbase, spent, earlier)| OutputRow {
                script,
                value,
                height,
                coinbase,
                spent,
                earlier,
            },
        )
}

pub fn tx_row() -> impl Strategy<Value = TxRow> {
    let touch = (script(), any::<(u64, u64)>()).prop_map(|(script, (received, sent))| Touch {
        script,
        received,
        sent,
    });
    let net =
        (descriptor_id(), any::<(u64, u64)>()).prop_map(|(descriptor, (received, sent))| Net {
            descriptor,
            received,
            sent,
        });
    (
        (status(), any::<[bool; 2]>()),
        any::<(u64, u64)>(),
        (vec(touch, 0..4), vec(net, 0..3)),
        vec(any::<u32>(), 0..3),
    )
        .prop_map(
            |((status, [inherits, signals]), (first_seen, order), (touches, nets), earlier)| {
                TxRow {
                    status,
                    signals,
                    inherits: inherits && status == Status::Mempool,
                    first_seen,
                    order,
                    touches,
                    nets,
                    earlier,
                }
            },
        )
}

pub fn block_row() -> impl Strategy<Value = BlockRow> {
    (
        block_hash(),
        any::<u32>(),
        vec(txid(), 0..4),
        vec(outpoint(), 0..4),
    )
        .prop_map(|(hash, time, touched, found)| BlockRow {
            hash,
            time,
            touched,
            found,
        })
}

pub fn scan_row() -> impl Strategy<Value = ScanRow> {
    let state = prop_oneof![
        Just(ScanState::Open),
        Just(ScanState::Complete),
        Just(ScanState::Cancelled)
    ];
    (
        any::<[u64; 3]>(),
        state,
        any::<[u32; 3]>(),
        any::<[Option<u32>; 2]>(),
    )
        .prop_map(
            |([created, updated, found], state, [from, next, scripts], [to, horizon])| ScanRow {
                created,
                updated,
                state,
                from,
                to,
                horizon,
                next,
                scripts,
                found,
            },
        )
}

pub fn descriptor_scan() -> impl Strategy<Value = DescriptorScan> {
    (
        any::<[u8; 32]>(),
        vec(any::<u32>(), 1..3),
        any::<[Option<u32>; 2]>(),
        any::<[u32; 2]>(),
    )
        .prop_map(
            |(descriptor, entered, [late, back], [then, from_height])| DescriptorScan {
                descriptor: DescriptorId(descriptor),
                entered,
                late,
                back: back.map(|upto| WayBack { upto, then }),
                from_height,
            },
        )
}
