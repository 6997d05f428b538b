//! Labels: each change is told once, however it is made.

use satwatch::tracker::{ApplyError, Baseline, Derivation, Input, SubjectId, WatchRequest};

use crate::pretended::descriptors::Wallet;
use crate::shorthand::told;
use crate::world::{World, script, spk};

const A: Wallet = Wallet(1);

impl World {
    /// What is not watched is refused a label; a label that changes is an event, one that is the
    /// same is none.
    pub fn label(&mut self, is_wallet: bool, number: u8, label: &str) {
        let (subject, missing) = match is_wallet {
            true => {
                let id = Wallet(number).id();
                (SubjectId::Descriptor(id), ApplyError::NoSuchDescriptor(id))
            }
            false => {
                let script = script(number);
                (SubjectId::Script(script), ApplyError::NotWatched(script))
            }
        };
        let known = match is_wallet {
            true => self
                .view
                .wallets
                .get(&Wallet(number).id())
                .map(|row| row.label.clone()),
            false => self
                .view
                .watches
                .get(&script(number))
                .map(|row| row.label.clone()),
        };
        let input = Input::Label {
            subject,
            label: label.to_owned(),
            now: self.now,
        };
        let Some(before) = known else {
            assert_eq!(self.refused(input), missing);
            return;
        };
        let labelled = self.apply(input);
        let expected: Vec<_> = Some(format!("label {before:?}>{label:?}"))
            .filter(|_| before != label)
            .into_iter()
            .collect();
        assert_eq!(told(&labelled.events), expected);
        assert_eq!(labelled.changes.is_empty(), expected.is_empty());
    }

    fn watch_as(&mut self, number: u8, label: Option<&str>) -> Vec<String> {
        self.watched.insert(number);
        let watched = self.apply(Input::Watch {
            scripts: vec![WatchRequest {
                spk: spk(number),
                label: label.map(str::to_owned),
                depths: Vec::new(),
                baseline: Baseline::Skip,
            }],
            now: self.now,
        });
        told(&watched.events)
    }
}

#[test]
fn a_script_that_is_watched_again_with_another_label_is_told_to_have_it() {
    let mut world = World::new();
    let nothing: [&str; 0] = [];
    assert_eq!(
        world.watch_as(1, Some("shop")),
        nothing,
        "a new address's first label is not an event"
    );
    assert_eq!(world.watch_as(1, None), nothing, "none is said");
    assert_eq!(world.watch_as(1, Some("shop")), nothing);
    assert_eq!(world.watch_as(1, Some("till")), [r#"label "shop">"till""#]);
    world.label(false, 1, "till");
    world.label(false, 1, "");
    world.label(false, 2, "nobody");
    world.forget(1);
    assert_eq!(
        world.watch_as(1, Some("rent")),
        nothing,
        "a new address's first label is not an event"
    );
    world.check();
}

#[test]
fn a_wallet_and_its_addresses_are_told_to_have_other_labels() {
    let mut world = World::new();
    let _ = world.add_wallet(A, 2, Baseline::IfMissing);
    let mut add = |label: &str| {
        let mut request = A.request(2, Baseline::IfMissing);
        request.label = Some(label.to_owned());
        let added = world.apply(Input::AddDescriptor {
            descriptor: A.id(),
            request,
            now: 1,
        });
        told(&added.events)
    };
    assert_eq!(add("shop"), [r#"label "">"shop""#]);
    assert!(add("shop").is_empty());
    world.label(true, 1, "till");
    world.label(true, 2, "nobody");
    let place = Derivation {
        descriptor: A.id(),
        keychain: satwatch::tracker::Keychain::External,
        index: 0,
    };
    let given = world.apply(Input::Reserve {
        place,
        label: Some("order 7".to_owned()),
        now: 1,
    });
    assert_eq!(told(&given.events), [r#"label "">"order 7""#]);
    let script = world.view.derivations[&place];
    let labelled = world.apply(Input::Label {
        subject: SubjectId::Script(script),
        label: "order 8".to_owned(),
        now: 1,
    });
    assert_eq!(told(&labelled.events), [r#"label "order 7">"order 8""#]);
    world.remove_wallet(A, true);
    world.label(true, 1, "gone");
    world.check();
}
