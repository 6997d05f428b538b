//! What may come about descriptors, however little sense it makes: the part of
//! `arbitrary_inputs.rs` that is about them.

use proptest::prelude::*;
use satwatch::tracker::{
    Baseline, DescriptorRequest, Input, Keychain, MemoryView, ScanId, SubjectId,
};

use crate::pretended::descriptors::{KEYCHAINS, Wallet};
use crate::world::{script, spk};

#[derive(Debug, Clone)]
pub enum Act {
    Add {
        wallet: u8,
        keychains: usize,
        is_ranged: bool,
        indexes: [u32; 2],
        depths: Vec<u8>,
        baseline: Baseline,
    },
    /// `first`: mostly the one that is lacking. A script may come in several places.
    Derived {
        wallet: u8,
        keychain: Keychain,
        first: Option<u32>,
        scripts: Vec<u8>,
    },
    Reserve {
        wallet: u8,
        keychain: Keychain,
        index: Option<u32>,
    },
    Reach {
        wallet: u8,
        keychain: Keychain,
        index: u32,
    },
    LeaveOut(u8),
    OpenScan {
        scan: u8,
        wallet: u8,
        from: u32,
        to: Option<u32>,
    },
    EnterScan(u8),
    Join,
    Label {
        is_wallet: bool,
        number: u8,
        label: u8,
    },
    Remove(u8),
}

/// One of three, or none.
pub fn label(number: u8) -> String {
    ["", "shop", "till", "rent"][usize::from(number % 4)].to_owned()
}

fn index() -> impl Strategy<Value = u32> {
    prop_oneof![12 => 0u32..6, 1 => (1u32 << 31) - 2..(1 << 31) + 2, 1 => Just(u32::MAX)]
}

pub fn act() -> impl Strategy<Value = Act> {
    let wallet = || 1u8..4;
    let keychain = || prop_oneof![Just(KEYCHAINS[0]), Just(KEYCHAINS[1])];
    let baseline = prop_oneof![
        Just(Baseline::Skip),
        Just(Baseline::IfMissing),
        Just(Baseline::Refresh)
    ];
    let depths = prop::collection::vec(any::<u8>(), 0..3);
    prop_oneof![
        3 => (wallet(), 1usize..3, prop::bool::weighted(0.9), [index(), index()], depths, baseline)
            .prop_map(|(wallet, keychains, is_ranged, indexes, depths, baseline)| Act::Add { wallet, keychains, is_ranged, indexes, depths, baseline }),
        4 => (wallet(), keychain(), prop::option::weighted(0.1, index()), prop::collection::vec(0u8..8, 0..5))
            .prop_map(|(wallet, keychain, first, scripts)| Act::Derived { wallet, keychain, first, scripts }),
        1 => (wallet(), keychain(), prop::option::of(index())).prop_map(|(wallet, keychain, index)| Act::Reserve { wallet, keychain, index }),
        1 => (wallet(), keychain(), index()).prop_map(|(wallet, keychain, index)| Act::Reach { wallet, keychain, index }),
        2 => (0u8..8).prop_map(Act::LeaveOut),
        2 => (0u8..3, wallet(), 0u32..9, prop::option::of(0u32..9)).prop_map(|(scan, wallet, from, to)| Act::OpenScan { scan, wallet, from, to }),
        3 => (0u8..3).prop_map(Act::EnterScan),
        2 => Just(Act::Join),
        2 => (any::<bool>(), 1u8..5, 0u8..3).prop_map(|(is_wallet, number, label)| Act::Label { is_wallet, number, label }),
        1 => wallet().prop_map(Act::Remove),
    ]
}

impl Act {
    pub fn input(&self, view: &MemoryView, now: u64) -> Input {
        let row = |wallet: u8, keychain| {
            let row = view.descriptors.get(&Wallet(wallet).id());
            row.and_then(|row| row.keychain(keychain))
        };
        match self {
            Self::Add {
                wallet,
                keychains,
                is_ranged,
                indexes: [gap_limit, range],
                depths,
                baseline,
            } => Input::AddDescriptor {
                descriptor: Wallet(*wallet).id(),
                request: DescriptorRequest {
                    text: String::new(),
                    keychains: *keychains,
                    is_ranged: *is_ranged,
                    label: depths.first().map(|depth| label(*depth)),
                    gap_limit: Some(*gap_limit).filter(|limit| *limit > 0),
                    range: *range,
                    depths: depths.clone(),
                    baseline: *baseline,
                },
                now,
            },
            Self::Derived {
                wallet,
                keychain,
                first,
                scripts,
            } => Input::Derived {
                descriptor: Wallet(*wallet).id(),
                keychain: *keychain,
                first: first.unwrap_or(row(*wallet, *keychain).map_or(0, |row| row.derived)),
                spks: scripts.iter().map(|number| spk(*number)).collect(),
                now,
            },
            Self::Reserve {
                wallet,
                keychain,
                index,
            } => {
                let next = row(*wallet, *keychain).map_or(0, |row| row.next_index());
                Input::Reserve {
                    place: Wallet(*wallet).place(*keychain, index.unwrap_or(next)),
                    label: Some("given".to_owned()),
                    now,
                }
            }
            Self::Reach {
                wallet,
                keychain,
                index,
            } => Input::Reach {
                place: Wallet(*wallet).place(*keychain, *index),
                now,
            },
            Self::Label {
                is_wallet,
                number,
                label: text,
            } => Input::Label {
                subject: match is_wallet {
                    true => SubjectId::Descriptor(Wallet(*number).id()),
                    false => SubjectId::Script(script(*number)),
                },
                label: label(*text),
                now,
            },
            Self::LeaveOut(number) => Input::LeaveOut {
                script: script(*number),
                now,
            },
            Self::OpenScan {
                scan,
                wallet,
                from,
                to,
            } => Input::OpenDescriptorScan {
                scan: ScanId(u64::from(*scan)),
                descriptor: Wallet(*wallet).id(),
                from: *from,
                to: *to,
                now,
            },
            Self::EnterScan(scan) => Input::EnterScan {
                scan: ScanId(u64::from(*scan)),
            },
            Self::Join => Input::Join { now },
            Self::Remove(wallet) => Input::RemoveDescriptor {
                descriptor: Wallet(*wallet).id(),
                now,
            },
        }
    }
}
