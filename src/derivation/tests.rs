use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Network};
use tempfile::{TempDir, tempdir};
use tokio::sync::mpsc;

use super::*;
use crate::store::{ChainInfo, open_at_boot};
use crate::tracker::{Baseline, DescriptorRequest, Keychain, ScriptHash};

/// The wallet of BIP 84's test vectors.
const WALLET: &str = "wpkh(tpubDC8msFGeGuwnKG9Upg7DM2b4DaRqg3CUZa5g8v2SRQ6K4NSkxUgd7HsL2XVWbVm39yBA4LAxysQAm397zwQSQoQgewGiYZqrA9DsP4zbQ1M/<0;1>/*)";
const FIXED: &str = "wpkh(tpubDC8msFGeGuwnKG9Upg7DM2b4DaRqg3CUZa5g8v2SRQ6K4NSkxUgd7HsL2XVWbVm39yBA4LAxysQAm397zwQSQoQgewGiYZqrA9DsP4zbQ1M/0/7)";

struct Daemon {
    reader: StoreReader,
    indexer: indexer::Handle,
    _folder: TempDir,
    _asked: mpsc::Receiver<crate::tracker::FollowUp>,
}

impl Daemon {
    fn new() -> Self {
        let folder = tempdir().expect("a folder");
        let chain = ChainInfo {
            network: Network::Regtest,
            genesis: BlockHash::all_zeros(),
        };
        let (writer, reader) =
            open_at_boot(folder.path(), Some(chain), 0, "boot").expect("the store opens");
        let (asks, asked) = mpsc::channel(100);
        let tracker = indexer::load(&reader, [7; 16]).expect("the store is readable");
        let (indexer, _) = indexer::spawn(tracker, writer, 0, asks);
        Self {
            reader,
            indexer,
            _folder: folder,
            _asked: asked,
        }
    }

    async fn add(&self, text: &str, id: u8, range: u32) -> DescriptorId {
        let parsed = WalletDescriptor::parse(text, Network::Regtest);
        let (keychains, is_ranged) =
            parsed.map_or((2, true), |it| (it.keychains(), it.is_ranged()));
        let descriptor = DescriptorId([id; 32]);
        let request = DescriptorRequest {
            text: text.to_owned(),
            keychains,
            is_ranged,
            label: None,
            gap_limit: Some(20),
            range,
            depths: Vec::new(),
            baseline: Baseline::Skip,
        };
        let input = Input::AddDescriptor {
            descriptor,
            request,
            now: 0,
        };
        self.indexer.apply(input).await.expect("it is added");
        descriptor
    }

    fn derive(&self) -> (Running, DerivedScripts) {
        let (derivation, derived) = DerivationTask::new(self.reader.clone(), self.indexer.clone());
        let stop = CancellationToken::new();
        let end = tokio::spawn(derivation.run(stop.clone()));
        (Running { stop, end }, derived)
    }

    fn derived(&self, descriptor: &DescriptorId, keychain: Keychain) -> u32 {
        let row = self.reader.snapshot().descriptor(descriptor);
        let row = row.expect("readable").expect("it is watched");
        row.keychain(keychain).expect("it has it").derived
    }
}

struct Running {
    stop: CancellationToken,
    end: tokio::task::JoinHandle<Result<(), DerivationError>>,
}

impl Running {
    async fn stop(self) -> Result<(), DerivationError> {
        self.stop.cancel();
        self.end.await.expect("it does not panic")
    }
}

#[tokio::test]
async fn a_descriptor_has_its_scripts_before_and_after_a_restart() {
    let daemon = Daemon::new();
    let early = daemon.add(WALLET, 1, 0).await;
    let (running, derived) = daemon.derive();
    let row = derived.wait_for(&early, DescriptorRow::is_derived).await;
    let row = row.expect("readable").expect("it is watched");
    let ends: Vec<_> = row.keychains.iter().map(|it| it.derived).collect();
    assert_eq!(ends, [1020, 1020]);
    // One that comes while it waits.
    let late = daemon.add(FIXED, 2, 0).await;
    let row = derived.wait_for(&late, DescriptorRow::is_derived).await;
    assert!(row.expect("readable").is_some());
    assert_eq!(daemon.derived(&late, Keychain::External), 1);
    running.stop().await.expect("it ends well");

    let wallet = WalletDescriptor::parse(WALLET, Network::Regtest).expect("good");
    let snapshot = daemon.reader.snapshot();
    for (keychain, index) in [(Keychain::External, 0), (Keychain::Internal, 1019)] {
        let spk = wallet.derive(keychain as usize, index..index + 1).remove(0);
        let row = snapshot.watch(&ScriptHash::of(&spk)).expect("readable");
        let places = row.expect("it is watched").derivations;
        let place = places.first().expect("it is of the descriptor");
        assert_eq!(
            (place.descriptor, place.keychain, place.index),
            (early, keychain, index)
        );
    }
    drop(snapshot);

    // What is added while nobody derives is derived at the next start.
    daemon.add(WALLET, 1, 3000).await;
    let (running, derived) = daemon.derive();
    let row = derived.wait_for(&early, DescriptorRow::is_derived).await;
    assert!(row.expect("readable").is_some());
    assert!(daemon.derived(&early, Keychain::Internal) >= 4000);
    running.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_text_that_cannot_be_read_ends_it_with_its_name() {
    let daemon = Daemon::new();
    let descriptor = daemon.add("wpkh(nonsense)", 3, 0).await;
    let (running, derived) = daemon.derive();
    let row = derived
        .wait_for(&descriptor, DescriptorRow::is_derived)
        .await;
    assert_eq!(row.expect("readable"), None, "nobody waits for ever");
    let error = running.end.await.expect("no panic").expect_err("it ends");
    let text = error.to_string();
    assert!(
        text.starts_with(&format!(
            "the descriptor {descriptor} in the store cannot be read"
        )),
        "{text}"
    );
}
