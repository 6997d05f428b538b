//! Wallets of tests, and what is kept of descriptors against the naive model.
//!
//! The pretended world has no miniscript: a wallet is a function from keychain and index to a
//! script. Some of their scripts are those with small numbers, which are also watched by
//! themselves, and which wallets share.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use bitcoin::ScriptBuf;
use satwatch::tracker::{
    Balance, Baseline, Derivation, DescriptorId, DescriptorRequest, DescriptorRow, Keychain,
    KeychainRow, MemoryView, OutputRow, ScriptHash, Staged, Status, Touch,
};

use super::laws::{Kept, Truth};
use super::spk;

/// Scripts that trackers of tests watch beyond a window at least.
pub const LOOKAHEAD: u32 = 2;

pub const KEYCHAINS: [Keychain; 2] = [Keychain::External, Keychain::Internal];

/// Numbers of the first scripts of wallets: of three, two keychains, sixteen indexes.
pub const WALLETS: RangeInclusive<u8> = 100..=195;

/// The script with a number of [`WALLETS`].
pub fn spk_of_wallet(number: u8) -> ScriptBuf {
    let place = number - WALLETS.start();
    let keychain = KEYCHAINS[usize::from(place / 16 % 2)];
    Wallet(1 + place / 32).spk(keychain, u32::from(place % 16))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wallet(pub u8);

impl Wallet {
    pub fn id(self) -> DescriptorId {
        DescriptorId([self.0; 32])
    }

    pub fn of(id: &DescriptorId) -> Self {
        Self(id.0[0])
    }

    /// The second one has no change.
    pub fn keychains(self) -> usize {
        if self.0 == 2 { 1 } else { 2 }
    }

    pub fn place(self, keychain: Keychain, index: u32) -> Derivation {
        Derivation {
            descriptor: self.id(),
            keychain,
            index,
        }
    }

    /// The second shares scripts with the first; in the third one stands twice.
    pub fn spk(self, keychain: Keychain, index: u32) -> ScriptBuf {
        let number = match (self.0, keychain, index) {
            (1, Keychain::External, 0) => 1,
            (1, Keychain::External, 2) => 4,
            (1, Keychain::External, 4) => 5,
            (1, Keychain::External, 9) => 6,
            (1, Keychain::Internal, 1) => 2,
            (2, Keychain::External, 1) => 4,
            (2, Keychain::External, 3) => 7,
            (2, Keychain::External, 6) => 1,
            (3, Keychain::External, 0) | (3, Keychain::Internal, 1) => 6,
            (3, Keychain::External, 3) => 7,
            (3, Keychain::Internal, 2) => 3,
            _ => 0,
        };
        if number > 0 {
            return spk(number);
        }
        let place = [vec![self.0, keychain as u8], index.to_be_bytes().to_vec()].concat();
        ScriptBuf::from_bytes([vec![0x00, 0x14], place, vec![0xd5; 14]].concat())
    }

    pub fn script(self, keychain: Keychain, index: u32) -> ScriptHash {
        ScriptHash::of(&self.spk(keychain, index))
    }

    pub fn request(self, gap_limit: u32, baseline: Baseline) -> DescriptorRequest {
        DescriptorRequest {
            text: format!("wallet {}", self.0),
            keychains: self.keychains(),
            is_ranged: true,
            label: None,
            gap_limit: Some(gap_limit),
            range: 0,
            depths: vec![2],
            baseline,
        }
    }
}

/// Where scripts stand, also for descriptors that are being forgotten; and each is watched because
/// it was added or because it stands somewhere.
pub fn check_places(view: &MemoryView) {
    let mut places: BTreeMap<ScriptHash, BTreeSet<Derivation>> = BTreeMap::new();
    for (place, script) in &view.derivations {
        assert_eq!(
            *script,
            Wallet::of(&place.descriptor).script(place.keychain, place.index),
            "the script at {place:?}"
        );
        places.entry(*script).or_default().insert(*place);
    }
    for (script, row) in &view.watches {
        let stands = places.remove(script).unwrap_or_default();
        assert!(
            row.derivations.iter().eq(&stands),
            "where script {script:?} stands: {stands:?} {row:?}"
        );
        assert!(
            row.listed || !stands.is_empty(),
            "script {script:?} is watched for nobody"
        );
        let outputs = view.outputs.values().filter(|it| it.script == *script);
        assert_eq!(
            row.outputs,
            outputs.count() as u64,
            "outputs of script {script:?}"
        );
    }
    assert!(places.is_empty(), "what stands somewhere is watched");
    let of_descriptors = view.derivations.keys().map(|it| it.descriptor);
    let owners = view.owned_outputs.keys().map(|(descriptor, _)| *descriptor);
    let netted = view.txs.values().flat_map(|row| &row.nets);
    let netted = netted.map(|net| net.descriptor);
    let joining = view.joining.keys().map(|it| it.descriptor);
    for id in of_descriptors.chain(owners).chain(netted).chain(joining) {
        assert!(
            view.descriptors.contains_key(&id) || view.leaving.contains_key(&id),
            "nothing is left of descriptor {id}"
        );
    }
    let leaving = view.leaving.keys();
    assert!(
        leaving
            .into_iter()
            .all(|id| !view.descriptors.contains_key(id))
    );
}

/// The scripts of a portion that is wanted, with the first index of it.
pub fn next_derived(
    view: &MemoryView,
    wallet: Wallet,
    keychain: Keychain,
    lookahead: u32,
    most: u32,
) -> Option<(u32, Vec<ScriptBuf>)> {
    let row = view.descriptors.get(&wallet.id())?;
    let to = row.wants_beyond(keychain, lookahead)?;
    let first = row.keychain(keychain)?.derived;
    let indexes = first..to.min(first + most);
    let spks = indexes.map(|index| wallet.spk(keychain, index));
    Some((first, spks.collect()))
}

impl Kept<'_> {
    /// The laws of descriptors; every broken one is a panic with its name. `is_settled`: the
    /// tracker has nothing to go on with.
    pub fn check_descriptors(&self, wallets: &BTreeSet<Wallet>, is_settled: bool) {
        let known: BTreeSet<Wallet> = self.view.descriptors.keys().map(Wallet::of).collect();
        assert_eq!(&known, wallets, "the descriptors that are watched");
        let asked: BTreeSet<Wallet> = self.view.wallets.keys().map(Wallet::of).collect();
        assert_eq!(asked, known, "what was asked for goes with the descriptor");
        for wallet in wallets {
            let descriptor = Descriptor::new(self.view, *wallet);
            descriptor.check_indexes(is_settled);
            descriptor.check_coverage(is_settled);
            descriptor.check_sums();
            descriptor.check_nets();
            if !descriptor.row.is_pending() && descriptor.is_whole() {
                let (truth, mut sum) = (Truth::of(self.node), Balance::default());
                for script in &descriptor.scripts {
                    let balance = truth.balance(script);
                    sum.confirmed += balance.confirmed;
                    sum.unconfirmed += balance.unconfirmed;
                }
                assert_eq!(descriptor.row.balance, sum, "the balance of {wallet:?}");
            }
        }
    }
}

/// One descriptor and what follows from its rows.
struct Descriptor<'a> {
    view: &'a MemoryView,
    wallet: Wallet,
    row: &'a DescriptorRow,
    scripts: BTreeSet<ScriptHash>,
}

impl<'a> Descriptor<'a> {
    fn new(view: &'a MemoryView, wallet: Wallet) -> Self {
        let row = &view.descriptors[&wallet.id()];
        let mut descriptor = Self {
            view,
            wallet,
            row,
            scripts: BTreeSet::new(),
        };
        let places = descriptor.places();
        descriptor.scripts = places
            .map(|place| wallet.script(place.keychain, place.index))
            .collect();
        descriptor
    }

    fn keychains(&self) -> impl Iterator<Item = (Keychain, &'a KeychainRow)> + use<'a> {
        KEYCHAINS.into_iter().zip(&self.row.keychains)
    }

    fn places(&self) -> impl Iterator<Item = Derivation> + use<'a> {
        let wallet = self.wallet;
        let all = self.keychains();
        all.flat_map(move |(keychain, row)| {
            (0..row.derived).map(move |index| wallet.place(keychain, index))
        })
    }

    fn script(&self, place: &Derivation) -> ScriptHash {
        self.wallet.script(place.keychain, place.index)
    }

    fn is_complete(&self, place: &Derivation) -> bool {
        let row = &self.view.watches[&self.script(place)];
        row.coverage.utxos_complete
    }

    /// Or is left out.
    fn is_known(&self, place: &Derivation) -> bool {
        let row = &self.view.watches[&self.script(place)];
        row.coverage.utxos_complete || row.coverage.left_out
    }

    fn is_wanted(&self) -> bool {
        self.view.wallets[&self.wallet.id()].baseline != Baseline::Skip
    }

    fn is_joining(&self, script: &ScriptHash) -> bool {
        let mut places = self.places().filter(|place| self.script(place) == *script);
        places.all(|place| self.view.joining.contains_key(&place))
    }

    /// All its scripts are whole and count.
    fn is_whole(&self) -> bool {
        let mut places = self.places();
        places.all(|place| self.is_complete(&place) && !self.view.joining.contains_key(&place))
    }

    fn check_indexes(&self, is_settled: bool) {
        assert_eq!(self.row.keychains.len(), self.wallet.keychains());
        let known = self.view.derivations.keys();
        let known = known.filter(|place| place.descriptor == self.wallet.id());
        let places: BTreeSet<Derivation> = self.places().collect();
        assert_eq!(
            known.copied().collect::<BTreeSet<_>>(),
            places,
            "places below `derived` are watched, and no others"
        );
        let gap_limit = self.row.gap_limit;
        for (keychain, row) in self.keychains() {
            let is_used = |index: &u32| {
                let script = self.wallet.script(keychain, *index);
                self.view.watches[&script].outputs > 0
            };
            let used = (0..row.derived).rfind(is_used);
            match is_settled {
                true => assert_eq!(row.last_used, used, "the last index that is used"),
                false => assert!(row.last_used >= used, "it is looked for: {row:?}"),
            }
            let next = row.next_index();
            assert!(next >= used.map_or(0, |index| index + 1) && next >= row.reserved);
            assert!(row.window >= next + gap_limit, "the window: {row:?}");
            assert!(row.watched_to <= row.window.min(row.derived), "{row:?}");
        }
    }

    fn check_coverage(&self, is_settled: bool) {
        let mut awaited = 0;
        for place in self.places() {
            let row = self.row.keychain(place.keychain).expect("it is there");
            awaited += u64::from(self.view.joining.contains_key(&place));
            let counts = place.index < row.first.max(row.watched_to);
            let coverage = &self.view.watches[&self.script(&place)].coverage;
            let is_wanted = self.is_wanted() && !self.is_complete(&place);
            let is_left_out = is_wanted && coverage.left_out;
            assert_eq!(
                self.row.left_out.contains(&place),
                is_left_out,
                "whether {place:?} is left out"
            );
            let is_awaited = is_wanted && counts && !is_left_out;
            awaited += u64::from(is_awaited || coverage.in_portions);
            let staged = coverage.staged.unwrap_or_default();
            assert!(
                staged == Staged::default() || self.row.held.is_some(),
                "what comes in portions is told as a whole"
            );
        }
        assert_eq!(
            self.row.awaited, awaited,
            "scripts of {:?} that are awaited",
            self.wallet
        );
        let mut keychains = self.keychains();
        let has_first = keychains.all(|(_, row)| row.derived >= row.first);
        assert!(
            self.row.held.is_none() || awaited > 0 || !has_first,
            "the balance is told when all is there"
        );
        for (keychain, row) in self.keychains() {
            let place = |index| self.wallet.place(keychain, index);
            if is_settled && row.watched_to < row.window.min(row.derived) {
                assert!(
                    self.is_wanted() && !self.is_known(&place(row.watched_to)),
                    "of all below more is known: {row:?}"
                );
            }
            for index in (0..row.watched_to).filter(|_| self.is_wanted()) {
                let watch = &self.view.watches[&self.script(&place(index))];
                assert!(
                    watch.coverage.utxos_complete || watch.coverage.pending,
                    "it is known, or after a reorg asked for anew"
                );
                assert!(
                    watch.coverage.from_height <= self.row.from_height,
                    "what is said of all below `watched_to` is true of {index}"
                );
            }
        }
    }

    /// Outputs that count are those of its scripts whose spend is not confirmed; of a script that
    /// joins it with a past, some of them.
    fn check_sums(&self) {
        let id = self.wallet.id();
        let (mut balance, mut count) = (Balance::default(), 0);
        for ((_, outpoint), ()) in self
            .view
            .owned_outputs
            .iter()
            .filter(|((of, _), ())| *of == id)
        {
            let row = &self.view.outputs[outpoint];
            assert!(is_open(row) && self.scripts.contains(&row.script));
            let value = row.value as i64;
            match (row.height, row.spent) {
                (Some(_), None) => {
                    (balance.confirmed, count) = (balance.confirmed + value, count + 1)
                }
                (Some(_), Some(_)) => {
                    balance.confirmed += value;
                    balance.unconfirmed -= value;
                }
                (None, None) => {
                    (balance.unconfirmed, count) = (balance.unconfirmed + value, count + 1);
                }
                (None, Some(_)) => {}
            }
        }
        let outputs = self.view.outputs.iter();
        for (outpoint, row) in outputs.filter(|(_, row)| is_open(row)) {
            let is_owned = self.view.owned_outputs.contains_key(&(id, *outpoint));
            let is_ours = self.scripts.contains(&row.script) && !self.is_joining(&row.script);
            assert!(
                is_owned || !is_ours,
                "{outpoint} counts for {:?}",
                self.wallet
            );
        }
        assert_eq!(
            (self.row.balance, self.row.utxo_count),
            (balance, count),
            "the sum over the outputs of {:?}",
            self.wallet
        );
    }

    /// What a transaction does to it is the sum of what it does to its scripts.
    fn check_nets(&self) {
        let id = self.wallet.id();
        let mut history = 0;
        for (txid, row) in &self.view.txs {
            assert!(row.nets.is_sorted_by(|a, b| a.descriptor < b.descriptor));
            let net = row.nets.iter().find(|net| net.descriptor == id);
            let net = net.map(|net| (net.received, net.sent));
            history += u64::from(net.is_some());
            let touches = row.touches.iter();
            let ours: Vec<&Touch> = touches
                .filter(|touch| self.scripts.contains(&touch.script))
                .collect();
            let sum = ours.iter().fold((0, 0), |(received, sent), touch| {
                (received + touch.received, sent + touch.sent)
            });
            let is_alive = matches!(row.status, Status::Mempool | Status::Confirmed { .. });
            if net.is_none() && !is_alive {
                // What was no more when it could have come to know of it.
            } else if ours.iter().any(|touch| self.is_joining(&touch.script)) {
                let (received, sent) = net.unwrap_or_default();
                assert!(received <= sum.0 && sent <= sum.1);
            } else {
                let sum = Some(sum).filter(|_| !ours.is_empty());
                assert_eq!(net, sum, "what {txid} does to {:?}", self.wallet);
            }
        }
        assert_eq!(
            self.row.tx_count, history,
            "transactions of {:?}",
            self.wallet
        );
    }
}

/// Whether its spend is not confirmed.
fn is_open(row: &OutputRow) -> bool {
    row.spent.is_none_or(|spend| spend.height.is_none())
}
