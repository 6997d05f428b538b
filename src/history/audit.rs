//! Our confirmed unspent outputs of one script, or of one descriptor, beside the node's own, at one
//! block.
//!
//! Of a descriptor the node is asked for the scripts that it derives itself at the indexes that we
//! watch, and only of a keychain that it cannot derive for the scripts one by one.

use std::collections::HashSet;
use std::time::Duration;

use bitcoin::{OutPoint, ScriptBuf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::utxo_scan::Outputs;
use super::{Interrupted, NodeContext, blocking};
use crate::bitcoind::rpc::ScanRange;
use crate::bitcoind::{NodeError, NodeErrorKind};
use crate::descriptors::WalletDescriptor;
use crate::store::{Snapshot, StoreError, StoreReader};
use crate::tracker::input::FoundOutput;
use crate::tracker::{
    Baseline, BlockId, Coverage, Derivation, DescriptorId, Keychain, OutputRow, ScriptHash,
};

/// What an audit waits for before the scan: that we are at the node's tip, and after it: that we
/// come to its block.
const CATCH_UP: Duration = Duration::from_secs(10);
/// What it waits for another program's scan.
const BUSY: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(1);
/// Scans until one holds still: each is ended by a reorg, or by somebody else.
const SCANS: usize = 3;
/// Indexes of one range: the node takes a million.
const RANGE: u32 = 500_000;

/// Somebody wants to know. Hanging up (dropping the receiver) ends the scan.
pub struct AuditRequest {
    pub of: Audit,
    pub answer: oneshot::Sender<Result<Audited, NodeError>>,
}

/// What is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audit {
    Script(ScriptBuf),
    /// Of its scripts those that are watched when it begins.
    Descriptor(DescriptorId),
}

/// What both say of the confirmed unspent outputs at `block`. Outputs that an unconfirmed
/// transaction spends count.
#[derive(Debug, Clone, PartialEq)]
pub struct Audited {
    pub block: BlockId,
    /// Number of the last event that our side includes.
    pub head: u64,
    /// `None`: it was not watched at this block any more. That of a descriptor is pending while a
    /// baseline of one of its scripts is.
    pub coverage: Option<Coverage>,
    /// A history scan of it has not ended.
    pub is_in_scan: bool,
    pub ours: Vec<(OutPoint, OutputRow)>,
    pub theirs: Vec<FoundOutput>,
}

/// Answers requests, one at a time, until `shutdown`; ends a running scan of ours then.
pub(super) async fn run(
    mut context: NodeContext,
    mut requests: mpsc::Receiver<AuditRequest>,
    shutdown: CancellationToken,
) -> Result<(), StoreError> {
    let rpc = context.rpc.clone();
    let serve = async {
        while let Some(AuditRequest { of, mut answer }) = requests.recv().await {
            let audited = tokio::select! {
                audited = audit(&mut context, &of) => audited,
                () = answer.closed() => continue,
            };
            let audited = match audited {
                Ok(audited) => Ok(audited),
                Err(Interrupted::Node(error) | Interrupted::Away(error)) => Err(error),
                Err(Interrupted::Moved) => Err(unsettled(
                    "the chain changes faster than it can be compared",
                )),
                Err(Interrupted::Over) => return Ok(()),
                Err(Interrupted::Store(error)) => return Err(error),
            };
            // Who has hung up does not need it.
            let _ = answer.send(audited);
        }
        Ok(())
    };
    tokio::select! {
        ended = serve => ended,
        () = shutdown.cancelled() => {
            rpc.scans_ended().await;
            Ok(())
        }
    }
}

async fn audit(context: &mut NodeContext, of: &Audit) -> Result<Audited, Interrupted> {
    let there = tokio::time::timeout(CATCH_UP, context.wait_for(|position| position.at_node_tip));
    there.await.unwrap_or_else(|_| {
        Err(unsettled("satwatch is not at bitcoind's tip (GET /status says why)").into())
    })?;
    let mut left = SCANS;
    loop {
        left -= 1;
        let outputs = scan(context, of).await?;
        let compared = tokio::time::timeout(CATCH_UP, compare(context, outputs, of)).await;
        match compared.unwrap_or_else(|_| {
            Err(unsettled("satwatch did not come to the block that bitcoind speaks for").into())
        }) {
            Err(Interrupted::Moved) if left > 0 => {}
            other => return other,
        }
    }
}

/// The node's side. Another program's scan is waited for, up to a point.
async fn scan(context: &NodeContext, of: &Audit) -> Result<Outputs, Interrupted> {
    let (reader, asked) = (context.reader.clone(), of.clone());
    let asked = blocking(move || asked_of_node(&reader, &asked)).await?;
    let until = Instant::now() + BUSY;
    loop {
        let AuditQuery {
            spks,
            ranges,
            of_ranges,
        } = asked.clone();
        match Outputs::scan(&context.rpc, spks, ranges, of_ranges, usize::MAX).await {
            Err(error) if error.kind == NodeErrorKind::Busy && Instant::now() < until => {
                tokio::time::sleep(PAUSE).await
            }
            Err(error) => return Err(error.into()),
            Ok(mut outputs) => {
                // What it derives and we do not is a difference, if it is not spent meanwhile.
                let beyond = std::mem::take(&mut outputs.beyond).into_iter();
                if let Some(part) = outputs.parts.first_mut() {
                    let beyond = beyond.map(|output| (output.outpoint, output));
                    part.found.extend(beyond);
                }
                return Ok(outputs);
            }
        }
    }
}

/// What the node is asked for.
#[derive(Debug, Clone, Default, PartialEq)]
struct AuditQuery {
    spks: Vec<ScriptBuf>,
    ranges: Vec<ScanRange>,
    /// Scripts that we have in the ranges.
    of_ranges: Vec<ScriptBuf>,
}

fn asked_of_node(reader: &StoreReader, of: &Audit) -> Result<AuditQuery, Interrupted> {
    let mut asked = AuditQuery::default();
    let descriptor = match of {
        Audit::Script(spk) => {
            asked.spks.push(spk.clone());
            return Ok(asked);
        }
        Audit::Descriptor(descriptor) => *descriptor,
    };
    let snapshot = reader.snapshot();
    let mut known = HashSet::new();
    let rows = snapshot.descriptor(&descriptor)?;
    let Some((row, wallet)) = rows.zip(snapshot.wallet(&descriptor)?) else {
        return Ok(asked);
    };
    let parsed = WalletDescriptor::parse(&wallet.text, reader.chain().network);
    let parsed = parsed.map_err(|problem| {
        let message = format!("the descriptor {descriptor} cannot be read any more: {problem}");
        NodeError::new(NodeErrorKind::Setup, message)
    })?;
    for (keychain, indexes) in [Keychain::External, Keychain::Internal]
        .into_iter()
        .zip(&row.keychains)
    {
        let text = parsed.for_node(keychain as usize);
        let ours = match text {
            Some(_) => &mut asked.of_ranges,
            None => &mut asked.spks,
        };
        for index in 0..indexes.derived {
            let place = Derivation {
                descriptor,
                keychain,
                index,
            };
            let script = snapshot.derivation(&place)?;
            let watch = script.map(|script| snapshot.watch(&script)).transpose()?;
            let spk = watch.flatten().map(|watch| watch.spk);
            // One may stand in two places.
            ours.extend(spk.filter(|spk| known.insert(spk.clone())));
        }
        let Some(text) = text else { continue };
        for start in (0..indexes.derived).step_by(RANGE as usize) {
            asked.ranges.push(ScanRange {
                descriptor: text.clone(),
                indexes: start..start.saturating_add(RANGE).min(indexes.derived),
            });
        }
    }
    Ok(asked)
}

/// Both sides at one block, which is our tip in this moment.
async fn compare(
    context: &mut NodeContext,
    mut outputs: Outputs,
    of: &Audit,
) -> Result<Audited, Interrupted> {
    loop {
        outputs.roll_forward(context).await?;
        let (reader, of) = (context.reader.clone(), of.clone());
        let looked = blocking(move || {
            let audited = our_side(&reader, &mut outputs, &of)?;
            Ok((audited, outputs))
        });
        let audited;
        (audited, outputs) = looked.await?;
        if let Some(audited) = audited {
            return Ok(audited);
        }
    }
}

/// `None`: our tip is another one by now.
fn our_side(
    reader: &StoreReader,
    outputs: &mut Outputs,
    of: &Audit,
) -> Result<Option<Audited>, StoreError> {
    let snapshot = reader.snapshot();
    if snapshot.tip()? != Some(outputs.block) {
        return Ok(None);
    }
    let spks = outputs.parts.iter().flat_map(|part| &part.spks);
    let scripts: HashSet<ScriptHash> = spks.map(|spk| ScriptHash::of(spk)).collect();
    let (mut ours, coverage, is_in_scan) = match of {
        Audit::Script(spk) => {
            let script = ScriptHash::of(spk);
            let ours = snapshot.utxos(&script, true, None, usize::MAX)?.utxos;
            let coverage = snapshot.watch(&script)?.map(|row| row.coverage);
            (ours, coverage, snapshot.is_in_scan(&script)?)
        }
        Audit::Descriptor(descriptor) => (
            snapshot
                .descriptor_utxos(descriptor, true, None, usize::MAX)?
                .utxos,
            coverage_of(&snapshot, descriptor)?,
            snapshot.is_descriptor_in_scan(descriptor)?,
        ),
    };
    // Scripts that a descriptor got meanwhile were not asked for.
    ours.retain(|(_, row)| row.height.is_some() && scripts.contains(&row.script));
    let theirs = outputs
        .parts
        .iter_mut()
        .flat_map(|part| std::mem::take(&mut part.found).into_values())
        .collect();
    Ok(Some(Audited {
        block: outputs.block,
        head: snapshot.head()?,
        coverage,
        is_in_scan,
        ours,
        theirs,
    }))
}

fn coverage_of(
    snapshot: &Snapshot<'_>,
    descriptor: &DescriptorId,
) -> Result<Option<Coverage>, StoreError> {
    let Some(row) = snapshot.descriptor(descriptor)? else {
        return Ok(None);
    };
    let is_of_it = |place: &Derivation| place.descriptor == *descriptor;
    let mut pending = row.is_pending();
    for waiting in snapshot.pending_baselines() {
        let (_, watch) = waiting?;
        pending |= watch.coverage.is_awaited() && watch.derivations.iter().any(is_of_it);
        if pending {
            break;
        }
    }
    let wallet = snapshot.wallet(descriptor)?;
    let is_wanted = wallet.is_some_and(|wallet| wallet.baseline != Baseline::Skip);
    Ok(Some(Coverage {
        from_height: row.from_height,
        utxos_complete: is_wanted && !pending && row.left_out.is_empty(),
        pending,
        ..Coverage::default()
    }))
}

fn unsettled(why: &str) -> NodeError {
    NodeError::new(
        NodeErrorKind::Busy,
        format!("the audit could not be made now: {why}; try again"),
    )
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;
    use bitcoin::{Amount, BlockHash, Network, Txid};

    use super::super::utxo_scan::ScanPart;
    use super::*;
    use crate::store::{ChainInfo, open_at_boot};
    use crate::tracker::{
        Balance, ChangeSet, DescriptorRequest, Diff, Input, MemoryView, Spend, Tracker, Transition,
        WatchRow,
    };

    fn block(height: u32) -> BlockId {
        BlockId {
            height,
            hash: BlockHash::from_byte_array([7; 32]),
        }
    }

    fn outpoint(n: u8) -> OutPoint {
        OutPoint {
            txid: Txid::from_byte_array([n; 32]),
            vout: 0,
        }
    }

    fn spk() -> ScriptBuf {
        ScriptBuf::from_bytes(vec![0x51])
    }

    /// A store with outputs that are confirmed, spent in the mempool, spent in a block,
    /// unconfirmed.
    fn reader(folder: &std::path::Path) -> StoreReader {
        let chain = ChainInfo {
            network: Network::Regtest,
            genesis: BlockHash::all_zeros(),
        };
        let (mut writer, reader) = open_at_boot(folder, Some(chain), 0, "boot").unwrap();
        let script = ScriptHash::of(&spk());
        let spend = |height| {
            Some(Spend {
                txid: Txid::all_zeros(),
                height,
            })
        };
        let rows = [
            (Some(3), None),
            (Some(3), spend(None)),
            (Some(3), spend(Some(5))),
            (None, None),
        ];
        let outputs = (1..).zip(rows).map(|(n, (height, spent))| {
            let row = OutputRow {
                script,
                value: 5,
                height,
                coinbase: false,
                spent,
                earlier: Vec::new(),
            };
            (outpoint(n), added(row))
        });
        let watch = WatchRow {
            spk: spk(),
            listed: true,
            derivations: Vec::new(),
            label: String::new(),
            added: 0,
            depths: vec![1],
            coverage: Coverage {
                from_height: 9,
                utxos_complete: true,
                pending: false,
                ..Coverage::default()
            },
            balance: Balance::default(),
            utxo_count: 2,
            outputs: 2,
            tx_count: 0,
            updated: 0,
        };
        let changes = ChangeSet {
            outputs: outputs.collect(),
            watches: [(script, added(watch))].into(),
            tip: [((), added(block(9)))].into(),
            ..ChangeSet::default()
        };
        let transition = Transition {
            changes,
            ..Transition::default()
        };
        writer.commit(&[transition], false).unwrap();
        reader
    }

    fn added<R>(row: R) -> Diff<R> {
        let new = Some(row);
        Diff { old: None, new }
    }

    fn outputs(at: BlockId) -> Outputs {
        let found = FoundOutput {
            outpoint: outpoint(1),
            spk: spk(),
            value: Amount::from_sat(5),
            height: 3,
            coinbase: false,
        };
        Outputs {
            block: at,
            beyond: Vec::new(),
            parts: vec![ScanPart {
                spks: [spk()].into(),
                found: [(outpoint(1), found)].into(),
                ..ScanPart::default()
            }],
        }
    }

    #[test]
    fn our_side_is_what_is_confirmed_and_not_spent_in_a_block() {
        let folder = tempfile::tempdir().unwrap();
        let reader = reader(folder.path());
        let audited = our_side(&reader, &mut outputs(block(9)), &Audit::Script(spk()))
            .unwrap()
            .expect("the tip is that block");
        assert_eq!(
            audited
                .ours
                .iter()
                .map(|(outpoint, _)| *outpoint)
                .collect::<Vec<_>>(),
            [outpoint(1), outpoint(2)]
        );
        assert_eq!(
            audited
                .theirs
                .iter()
                .map(|found| found.outpoint)
                .collect::<Vec<_>>(),
            [outpoint(1)]
        );
        assert_eq!(
            (
                audited.block,
                audited.head,
                audited.coverage.map(|coverage| coverage.from_height)
            ),
            (block(9), 0, Some(9))
        );
    }

    #[test]
    fn sides_at_different_blocks_are_not_compared() {
        let folder = tempfile::tempdir().unwrap();
        let reader = reader(folder.path());
        let mut others = [
            outputs(block(8)),
            outputs(BlockId {
                hash: BlockHash::all_zeros(),
                ..block(9)
            }),
        ];
        for outputs in &mut others {
            assert_eq!(
                our_side(&reader, outputs, &Audit::Script(spk())).unwrap(),
                None
            );
            assert_eq!(
                outputs.parts[0].found.len(),
                1,
                "it is carried on and compared then"
            );
        }
    }

    /// However many scripts it has, its request stays short.
    #[test]
    fn of_a_descriptor_the_node_is_asked_for_ranges_and_not_for_each_script() {
        const WALLET: &str = "wpkh(tpubDC8msFGeGuwnKG9Upg7DM2b4DaRqg3CUZa5g8v2SRQ6K4NSkxUgd7HsL2XVWbVm39yBA4LAxysQAm397zwQSQoQgewGiYZqrA9DsP4zbQ1M/<0;1>/*)";
        let folder = tempfile::tempdir().unwrap();
        let chain = ChainInfo {
            network: Network::Regtest,
            genesis: BlockHash::all_zeros(),
        };
        let (mut writer, reader) = open_at_boot(folder.path(), Some(chain), 0, "boot").unwrap();
        let wallet = WalletDescriptor::parse(WALLET, Network::Regtest).unwrap();
        let descriptor = DescriptorId([1; 32]);
        let mut tracker = Tracker::new([7; 16]);
        let mut view = MemoryView::default();
        let request = DescriptorRequest {
            text: WALLET.to_owned(),
            keychains: 2,
            is_ranged: true,
            label: None,
            gap_limit: Some(20),
            range: 0,
            depths: Vec::new(),
            baseline: Baseline::IfMissing,
        };
        let derived = |keychain, indexes: std::ops::Range<u32>| Input::Derived {
            descriptor,
            keychain,
            first: indexes.start,
            spks: wallet.derive(keychain as usize, indexes),
            now: 0,
        };
        for input in [
            Input::AddDescriptor {
                descriptor,
                request,
                now: 0,
            },
            derived(Keychain::External, 0..30),
            derived(Keychain::Internal, 0..20),
        ] {
            let transition = tracker.apply(&view, input).unwrap();
            view.commit(&transition.changes);
            writer.commit(&[transition], false).unwrap();
        }
        let asked = asked_of_node(&reader, &Audit::Descriptor(descriptor)).unwrap();
        assert!(asked.spks.is_empty());
        let ranges: Vec<_> = asked.ranges.iter().map(|it| it.indexes.clone()).collect();
        assert_eq!(ranges, [0..30, 0..20]);
        let ours: HashSet<_> = asked.of_ranges.into_iter().collect();
        let external = wallet.derive(0, 0..30).into_iter();
        assert_eq!(ours, external.chain(wallet.derive(1, 0..20)).collect());
    }

    #[test]
    fn a_script_that_nobody_watches_has_no_side_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let audited = our_side(
            &reader(folder.path()),
            &mut outputs(block(9)),
            &Audit::Script(ScriptBuf::new()),
        )
        .unwrap()
        .expect("the tip is that block");
        assert_eq!((audited.coverage, audited.ours), (None, vec![]));
    }
}
