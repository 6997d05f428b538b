//! Law 10 of the tracker with the store that it is kept in: a random life of a node, told to a
//! process that dies again and again.
//!
//! 1. After every death the store holds exactly the fold of the change sets that were committed,
//!    and exactly their events.
//! 2. When it dies between two pieces of news, it goes on to the very bytes of one that never died:
//!    rows, lookup rows, events.
//! 3. When it dies in the middle of one, or with the machine, what it missed is found as the
//!    follower finds it (by the fork point and a snapshot of the mempool), and the end is the
//!    truth: balances and statuses are the node's, the stored log folds to them.
//! 4. No number is given twice, also not after a power loss that took events away which were told.
//! 5. A history scan goes on from where the store says that it is; in the end everything above the
//!    height that a coverage names is in the rows, and nothing else.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};

use bitcoin::Transaction;
use proptest::prelude::*;
use satwatch::indexer::{self, must_last};
use satwatch::store::{StoreReader, Writer};
use satwatch::tracker::{
    ChangeSet, Event, FollowUp, Input, MemoryView, Overlay, Replacement, ScanEnd, ScanId,
    ScriptHash, Seen, Tracker, Transition, View,
};
use tempfile::{TempDir, tempdir};

use super::crash::newest_write_ahead_log;
use super::operations::{FollowedNode, Op, op, watch};
use super::pretended::laws::Kept;
use super::pretended::scans::{Stretch, next_step};
use super::pretended::script;
use super::{dump, open_at};

/// The pretended node lets be replaced what signals, so that inheritance counts.
const SIGNALLED: Input = Input::Policy(Replacement::Signalled);
const STRETCH: Stretch = Stretch {
    blocks: 3,
    too_much: false,
};

/// The process is dead: what was not committed never was.
#[derive(Debug)]
struct Died;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    /// kill -9 between two pieces of news.
    Between,
    /// kill -9 at a commit boundary.
    Within,
    /// The machine loses its power at a commit boundary, and with it all since the last synced
    /// commit.
    Power,
}

/// What the disk holds for certain.
struct Synced {
    /// Of the write-ahead log, which has everything since the start of the process.
    bytes: u64,
    rows: MemoryView,
    events: usize,
    transitions: usize,
}

struct Life {
    folder: TempDir,
    store: Option<(Writer, StoreReader)>,
    tracker: Tracker,
    /// The fold of the change sets that were committed.
    rows: MemoryView,
    log: Vec<(u64, Event)>,
    /// Every transition, with the events that it told.
    past: Vec<(ChangeSet, Vec<Event>)>,
    /// The highest number that anybody may have seen.
    told: u64,
    boots: u32,
    commits: u32,
    /// Inputs of one commit, at most.
    batch: usize,
    death: Option<Death>,
    /// Numbers of the commits that it does not live to see.
    deaths: HashSet<u32>,
    synced: Option<Synced>,
}

impl Life {
    fn begin(
        node: &FollowedNode,
        batch: usize,
        death: Option<Death>,
        deaths: HashSet<u32>,
    ) -> Self {
        let folder = tempdir().unwrap();
        let store = open_at(folder.path(), "boot-0");
        let mut life = Self {
            folder,
            store: Some(store),
            tracker: Tracker::new([7; 16]),
            rows: MemoryView::default(),
            log: Vec::new(),
            past: Vec::new(),
            told: 0,
            boots: 0,
            commits: 0,
            batch,
            death: None,
            deaths,
            synced: None,
        };
        let genesis = &node.chain[0];
        let start = Input::Start {
            first_height: 0,
            blocks: vec![(genesis.block_hash(), genesis.header.time)],
            now: 0,
        };
        life.tell(node, vec![SIGNALLED, start])
            .expect("it cannot die yet");
        for number in [1, 2, 3] {
            life.tell(node, vec![watch(number, 0)])
                .expect("it cannot die yet");
        }
        (life.death, life.commits) = (death, 0);
        life.is_on_the_disk();
        life
    }

    /// One piece of news; whatever it dies of, it is up again and has caught up at the end.
    fn hear(&mut self, node: &mut FollowedNode, op: &Op, now: u64) {
        let mut news = node.happen(op, now);
        if let Op::Cancel { scan } = op {
            let open = self.rows.open_scans();
            let scan = open.get(usize::from(*scan) % open.len().max(1)).copied();
            news.extend(scan.map(|scan| Input::CloseScan {
                scan,
                end: ScanEnd::Cancelled(None),
                now,
            }));
        }
        let mut alive = self
            .tell(node, news)
            .and_then(|()| self.find_pasts(node))
            .and_then(|()| self.scan(node))
            .is_ok();
        if self.death == Some(Death::Between)
            && self.deaths.contains(&u32::try_from(now / 1000).unwrap())
        {
            let (rows, log) = (self.rows.clone(), self.log.clone());
            self.resume(node, now).expect("it dies in between only");
            assert!(
                self.rows == rows && self.log == log,
                "a start without news changes nothing and tells nothing"
            );
        }
        while !alive {
            alive = self.resume(node, now).is_ok();
        }
    }

    /// Each open scan goes on a little.
    fn scan(&mut self, node: &FollowedNode) -> Result<(), Died> {
        for scan in self.rows.open_scans() {
            if self.rows.tip() == Some(node.tip()) {
                let input = next_step(node, &self.rows, scan, STRETCH, node.now);
                self.tell(node, input.into_iter().collect())?;
            }
        }
        Ok(())
    }

    /// Until no scan is open.
    fn scan_all(&mut self, node: &FollowedNode) {
        for _ in 0..10_000 {
            if self.rows.open_scans().is_empty() {
                return;
            }
            if self.scan(node).is_err() {
                while self.resume(node, node.now).is_err() {}
            }
        }
        panic!("scans do not end: {:?}", self.rows.scans);
    }

    /// Inputs and what the tracker asks for in answer to them.
    fn tell(&mut self, node: &FollowedNode, news: Vec<Input>) -> Result<(), Died> {
        for inputs in news.chunks(self.batch) {
            let asks = self.commit(inputs)?;
            for ask in asks {
                self.tell(node, answer(node, &self.rows, ask))?;
            }
        }
        Ok(())
    }

    /// What the indexer does with the inputs that wait.
    fn commit(&mut self, inputs: &[Input]) -> Result<Vec<FollowUp>, Died> {
        let dies = self.deaths.contains(&self.commits)
            && matches!(self.death, Some(Death::Within | Death::Power));
        self.commits += 1;
        let (writer, _) = self.store.as_mut().expect("it is alive");
        let mut overlay = Overlay::new(&*writer);
        let mut transitions: Vec<Transition> = Vec::new();
        let mut sync = false;
        for input in inputs {
            sync |= must_last(input);
            let transition = self
                .tracker
                .apply(&overlay, input.clone())
                .expect("the input is legal");
            overlay.add(transition.changes.clone());
            transitions.push(transition);
        }
        if dies {
            self.die();
            return Err(Died);
        }
        let mut number = writer.head_after(1);
        let head = writer.commit(&transitions, sync).unwrap();
        let mut follow_ups = Vec::new();
        for transition in transitions {
            self.rows.commit(&transition.changes);
            follow_ups.extend(transition.follow_ups);
            let next = number;
            number += transition.events.len() as u64;
            self.log.extend((next..).zip(transition.events.clone()));
            self.past.push((transition.changes, transition.events));
        }
        assert_eq!((head, head), (writer.head(), self.last_number()));
        self.told = self.told.max(head);
        if sync {
            self.is_on_the_disk();
        }
        Ok(follow_ups)
    }

    fn last_number(&self) -> u64 {
        self.log.last().map_or(0, |(number, _)| *number)
    }

    /// All that was written so far survives a power loss.
    fn is_on_the_disk(&mut self) {
        if self.death == Some(Death::Power) {
            let bytes = fs::metadata(newest_write_ahead_log(self.folder.path()))
                .unwrap()
                .len();
            self.synced = Some(Synced {
                bytes,
                rows: self.rows.clone(),
                events: self.log.len(),
                transitions: self.past.len(),
            });
        }
    }

    fn die(&mut self) {
        self.store = None;
        if let Some(synced) = self.synced.take() {
            self.boots += 1;
            self.rows = synced.rows;
            self.log.truncate(synced.events);
            self.past.truncate(synced.transitions);
            let log = File::options()
                .write(true)
                .open(newest_write_ahead_log(self.folder.path()))
                .unwrap();
            log.set_len(synced.bytes).unwrap();
        }
    }

    /// A new process: it reads the rows, finds the fork point, follows the chain, reads the
    /// mempool.
    fn resume(&mut self, node: &FollowedNode, now: u64) -> Result<(), Died> {
        self.store = None;
        self.check_files();
        let (writer, reader) = open_at(self.folder.path(), &format!("boot-{}", self.boots));
        let next = writer.head_after(1);
        assert!(
            next > self.told,
            "numbers are not given twice: {next} after {}",
            self.told
        );
        if self.death != Some(Death::Power) {
            assert_eq!(next, self.told + 1, "and none is left out");
        }
        assert_eq!(writer.head(), self.last_number());
        self.tracker = indexer::load(&reader, [9; 16]).unwrap();
        self.store = Some((writer, reader));
        self.is_on_the_disk();
        self.check_store();
        self.tell(node, vec![SIGNALLED])?;
        let fork = (0..node.chain.len()).rev().find(|height| {
            let known = self.rows.blocks.get(&(*height as u32));
            known.is_some_and(|row| row.hash == node.chain[*height].block_hash())
        });
        let fork = node.id(fork.expect("the first block is never taken back"));
        if self.rows.tip() != Some(fork) {
            self.tell(node, vec![Input::Disconnect { to: fork, now }])?;
        }
        for height in fork.height + 1..node.chain.len() as u32 {
            self.tell(
                node,
                vec![Input::Connect {
                    block: (&node.chain[height as usize]).into(),
                    height,
                    now,
                }],
            )?;
        }
        let txids = node.mempool.iter().map(Transaction::compute_txid).collect();
        self.tell(
            node,
            vec![Input::MempoolSnapshot {
                tip: node.tip().hash,
                txids,
                now,
            }],
        )?;
        self.tell(
            node,
            vec![Input::EvictMissing {
                spared: Vec::new(),
                now,
            }],
        )?;
        self.find_pasts(node)
    }

    /// Scripts whose baseline could not be asked for when it was wanted.
    fn find_pasts(&mut self, node: &FollowedNode) -> Result<(), Died> {
        match self.rows.watches.values().any(|row| row.coverage.pending) {
            true => self.tell(node, answer(node, &self.rows, FollowUp::Baseline)),
            false => Ok(()),
        }
    }

    /// The store holds the fold of the change sets, and their events.
    fn check_store(&self) {
        let (writer, reader) = self.store.as_ref().expect("it is alive");
        let snapshot = reader.snapshot();
        assert_eq!(snapshot.tip().unwrap(), self.rows.tip());
        let top = self.rows.tip().map_or(0, |tip| tip.height);
        for (script, row) in &self.rows.watches {
            assert_eq!(snapshot.watch(script).unwrap().as_ref(), Some(row));
            for height in [0, 1, top / 2, top] {
                assert_eq!(
                    snapshot.coinbase_value(script, height).unwrap(),
                    self.coinbase_value(script, height)
                );
            }
        }
        for (outpoint, row) in &self.rows.outputs {
            assert_eq!(snapshot.output(outpoint).unwrap().as_ref(), Some(row));
        }
        for (txid, row) in &self.rows.txs {
            assert_eq!(snapshot.tx(txid).unwrap().as_ref(), Some(row));
        }
        for (height, row) in &self.rows.blocks {
            assert_eq!(snapshot.block(height).unwrap().as_ref(), Some(row));
        }
        for (scan, row) in &self.rows.scans {
            assert_eq!(snapshot.scan(scan).unwrap().as_ref(), Some(row));
            assert_eq!(
                snapshot.scan_scripts(scan).unwrap(),
                self.rows.scan_scripts(scan, usize::MAX).unwrap()
            );
        }
        for script in self.rows.watches.keys() {
            let scans = self.rows.scans_of(script, None, usize::MAX).unwrap();
            let is_open = |scan: &ScanId| self.rows.open_scans().contains(scan);
            let is_in_scan = snapshot.is_in_scan(script).unwrap();
            assert_eq!(is_in_scan, scans.iter().any(is_open));
            let page = |after, limit| writer.scans_of(script, after, limit).unwrap();
            assert_eq!(page(None, usize::MAX), scans);
            if let Some((first, rest)) = scans.split_first() {
                assert_eq!(page(None, 1), [*first]);
                assert_eq!(page(Some(*first), usize::MAX), rest);
            }
        }
        assert_eq!(snapshot.scans(None).count(), self.rows.scans.len());
        assert_eq!(reader.read_events(0, usize::MAX).unwrap(), self.log);
    }

    /// Of the fold: what the coinbases from a height on pay the script, if nothing spends it.
    fn coinbase_value(&self, script: &ScriptHash, height: u32) -> u64 {
        self.rows
            .outputs
            .values()
            .filter(|row| row.script == *script && row.coinbase && row.spent.is_none())
            .filter(|row| row.height.is_some_and(|it| it >= height))
            .map(|row| row.value)
            .sum()
    }

    /// No row is left over. Looked at in the files of a dead process: a living one tidies them up
    /// meanwhile.
    fn check_files(&self) {
        let mut entries: BTreeMap<String, usize> = BTreeMap::new();
        dump(self.folder.path())
            .into_keys()
            .for_each(|(family, _)| *entries.entry(family).or_default() += 1);
        let count = |family: &str| entries.get(family).copied().unwrap_or(0);
        let stored = [
            "watches",
            "outputs",
            "txs",
            "blocks",
            "scans",
            "scan_scripts",
            "script_scans",
        ]
        .map(count);
        let MemoryView {
            watches,
            outputs,
            txs,
            blocks,
            scans,
            scan_scripts,
            ..
        } = &self.rows;
        assert_eq!(
            stored,
            [
                watches.len(),
                outputs.len(),
                txs.len(),
                blocks.len(),
                scans.len(),
                scan_scripts.len(),
                scan_scripts.len()
            ]
        );
    }

    /// Rows and events say what the node says.
    fn check_truth(&self, node: &FollowedNode) {
        assert_eq!(self.rows.open_scans(), []);
        assert!(self.rows.scan_scripts.is_empty(), "no ended scan has any");
        for row in self.rows.watches.values() {
            assert!(row.coverage.utxos_complete && !row.coverage.pending);
        }
        let is_watched = |number: &u8| self.rows.watches.contains_key(&script(*number));
        Kept {
            node,
            view: &self.rows,
            watched: &(1..8).filter(is_watched).collect(),
            past: &self.past,
        }
        .check();
    }

    /// Every byte that counts: all families, but of `meta` only what follows from what was told.
    fn bytes(mut self) -> BTreeMap<(String, Vec<u8>), Vec<u8>> {
        self.store = None;
        self.check_files();
        let mut entries = dump(self.folder.path());
        entries.retain(|(family, key), _| {
            family != "meta" || matches!(&key[..], b"tip" | b"next_seq" | b"first_seq" | b"counts")
        });
        entries
    }
}

/// What the follower does for the tracker, with what the node says now.
fn answer(node: &FollowedNode, rows: &MemoryView, ask: FollowUp) -> Vec<Input> {
    let now = node.now;
    match ask {
        FollowUp::Check(tx) => node
            .mempool
            .iter()
            .any(|known| known.compute_txid() == tx.txid())
            .then_some(Input::TxSeen {
                tx,
                seen: Seen::Accepted,
                now,
            })
            .into_iter()
            .collect(),
        FollowUp::Fetch(txids) => {
            let wanted = node
                .mempool
                .iter()
                .filter(|tx| txids.contains(&tx.compute_txid()));
            wanted
                .map(|tx| Input::TxSeen {
                    tx: tx.into(),
                    seen: Seen::Fetched,
                    now,
                })
                .collect()
        }
        // A scan speaks for the node's tip; while ours is another, it is asked for later.
        FollowUp::Baseline if rows.tip() != Some(node.tip()) => Vec::new(),
        FollowUp::Baseline => {
            let scripts: Vec<ScriptHash> = rows
                .watches
                .iter()
                .filter(|(_, row)| row.coverage.pending)
                .map(|(script, _)| *script)
                .collect();
            let outputs = node.found(&scripts);
            vec![Input::Baseline {
                block: node.tip(),
                scripts,
                outputs,
                now,
            }]
        }
        FollowUp::Scans | FollowUp::Derive => Vec::new(),
    }
}

fn live(
    ops: &[Op],
    batch: usize,
    death: Option<Death>,
    deaths: &HashSet<u32>,
) -> (Life, FollowedNode) {
    let mut node = FollowedNode::new();
    let mut life = Life::begin(&node, batch, death, deaths.clone());
    for (op, now) in ops.iter().zip((1..).map(|second| second * 1000)) {
        life.hear(&mut node, op, now);
    }
    life.scan_all(&node);
    (life, node)
}

fn some_deaths(below: u32) -> impl Strategy<Value = HashSet<u32>> {
    prop::collection::hash_set(1..below, 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn killed_between_news_it_ends_with_the_same_bytes(ops in prop::collection::vec(op(), 1..30), deaths in some_deaths(30)) {
        let (killed, node) = live(&ops, 1, Some(Death::Between), &deaths);
        killed.check_store();
        killed.check_truth(&node);
        let (unhurt, _) = live(&ops, 1, None, &deaths);
        prop_assert_eq!(killed.bytes(), unhurt.bytes());
    }

    #[test]
    fn killed_at_any_commit_it_ends_with_the_truth(ops in prop::collection::vec(op(), 1..30), deaths in some_deaths(150), batch in 1..5_usize) {
        let (life, node) = live(&ops, batch, Some(Death::Within), &deaths);
        life.check_store();
        life.check_truth(&node);
    }

    #[test]
    fn after_power_losses_it_ends_with_the_truth(ops in prop::collection::vec(op(), 1..30), deaths in some_deaths(150), batch in 1..5_usize) {
        let (life, node) = live(&ops, batch, Some(Death::Power), &deaths);
        life.check_store();
        life.check_truth(&node);
    }
}
