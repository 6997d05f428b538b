//! What the world does with descriptors: adds them, derives what is asked for, reserves, joins,
//! removes; and what the tracker must ask for.

use satwatch::tracker::{
    ApplyError, Balance, Baseline, DescriptorId, DescriptorRow, EventKind, FollowUp, Input,
    Keychain, SubjectId, Transition,
};

use crate::pretended::descriptors::{KEYCHAINS, Wallet, next_derived};
use crate::world::World;

/// Scripts of one portion.
const PORTION: u32 = 3;

impl World {
    pub fn row(&self, wallet: Wallet) -> &DescriptorRow {
        &self.view.descriptors[&wallet.id()]
    }

    pub fn add_wallet(&mut self, wallet: Wallet, gap_limit: u32, baseline: Baseline) -> Transition {
        self.forget_all();
        self.wallets.insert(wallet);
        self.apply(Input::AddDescriptor {
            descriptor: wallet.id(),
            request: wallet.request(gap_limit, baseline),
            now: self.now,
        })
    }

    /// All scripts that are asked for are derived.
    pub fn derive(&mut self) {
        while self.derive_portion() {}
    }

    /// Some of them; false if there were none.
    pub fn derive_portion(&mut self) -> bool {
        let most = PORTION.max(self.lookahead / 4);
        let wallets = self.wallets.iter();
        let mut places = wallets.flat_map(|it| KEYCHAINS.map(|keychain| (*it, keychain)));
        let next = places.find_map(|(wallet, keychain)| {
            let next = next_derived(&self.view, wallet, keychain, self.lookahead, most);
            Some((wallet, keychain, next?))
        });
        let Some((wallet, keychain, (first, spks))) = next else {
            return false;
        };
        self.forget_all();
        let input = Input::Derived {
            descriptor: wallet.id(),
            keychain,
            first,
            spks,
            now: self.now,
        };
        let _ = self.apply(input.clone());
        let place = wallet.place(keychain, first);
        assert_eq!(self.refused(input), ApplyError::NotDerivedTo(place));
        true
    }

    /// The next index is given to somebody, and not a second time.
    pub fn reserve(&mut self, wallet: Wallet, keychain: Keychain) -> Option<u32> {
        let row = self.row(wallet).keychain(keychain)?;
        let index = row.next_index();
        if index >= row.derived {
            return None;
        }
        let place = wallet.place(keychain, index);
        let input = Input::Reserve {
            place,
            label: Some("given away".to_owned()),
            now: self.now,
        };
        let _ = self.apply(input.clone());
        assert_eq!(self.refused(input), ApplyError::AlreadyGiven(place));
        Some(index)
    }

    /// One portion of the past of scripts that joined a descriptor: nothing is announced but what
    /// is unconfirmed.
    pub fn join(&mut self) -> Transition {
        let transition = self
            .try_send(Input::Join { now: self.now })
            .expect("it may always come");
        for event in &transition.events {
            let subject = event.kind.subject_id();
            assert!(matches!(subject, Some(SubjectId::Descriptor(_))));
            if let EventKind::NewTransactions { transactions, .. } = &event.kind {
                let mut phases = transactions.iter().map(|it| it.status.phase());
                assert!(phases.all(|it| it == satwatch::tracker::Phase::Mempool));
            }
        }
        assert!(transition.changes.len() <= 25, "it is bounded");
        transition
    }

    /// It is not watched any more; what it leaves goes later, or now.
    pub fn remove_wallet(&mut self, wallet: Wallet, slowly: bool) {
        let input = Input::RemoveDescriptor {
            descriptor: wallet.id(),
            now: self.now,
        };
        if !self.wallets.remove(&wallet) {
            let missing = ApplyError::NoSuchDescriptor(wallet.id());
            assert_eq!(self.refused(input), missing);
            return;
        }
        let removed = self.try_send(input.clone()).expect("it is there");
        let told: Vec<_> = removed.events.iter().map(|event| &event.kind).collect();
        let subject = SubjectId::Descriptor(wallet.id());
        assert!(
            matches!(&told[..], [EventKind::Unwatched { subject: it }] if it.id() == subject),
            "{told:?}"
        );
        assert_eq!(
            self.refused(input),
            ApplyError::NoSuchDescriptor(wallet.id())
        );
        let again = Input::AddDescriptor {
            descriptor: wallet.id(),
            request: wallet.request(1, Baseline::IfMissing),
            now: self.now,
        };
        assert_eq!(self.refused(again), ApplyError::StillLeaving(wallet.id()));
        if !slowly {
            self.forget_all();
        }
    }

    /// Who begins to want more scripts is told in that transition.
    pub fn check_asks(&self, transition: &Transition) {
        let wants = |row: &DescriptorRow| {
            KEYCHAINS.map(|keychain| row.wants_beyond(keychain, self.lookahead).is_some())
        };
        for (id, diff) in &transition.changes.descriptors {
            let Some(new) = &diff.new else { continue };
            let old = diff.old.as_ref().map_or([false; 2], wants);
            let begins = old.iter().zip(wants(new)).any(|(old, new)| !old && new);
            assert!(
                !begins || transition.follow_ups.contains(&FollowUp::Derive),
                "descriptor {id} wants more"
            );
        }
    }

    /// What subscribers know of its balance.
    pub fn told_of(&self, wallet: Wallet) -> Balance {
        self.row(wallet).told()
    }

    /// What transactions do to it: received and sent, oldest first.
    pub fn nets(&self, wallet: Wallet) -> Vec<(u64, u64)> {
        let mut rows: Vec<_> = self.view.txs.values().collect();
        rows.sort_by_key(|row| row.order);
        let id: DescriptorId = wallet.id();
        let nets = rows.iter().flat_map(|row| &row.nets);
        let nets = nets.filter(|net| net.descriptor == id);
        nets.map(|net| (net.received, net.sent)).collect()
    }
}
