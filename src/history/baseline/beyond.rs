//! Uses of descriptors beyond the last of their scripts that are watched.
//!
//! A wallet may have given away many addresses of which few were paid. So where a scan of the
//! unspent outputs is made for a descriptor anyhow, it asks for scripts beyond the watched ones,
//! too, which the node derives. What is found there is not merged: the window of the descriptor
//! reaches there from then on ([`Input::Reach`](crate::tracker::Input)), and the scripts up to it
//! are derived and have a baseline of their own.
//!
//! The node derives some ten thousand scripts a second, so their number is bounded: for one
//! keychain ([`FIRST`], [`LATER`]; more where something was found just before, up to [`MOST`]) and
//! for all of a scan ([`ALL`]).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

use bitcoin::ScriptBuf;

use crate::bitcoind::rpc::ScanRange;
use crate::descriptors::WalletDescriptor;
use crate::history::Interrupted;
use crate::store::StoreReader;
use crate::tracker::{Baseline, Derivation, DescriptorId, Keychain};

/// Scripts of a keychain in the first scan for its descriptor.
const FIRST: u32 = 10_000;
/// The same in those for more of its scripts.
const LATER: u32 = 1000;
/// So many times more are asked for after something was found.
const MORE: u32 = 4;
const MOST: u32 = 50_000;
/// Scripts of all descriptors of one scan.
const ALL: u32 = 200_000;
/// Scripts that are derived at once.
const PORTION: u32 = 500;

/// Scripts of one keychain that are not watched.
#[derive(Debug)]
pub(super) struct Beyond {
    descriptor: DescriptorId,
    keychain: Keychain,
    wallet: WalletDescriptor,
    indexes: Range<u32>,
}

/// How many scripts are asked for where something was found.
#[derive(Debug, Default, Clone)]
pub(super) struct Reaches(HashMap<(DescriptorId, Keychain), u32>);

impl Reaches {
    /// The scan for it has ended, with a find or without.
    fn note(&mut self, beyond: &Beyond, is_found: bool) {
        let place = (beyond.descriptor, beyond.keychain);
        let count = beyond.indexes.end - beyond.indexes.start;
        match is_found {
            true => _ = self.0.insert(place, count.saturating_mul(MORE).min(MOST)),
            false => _ = self.0.remove(&place),
        }
    }

    /// Of the next scan for a keychain, of so many that share it.
    fn count(&self, place: (DescriptorId, Keychain), is_first: bool, sharing: usize) -> u32 {
        let usual = if is_first { FIRST } else { LATER };
        let count = self.0.get(&place).copied().unwrap_or(usual);
        let share = ALL / u32::try_from(sharing.max(1)).unwrap_or(u32::MAX);
        count.min(share)
    }
}

/// What a scan that is made for scripts of these descriptors asks for beside them.
pub(super) fn read(
    reader: &StoreReader,
    descriptors: &BTreeSet<DescriptorId>,
    reaches: &Reaches,
) -> Result<Vec<Beyond>, Interrupted> {
    let snapshot = reader.snapshot();
    let (mut all, sharing) = (Vec::new(), descriptors.len().saturating_mul(2));
    for descriptor in descriptors {
        let rows = snapshot.descriptor(descriptor)?;
        let Some((row, wallet)) = rows.zip(snapshot.wallet(descriptor)?) else {
            continue;
        };
        if wallet.baseline == Baseline::Skip {
            continue;
        }
        // Whoever derives its scripts says so.
        let Ok(wallet) = WalletDescriptor::parse(&wallet.text, reader.chain().network) else {
            continue;
        };
        for keychain in [Keychain::External, Keychain::Internal] {
            let Some(from) = row.keychain(keychain).map(|it| it.derived) else {
                continue;
            };
            let count = reaches.count((*descriptor, keychain), row.held.is_some(), sharing);
            let indexes = from..row.end(from.saturating_add(count));
            if !indexes.is_empty() {
                all.push(Beyond {
                    descriptor: *descriptor,
                    keychain,
                    wallet: wallet.clone(),
                    indexes,
                });
            }
        }
    }
    Ok(all)
}

impl Beyond {
    pub(super) fn request(&self) -> Option<ScanRange> {
        Some(ScanRange {
            descriptor: self.wallet.for_node(self.keychain as usize)?,
            indexes: self.indexes.clone(),
        })
    }

    /// The last of its scripts that is among these. What the node says is believed as far as we
    /// derive the same.
    fn last(&self, spks: &HashSet<ScriptBuf>) -> Option<Derivation> {
        let mut end = self.indexes.end;
        while end > self.indexes.start {
            let start = end.saturating_sub(PORTION).max(self.indexes.start);
            let derived = self.wallet.derive(self.keychain as usize, start..end);
            let found = (start..).zip(derived).filter(|(_, spk)| spks.contains(spk));
            if let Some((index, _)) = found.last() {
                return Some(Derivation {
                    descriptor: self.descriptor,
                    keychain: self.keychain,
                    index,
                });
            }
            end = start;
        }
        None
    }
}

/// Which of them are used, by the scripts that a scan found and that nobody watches: the last index
/// of each keychain.
pub(super) fn used(
    all: &[Beyond],
    spks: &HashSet<ScriptBuf>,
    reaches: &mut Reaches,
) -> Vec<Derivation> {
    let mut used = Vec::new();
    for beyond in all {
        let last = (!spks.is_empty()).then(|| beyond.last(spks)).flatten();
        reaches.note(beyond, last.is_some());
        used.extend(last);
    }
    used
}

#[cfg(test)]
mod tests {
    use bitcoin::Network;

    use super::*;

    const WALLET: &str = "wpkh(tpubDC8msFGeGuwnKG9Upg7DM2b4DaRqg3CUZa5g8v2SRQ6K4NSkxUgd7HsL2XVWbVm39yBA4LAxysQAm397zwQSQoQgewGiYZqrA9DsP4zbQ1M/<0;1>/*)";

    fn beyond(keychain: Keychain, indexes: Range<u32>) -> Beyond {
        Beyond {
            descriptor: DescriptorId([1; 32]),
            keychain,
            wallet: WalletDescriptor::parse(WALLET, Network::Regtest).expect("good"),
            indexes,
        }
    }

    fn spks(keychain: Keychain, indexes: &[u32]) -> HashSet<ScriptBuf> {
        let beyond = beyond(keychain, 0..1);
        let spk = |index: &u32| beyond.wallet.derive(keychain as usize, *index..index + 1);
        indexes.iter().flat_map(spk).collect()
    }

    #[test]
    fn the_last_used_script_of_each_keychain_is_found_and_nothing_beyond_what_was_asked_for() {
        use Keychain::{External, Internal};
        let all = [beyond(External, 100..2100), beyond(Internal, 100..300)];
        for (found, expected) in [
            (spks(External, &[99, 100]), vec![(External, 100)]),
            (spks(External, &[150, 1700, 2099]), vec![(External, 2099)]),
            (spks(External, &[5, 2100]), vec![]),
            (spks(Internal, &[299, 300]), vec![(Internal, 299)]),
            (HashSet::new(), vec![]),
            (HashSet::from([ScriptBuf::from_bytes(vec![1])]), vec![]),
        ] {
            let used = used(&all, &found, &mut Reaches::default());
            let used: Vec<_> = used.iter().map(|it| (it.keychain, it.index)).collect();
            assert_eq!(used, expected);
        }
    }

    #[test]
    fn more_scripts_are_asked_for_where_something_was_found_up_to_a_bound() {
        let mut reaches = Reaches::default();
        let place = (DescriptorId([1; 32]), Keychain::External);
        assert_eq!(reaches.count(place, true, 2), FIRST);
        assert_eq!(reaches.count(place, false, 2), LATER);
        let mut counts = Vec::new();
        for _ in 0..3 {
            let count = reaches.count(place, true, 2);
            counts.push(count);
            reaches.note(&beyond(Keychain::External, 7..7 + count), true);
        }
        assert_eq!(counts, [FIRST, FIRST * MORE, MOST]);
        assert_eq!(
            reaches.count(place, true, 2000),
            100,
            "all of a scan are bounded"
        );
        reaches.note(&beyond(Keychain::External, 0..9), false);
        assert_eq!(reaches.count(place, true, 2), FIRST);
    }
}
