//! The parts of the daemon that follow a node, derive scripts and look for their past, in this
//! process: what they are asked for there comes as inputs of the tracker.

use std::sync::Arc;
use std::time::Duration;

use satwatch::config::Bitcoind;
use satwatch::derivation::{DerivationTask, DerivedScripts};
use satwatch::descriptors::WalletDescriptor;
use satwatch::follower::start::{self, FollowerConfig, FollowerHandles};
use satwatch::history::{Audit, AuditRequest, Audited};
use satwatch::indexer::{self, Done, Handle};
use satwatch::store::{self, StoreReader};
use satwatch::tracker::{Baseline, DescriptorId, DescriptorRequest, DescriptorRow, Input, Tracker};
use satwatch::{bitcoind, clock};
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::common::{Node, wait_for, wait_until};

/// For tens of thousands of scripts, which a build that is not optimized derives slowly.
const WHOLE: Duration = Duration::from_secs(300);

pub struct Inside {
    runtime: Runtime,
    pub reader: StoreReader,
    derived: DerivedScripts,
    indexer: Handle,
    handles: FollowerHandles,
    stop: CancellationToken,
    _monitoring: watch::Sender<bool>,
    _folder: Arc<TempDir>,
}

impl Inside {
    pub fn start(node: &Node) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let _entered = runtime.enter();
        let settings = Bitcoind {
            rpc_url: Some(node.rpc_url()),
            cookie_file: Some(node.cookie_file()),
            ..Bitcoind::default()
        };
        let found = runtime.block_on(bitcoind::find(&settings));
        let found = found.expect("the node answers");
        let folder = tempfile::tempdir().expect("a folder");
        let opened = store::open(folder.path(), Some(found.chain), clock::now_ms(), &|| false);
        let (writer, reader) = opened.expect("a new store");
        let (asks, asked) = mpsc::channel(65_536);
        let (indexer, _) = indexer::spawn(Tracker::new([7; 16]), writer, 0, asks);
        let (monitoring, monitored) = watch::channel(true);
        let stop = CancellationToken::new();
        let config = FollowerConfig {
            settings,
            found: Some(found),
            reconcile_interval: Duration::from_secs(10),
        };
        let (handles, _) = start::spawn(
            config,
            indexer.clone(),
            reader.clone(),
            asked,
            monitored,
            stop.clone(),
        );
        let (derivation, derived) = DerivationTask::new(reader.clone(), indexer.clone());
        runtime.spawn(derivation.run(stop.clone()));
        let inside = Self {
            reader,
            derived,
            indexer,
            handles,
            stop,
            _monitoring: monitoring,
            _folder: Arc::new(folder),
            runtime,
        };
        wait_until("the node's tip", || {
            let tip = inside.reader.snapshot().tip().expect("it reads")?;
            (tip.height == u32::try_from(node.height()).ok()?).then_some(())
        });
        inside
    }

    pub fn apply(&self, input: Input) -> Done {
        let applied = self.runtime.block_on(self.indexer.apply(input));
        applied.expect("it is taken")
    }

    /// Watches a wallet; its id.
    pub fn add(&self, text: &str) -> DescriptorId {
        let wallet = WalletDescriptor::parse(text, bitcoin::Network::Regtest);
        let wallet = wallet.expect("a good descriptor");
        let descriptor = DescriptorId(wallet.id());
        let request = DescriptorRequest {
            text: wallet.text().to_owned(),
            keychains: wallet.keychains(),
            is_ranged: wallet.is_ranged(),
            label: None,
            gap_limit: Some(20),
            range: 0,
            depths: Vec::new(),
            baseline: Baseline::IfMissing,
        };
        self.apply(Input::AddDescriptor {
            descriptor,
            request,
            now: clock::now_ms(),
        });
        descriptor
    }

    pub fn row(&self, descriptor: &DescriptorId) -> DescriptorRow {
        let row = self.reader.snapshot().descriptor(descriptor);
        row.expect("it reads").expect("it is watched")
    }

    /// Until its scripts are derived and all their baselines are merged.
    pub fn wait_whole(&self, descriptor: &DescriptorId) -> DescriptorRow {
        let whole = wait_for(WHOLE, || {
            let derived = self.derived.wait_for(descriptor, DescriptorRow::is_derived);
            let row = self.runtime.block_on(derived).expect("it reads")?;
            let snapshot = self.reader.snapshot();
            let waits = snapshot.pending_baselines().next().is_some();
            (!row.is_pending() && !waits).then_some(row)
        });
        whole.unwrap_or_else(|| panic!("not whole: {:?}", self.row(descriptor)))
    }

    pub fn audit(&self, of: Audit) -> Audited {
        self.runtime.block_on(async {
            let (answer, answered) = oneshot::channel();
            let asked = self.handles.audits.send(AuditRequest { of, answer }).await;
            asked.expect("audits are made");
            let audited = answered.await.expect("it is answered");
            audited.expect("the node has no other work")
        })
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.stop.cancel();
        self.runtime.block_on(self.indexer.stop());
    }
}

/// The public descriptor of a wallet of the node, with both keychains.
pub fn wallet(node: &Node, head: &str) -> String {
    let listed = node.owner("listdescriptors", json!([]));
    let of_kind = |internal: bool| {
        let all = listed["descriptors"].as_array().expect("a list");
        let one = all.iter().find(|it| {
            let text = it["desc"].as_str().expect("a text");
            text.starts_with(head) && it["internal"] == internal && it["active"] == true
        });
        one.expect("the node has it")["desc"]
            .as_str()
            .expect("a text")
            .to_owned()
    };
    let (external, internal) = (of_kind(false), of_kind(true));
    let (external, _) = external.split_once('#').expect("a checksum");
    assert!(external.contains("/0/*") && internal.contains("/1/*"));
    external.replace("/0/*", "/<0;1>/*")
}

/// The address of a wallet at an index.
pub fn address(text: &str, keychain: usize, index: u32) -> String {
    let wallet = WalletDescriptor::parse(text, bitcoin::Network::Regtest).expect("good");
    let spk = wallet.derive(keychain, index..index + 1).remove(0);
    let address = bitcoin::Address::from_script(&spk, bitcoin::Network::Regtest);
    address.expect("an address").to_string()
}
