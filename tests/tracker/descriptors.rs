//! Named lives of descriptors.

use bitcoin::{OutPoint, Transaction};
use satwatch::tracker::{
    ApplyError, Balance, Baseline, Event, EventKind, FollowUp, Input, Keychain, Status, Subject,
    SubjectId, WatchRequest,
};

use crate::pretended::descriptors::Wallet;
use crate::shorthand::{coin, out, told};
use crate::world::{World, script, spk, tx};

const A: Wallet = Wallet(1);
const B: Wallet = Wallet(2);
const EXTERNAL: Keychain = Keychain::External;
const INTERNAL: Keychain = Keychain::Internal;

/// What a descriptor hears, in short.
fn heard(events: &[Event], wallet: Wallet) -> Vec<String> {
    let subject = Some(SubjectId::Descriptor(wallet.id()));
    let of_wallet = events.iter().filter(|it| it.kind.subject_id() == subject);
    told(&of_wallet.cloned().collect::<Vec<_>>())
}

/// A transaction that pays scripts of wallets.
fn paying(inputs: &[OutPoint], to: &[(Wallet, Keychain, u32, u64)]) -> Transaction {
    let values: Vec<(u8, u64)> = to.iter().map(|(.., value)| (9, *value)).collect();
    let mut tx = tx(inputs, &values);
    for (output, (wallet, keychain, index, _)) in tx.output.iter_mut().zip(to) {
        output.script_pubkey = wallet.spk(*keychain, *index);
    }
    tx
}

fn with_wallet(gap_limit: u32) -> World {
    let mut world = World::new();
    let _ = world.add_wallet(A, gap_limit, Baseline::IfMissing);
    assert!(!world.row(A).is_pending());
    world.check();
    world
}

fn watch_by_itself(world: &mut World, number: u8) {
    world.watch(number, &[]);
    world.check();
}

fn end(world: &World) {
    world.check();
    world.kept().check_change_sets();
}

#[test]
fn a_payment_with_change_and_several_inputs_is_one_event_with_its_fee_as_net() {
    let mut world = with_wallet(3);
    let coins = paying(
        &[coin(&world, 0)],
        &[(A, EXTERNAL, 0, 700), (A, EXTERNAL, 1, 300)],
    );
    let _ = world.mine(9, std::slice::from_ref(&coins));
    let all = [out(&coins, 0), out(&coins, 1)];
    let payment = paying(&all, &[(A, INTERNAL, 0, 940), (A, EXTERNAL, 3, 50)]);
    let events = world.accept(&payment).events;
    assert_eq!(heard(&events, A), ["new 1", "balance 1000>990"]);
    let of_wallet = |event: &&Event| {
        event
            .kind
            .subject()
            .is_some_and(|it| *it == Subject::Descriptor(A.id()))
    };
    let news = events
        .iter()
        .filter(of_wallet)
        .find_map(|event| match &event.kind {
            EventKind::NewTransactions { transactions, .. } => Some(transactions.clone()),
            _ => None,
        });
    let news = news.expect("it is announced");
    assert_eq!((news[0].received, news[0].sent), (990, 1000));
    assert_eq!(
        world.row(A).balance,
        Balance {
            confirmed: 1000,
            unconfirmed: -10
        }
    );
    assert_eq!((world.row(A).tx_count, world.row(A).utxo_count), (2, 2));
    let events = world.mine(9, &[payment]).events;
    assert_eq!(
        heard(&events, A),
        ["mempool>confirmed 1", "confirmed>confirmed 2"],
        "the sum stays"
    );
    assert_eq!(world.nets(A), [(1000, 0), (990, 1000)]);
    end(&world);
}

#[test]
fn a_payment_to_own_change_whose_sum_stays_moves_no_balance() {
    let mut world = with_wallet(3);
    let first = paying(&[coin(&world, 0)], &[(A, EXTERNAL, 0, 700)]);
    let _ = world.mine(9, std::slice::from_ref(&first));
    let second = paying(&[out(&first, 0)], &[(A, INTERNAL, 0, 700)]);
    assert_eq!(heard(&world.accept(&second).events, A), ["new 1"]);
    end(&world);
}

#[test]
fn two_wallets_that_share_a_script_each_hear_of_it_and_so_does_the_script() {
    let mut world = with_wallet(3);
    let _ = world.add_wallet(B, 3, Baseline::IfMissing);
    let payment = tx(&[coin(&world, 0)], &[(4, 700)]);
    let events = world.accept(&payment).events;
    for wallet in [A, B] {
        assert_eq!(heard(&events, wallet), ["new 1", "balance 0>700"]);
    }
    let of_script = events
        .iter()
        .find(|event| event.kind.script() == Some(&script(4)));
    let Some(Subject::Script { derivations, .. }) = of_script.and_then(|it| it.kind.subject())
    else {
        panic!("the script hears, too")
    };
    assert_eq!(derivations, &[A.place(EXTERNAL, 2), B.place(EXTERNAL, 1)]);
    // What only the other has counts for the other.
    let own = paying(&[coin(&world, 1)], &[(B, EXTERNAL, 0, 5)]);
    let events = world.accept(&own).events;
    assert_eq!(heard(&events, A), [""; 0]);
    assert_eq!(heard(&events, B), ["new 1", "balance 700>705"]);
    // Both in one: each has its net.
    let both = paying(
        &[out(&payment, 0)],
        &[(A, EXTERNAL, 0, 400), (B, EXTERNAL, 2, 250)],
    );
    let events = world.accept(&both).events;
    assert_eq!(heard(&events, A), ["new 1", "balance 700>400"]);
    assert_eq!(heard(&events, B), ["new 1", "balance 705>655"]);
    end(&world);
}

#[test]
fn a_use_that_jumps_far_in_one_transaction_moves_the_window_with_it_and_asks_for_more() {
    let mut world = World::new();
    world.lookahead = 1000;
    world.tracker = world.loaded();
    let _ = world.add_wallet(A, 20, Baseline::IfMissing);
    let before = *world.row(A).keychain(EXTERNAL).unwrap();
    assert_eq!(
        (before.window, before.derived, before.first),
        (20, 1020, 1020)
    );
    assert_eq!(before.watched_to, 20);
    let payment = paying(
        &[coin(&world, 0)],
        &[(A, EXTERNAL, 900, 700), (A, EXTERNAL, 1019, 1)],
    );
    let transition = world.accept(&payment);
    assert_eq!(heard(&transition.events, A), ["new 1", "balance 0>701"]);
    let moved = transition.changes.descriptors[&A.id()].new.clone().unwrap();
    let moved = moved.keychain(EXTERNAL).unwrap();
    assert_eq!((moved.last_used, moved.window), (Some(1019), 1040));
    assert_eq!(moved.watched_to, 1020, "of the lookahead all is known");
    assert!(transition.follow_ups.contains(&FollowUp::Derive));
    let row = world.row(A);
    let external = row.keychain(EXTERNAL).unwrap();
    assert_eq!(
        (external.derived, external.first),
        (1040 + 1000 + 100, 1020)
    );
    assert_eq!(
        external.watched_to, 1040,
        "the baseline of the rest has come"
    );
    assert!(!row.is_pending());
    assert_eq!(row.keychain(INTERNAL).unwrap().derived, 1020);
    world.check();
}

#[test]
fn a_use_beyond_the_lookahead_is_found_by_the_baseline_of_the_next_scripts() {
    let mut world = with_wallet(1);
    let derived = world.row(A).keychain(EXTERNAL).unwrap().derived;
    assert_eq!(derived, 3);
    let hidden = paying(&[coin(&world, 0)], &[(A, EXTERNAL, derived + 1, 500)]);
    let _ = world.mine(9, std::slice::from_ref(&hidden));
    assert_eq!(world.row(A).tx_count, 0);
    world.slow_scans = true;
    let use_at_end = paying(&[coin(&world, 1)], &[(A, EXTERNAL, derived - 1, 70)]);
    let _ = world.mine(9, &[use_at_end]);
    let row = world.row(A);
    assert_eq!(row.keychain(EXTERNAL).unwrap().derived, derived + 3);
    assert!(row.is_pending(), "the window is beyond what is known");
    assert_eq!(row.told().total(), 70);
    world.check();
    let before = world.events.len();
    world.scan();
    assert_eq!(heard(&world.events[before..], A), ["balance 70>570"]);
    let external = world.row(A).keychain(EXTERNAL).unwrap();
    assert_eq!(external.last_used, Some(derived + 1));
    end(&world);
}

#[test]
fn a_reorg_takes_uses_back_but_neither_reservations_nor_the_window() {
    let mut world = with_wallet(3);
    assert_eq!(world.reserve(A, EXTERNAL), Some(0));
    assert_eq!(world.reserve(A, EXTERNAL), Some(1));
    let block = world.coinbase(&[(4, 5_000)]);
    let _ = world.mine_with(block, &[]);
    let used = *world.row(A).keychain(EXTERNAL).unwrap();
    assert_eq!(
        (used.last_used, used.window, used.reserved),
        (Some(2), 6, 2)
    );
    assert_eq!(used.next_index(), 3);
    assert_eq!(world.reserve(A, EXTERNAL), Some(3));
    let _ = world.disconnect(1);
    let after = *world.row(A).keychain(EXTERNAL).unwrap();
    assert_eq!(
        (after.last_used, after.window, after.reserved),
        (None, 7, 4)
    );
    assert_eq!(world.reserve(A, EXTERNAL), Some(4), "never twice");
    world.restart();
    assert_eq!(
        world.reserve(A, EXTERNAL),
        Some(5),
        "not after a restart either"
    );
    end(&world);
}

#[test]
fn the_last_use_goes_back_to_the_one_before_it() {
    let mut world = with_wallet(3);
    let low = paying(&[coin(&world, 0)], &[(A, EXTERNAL, 1, 10)]);
    let high = paying(&[coin(&world, 1)], &[(A, EXTERNAL, 3, 10)]);
    let _ = (world.accept(&low), world.accept(&high));
    let last_used = |world: &World| world.row(A).keychain(EXTERNAL).unwrap().last_used;
    assert_eq!(last_used(&world), Some(3));
    let left = world.drop_with_descendants(&[high.compute_txid()], Status::Evicted);
    world.tell(&[], left, crate::world::Heard::Sequence);
    assert_eq!(last_used(&world), Some(1));
    end(&world);
}

/// Script 1 has some past: a confirmed transaction, a spend in the mempool, a dead one.
fn with_past() -> World {
    let mut world = World::new();
    watch_by_itself(&mut world, 1);
    let mined = tx(&[coin(&world, 0)], &[(1, 700), (1, 200)]);
    let _ = world.mine(1, std::slice::from_ref(&mined));
    let spend = tx(&[out(&mined, 0)], &[(1, 600)]);
    let dead = tx(&[coin(&world, 1)], &[(1, 50)]);
    let _ = (world.accept(&spend), world.accept(&dead));
    let rival = tx(&[coin(&world, 1)], &[(9, 40)]);
    let _ = world.accept(&rival);
    world.check();
    world
}

#[test]
fn a_script_with_a_past_joins_and_only_what_is_unconfirmed_is_announced() {
    let mut world = with_past();
    let before = world.events.len();
    let _ = world.add_wallet(A, 3, Baseline::IfMissing);
    assert_eq!(
        heard(&world.events[before..], A),
        ["new 1", "balance 0>5800"]
    );
    let row = world.row(A);
    assert_eq!((row.tx_count, row.utxo_count, row.awaited), (3, 3, 0));
    assert_eq!(row.keychain(EXTERNAL).unwrap().last_used, Some(0));
    let all = told(&world.events[before..]);
    assert_eq!(all.len(), 2, "the script itself hears nothing: {all:?}");
    end(&world);
}

#[test]
fn a_join_that_restarts_cut_counts_nothing_twice_and_announces_nothing_twice() {
    let mut world = with_past();
    world.slow_joins = true;
    let before = world.events.len();
    let _ = world.add_wallet(A, 3, Baseline::IfMissing);
    assert!(world.row(A).is_pending());
    world.check();
    // Each process comes farther than the one before it.
    for portions in 1..9 {
        for _ in 0..portions {
            let _ = world.join();
            world.check();
        }
        world.restart();
        world.check();
    }
    world.slow_joins = false;
    world.restart();
    assert_eq!(
        heard(&world.events[before..], A),
        ["new 1", "balance 0>5800"]
    );
    assert_eq!(world.row(A).tx_count, 3);
    end(&world);
}

#[test]
fn what_happens_to_a_script_while_it_joins_counts_once() {
    let mut world = with_past();
    world.slow_joins = true;
    let _ = world.add_wallet(A, 3, Baseline::IfMissing);
    let _ = world.join();
    let spend = world.mempool[0].clone();
    let _ = world.mine(9, std::slice::from_ref(&spend));
    world.check();
    let late = tx(&[out(&spend, 0)], &[(1, 400)]);
    let _ = world.accept(&late);
    world.check();
    let _ = world.disconnect(1);
    world.check();
    while world.tracker.has_to_join() {
        let _ = world.join();
        world.check();
    }
    assert_eq!(world.row(A).balance.total(), 5600);
    end(&world);
}

#[test]
fn the_first_baseline_in_many_parts_tells_one_balance_at_its_end() {
    let mut world = World::new();
    let scripts = [
        (A, EXTERNAL, 0, 700),
        (A, EXTERNAL, 1, 20),
        (A, INTERNAL, 0, 3),
    ];
    let past = paying(&[coin(&world, 0)], &scripts);
    let _ = world.mine(9, &[past]);
    (world.slow_scans, world.slow_derive) = (true, true);
    let before = world.events.len();
    let _ = world.add_wallet(A, 2, Baseline::IfMissing);
    let mut asked = Vec::new();
    while world.derive_portion() {
        world.check();
        assert!(world.row(A).is_pending());
        asked.push(world.row(A).awaited);
    }
    assert_eq!(asked, [3, 6, 9, 12]);
    // A payment that comes meanwhile is announced, and the balance not yet.
    let live = paying(&[coin(&world, 1)], &[(A, EXTERNAL, 1, 100)]);
    let _ = world.accept(&live);
    let mut pending: Vec<_> = world.view.watches.iter().collect();
    pending.retain(|(_, row)| row.coverage.pending);
    let pending: Vec<_> = pending.into_iter().map(|(script, _)| *script).collect();
    for part in pending.chunks(3) {
        let outputs = world.found(part);
        let input = Input::Baseline {
            block: world.tip(),
            scripts: part.to_vec(),
            outputs,
            now: world.now,
        };
        let _ = world.apply(input);
        world.check();
    }
    assert_eq!(
        heard(&world.events[before..], A),
        ["new 1", "balance 0>823"]
    );
    assert!(!world.row(A).is_pending());
    world.derive();
    world.scan();
    end(&world);
}

#[test]
fn a_removed_wallet_leaves_what_others_share_and_what_was_added_by_itself() {
    let mut world = with_wallet(3);
    let _ = world.add_wallet(B, 3, Baseline::IfMissing);
    watch_by_itself(&mut world, 1);
    let payment = tx(&[coin(&world, 0)], &[(1, 700), (4, 30), (2, 5)]);
    let own = paying(&[coin(&world, 1)], &[(A, EXTERNAL, 1, 8)]);
    let _ = world.mine(9, &[payment.clone(), own.clone()]);
    world.check();
    let before = world.events.len();
    world.remove_wallet(A, true);
    world.check();
    let live = paying(
        &[coin(&world, 2)],
        &[(A, EXTERNAL, 1, 8), (A, EXTERNAL, 2, 2)],
    );
    assert_eq!(heard(&world.accept(&live).events, A), [""; 0]);
    let mut portions = 0;
    while world.tracker.has_to_forget() {
        world.forget_portion();
        world.check();
        if portions == 2 {
            world.restart();
        }
        portions += 1;
    }
    assert!(portions > 5, "{portions}");
    let ends = world.events[before..].iter();
    let ends = ends.filter(|event| matches!(event.kind, EventKind::Unwatched { .. }));
    let ends: Vec<_> = ends.filter_map(|event| event.kind.subject_id()).collect();
    let mut expected = vec![
        SubjectId::Script(script(2)),
        SubjectId::Script(A.script(EXTERNAL, 1)),
        SubjectId::Descriptor(A.id()),
    ];
    expected.sort();
    let mut sorted = ends.clone();
    sorted.sort();
    assert_eq!(sorted, expected);
    assert_eq!(ends[0], SubjectId::Descriptor(A.id()), "it goes at once");
    assert!(world.view.watches[&script(1)].listed);
    assert_eq!(world.row(B).balance.total(), 732);
    end(&world);
}

#[test]
fn a_wallet_is_added_again_only_when_all_is_forgotten_and_is_as_if_new() {
    let mut world = with_past();
    let _ = world.add_wallet(A, 3, Baseline::IfMissing);
    assert_eq!(world.reserve(A, EXTERNAL), Some(1));
    world.remove_wallet(A, false);
    assert_eq!(world.watched, [1].into());
    world.check();
    let before = world.events.len();
    let _ = world.add_wallet(A, 2, Baseline::IfMissing);
    assert_eq!(
        heard(&world.events[before..], A),
        ["new 1", "balance 0>5800"]
    );
    assert_eq!(world.row(A).keychain(EXTERNAL).unwrap().reserved, 0);
    end(&world);
}

#[test]
fn a_wallet_that_was_removed_while_it_was_joined_joins_anew() {
    let mut world = with_past();
    world.slow_joins = true;
    let _ = world.add_wallet(A, 3, Baseline::IfMissing);
    let _ = (world.join(), world.join());
    assert!(world.tracker.has_to_join());
    world.remove_wallet(A, false);
    assert!(!world.tracker.has_to_join());
    let _ = world.add_wallet(A, 3, Baseline::IfMissing);
    while world.tracker.has_to_join() {
        let _ = world.join();
        world.check();
    }
    assert_eq!(world.row(A).balance.total(), 5800);
    end(&world);
}

#[test]
fn unwatching_an_address_of_a_wallet_only_takes_its_mark_and_says_for_whom_it_stays() {
    let mut world = with_wallet(3);
    watch_by_itself(&mut world, 1);
    let _ = world.mine(1, &[]);
    world.forget(1);
    world.check();
    assert_eq!(
        heard(&world.mine(1, &[]).events, A),
        ["new 1", "balance 5000>10000", "confirmed>confirmed 2"]
    );
    end(&world);
}

#[test]
fn who_adds_a_wallet_again_gets_what_is_new_in_the_request() {
    let mut world = with_wallet(2);
    let mut request = A.request(4, Baseline::Skip);
    (request.depths, request.range) = (vec![3, 2], 11);
    request.label = Some("savings".to_owned());
    let input = Input::AddDescriptor {
        descriptor: A.id(),
        request,
        now: 1,
    };
    let _ = world.apply(input.clone());
    let row = world.row(A);
    assert_eq!((row.gap_limit, row.depths.clone()), (4, vec![1, 2, 3]));
    for keychain in [EXTERNAL, INTERNAL] {
        let of_row = row.keychain(keychain).unwrap();
        assert_eq!((of_row.window, of_row.watched_to), (11, 11));
        assert!(of_row.derived >= 11 + 8);
    }
    let wallet = &world.view.wallets[&A.id()];
    assert_eq!(
        (wallet.label.as_str(), wallet.baseline),
        ("savings", Baseline::IfMissing)
    );
    let again = world.apply(input);
    assert!(again.changes.is_empty() && again.events.is_empty());
    // A range that is within the lookahead asks for no script, and is spoken for all the same.
    let mut request = A.request(4, Baseline::IfMissing);
    request.range = 12;
    let _ = world.apply(Input::AddDescriptor {
        descriptor: A.id(),
        request,
        now: 1,
    });
    assert_eq!(world.row(A).keychain(EXTERNAL).unwrap().watched_to, 12);
    end(&world);
}

#[test]
fn a_wallet_that_is_added_again_without_a_gap_limit_keeps_its_own() {
    let mut world = with_wallet(5);
    let before = world.row(A).clone();
    let mut request = A.request(5, Baseline::IfMissing);
    (request.gap_limit, request.label) = (None, Some("savings".to_owned()));
    let _ = world.apply(Input::AddDescriptor {
        descriptor: A.id(),
        request: request.clone(),
        now: 1,
    });
    assert_eq!(world.row(A), &before);
    let _ = world.apply(Input::AddDescriptor {
        descriptor: B.id(),
        request,
        now: 1,
    });
    assert_eq!(world.row(B).gap_limit, 20);
}

#[test]
fn a_seventeenth_depth_of_a_wallet_is_refused() {
    let mut world = with_wallet(2);
    let add = |depths: std::ops::RangeInclusive<u8>| {
        let mut request = A.request(2, Baseline::IfMissing);
        request.depths = depths.collect();
        Input::AddDescriptor {
            descriptor: A.id(),
            request,
            now: 1,
        }
    };
    let _ = world.apply(add(3..=8));
    let _ = world.apply(add(9..=16));
    let has: Vec<u8> = (1..=16).collect();
    let refused = world.refused(add(16..=17));
    let too_many = ApplyError::TooManyDepths {
        spk: None,
        has: has.clone(),
        asked: vec![16, 17],
    };
    assert_eq!(refused, too_many);
    let _ = world.apply(add(2..=9));
    assert_eq!(world.row(A).depths, has);
}

#[test]
fn depths_of_a_wallet_are_told_to_it_and_those_of_a_script_to_the_script() {
    let mut world = World::new();
    world.watch(1, &[3]);
    let _ = world.add_wallet(A, 3, Baseline::IfMissing);
    let payment = tx(&[coin(&world, 0)], &[(1, 700), (2, 1)]);
    let _ = world.mine(9, &[payment]);
    let second = world.mine(9, &[]).events;
    assert_eq!(told(&second), ["confirmed>confirmed 2", "block"]);
    assert_eq!(heard(&second, A), ["confirmed>confirmed 2"]);
    let third = world.mine(9, &[]).events;
    assert_eq!(told(&third), ["confirmed>confirmed 3", "block"]);
    assert_eq!(heard(&third, A), [""; 0]);
    world.restart();
    world.remove_wallet(A, false);
    let _ = world.mine(1, &[]);
    assert_eq!(told(&world.mine(9, &[]).events), ["block"]);
    end(&world);
}

#[test]
fn an_unfinished_add_of_addresses_that_a_wallet_has_takes_back_the_marks_alone() {
    let mut world = with_wallet(3);
    world.add_part(&[1, 3], false);
    assert!(world.view.watches[&script(1)].listed);
    world.restart();
    world.forget_all();
    assert!(!world.view.watches[&script(1)].listed);
    assert!(!world.view.watches.contains_key(&script(3)));
    end(&world);
}

#[test]
fn a_wallet_added_before_the_first_block_speaks_for_what_comes_after_it() {
    let mut world = World::before_the_start();
    for baseline in [Baseline::IfMissing, Baseline::Skip] {
        let wallet = if baseline == Baseline::Skip { B } else { A };
        world.slow_scans = true;
        let _ = world.add_wallet(wallet, 2, baseline);
    }
    world.start(1);
    world.scan();
    world.check();
    for wallet in [A, B] {
        assert_eq!(world.row(wallet).from_height, 1, "{wallet:?}");
    }
    end(&world);
}

#[test]
fn what_a_script_that_joins_touches_is_announced_though_another_script_is_forgotten_meanwhile() {
    let mut world = World::new();
    watch_by_itself(&mut world, 1);
    watch_by_itself(&mut world, 7);
    let both = tx(&[coin(&world, 0)], &[(1, 700), (7, 30)]);
    let _ = world.accept(&both);
    world.slow_joins = true;
    let before = world.events.len();
    let _ = world.add_wallet(A, 3, Baseline::IfMissing);
    world.begin_to_forget(7);
    world.forget_all();
    world.check();
    while world.tracker.has_to_join() {
        let _ = world.join();
    }
    assert_eq!(
        heard(&world.events[before..], A),
        ["new 1", "balance 0>700"]
    );
    end(&world);
}

#[test]
fn an_old_transaction_is_no_news_for_a_wallet_because_something_else_of_it_is_forgotten() {
    let mut world = World::new();
    watch_by_itself(&mut world, 1);
    watch_by_itself(&mut world, 7);
    let both = tx(&[coin(&world, 0)], &[(1, 700), (7, 30)]);
    let _ = world.mine(9, &[both]);
    world.slow_joins = true;
    let before = world.events.len();
    let _ = world.add_wallet(A, 3, Baseline::IfMissing);
    world.begin_to_forget(7);
    world.forget_all();
    while world.tracker.has_to_join() {
        let _ = world.join();
    }
    assert_eq!(heard(&world.events[before..], A), ["balance 0>700"]);
    end(&world);
}

#[test]
fn a_wallet_without_a_baseline_counts_what_comes_from_now_on() {
    let mut world = World::new();
    let _ = world.mine(1, &[]);
    let _ = world.add_wallet(A, 2, Baseline::Skip);
    let row = world.row(A);
    assert!(!row.is_pending());
    assert_eq!(row.keychain(EXTERNAL).unwrap().watched_to, 2);
    let _ = world.mine(1, &[]);
    assert_eq!(world.told_of(A).total(), 5000);
    // Somebody adds one of its addresses, with its past.
    let _ = world.apply(Input::Watch {
        scripts: vec![WatchRequest {
            spk: spk(1),
            label: None,
            depths: Vec::new(),
            baseline: Baseline::IfMissing,
        }],
        now: 1,
    });
    world.watched.insert(1);
    assert_eq!(world.told_of(A).total(), 10_000);
    end(&world);
}

#[test]
fn a_dead_transaction_of_which_more_joins_is_not_told_again() {
    let mut world = World::new();
    watch_by_itself(&mut world, 1);
    watch_by_itself(&mut world, 2);
    let both = tx(&[coin(&world, 0)], &[(1, 700), (2, 30)]);
    let _ = world.accept(&both);
    world.slow_derive = true;
    let before = world.events.len();
    let _ = world.add_wallet(A, 1, Baseline::IfMissing);
    assert!(world.derive_portion());
    let left = world.drop_with_descendants(&[both.compute_txid()], Status::Evicted);
    world.tell(&[], left, crate::world::Heard::Sequence);
    world.derive();
    world.scan();
    assert_eq!(
        heard(&world.events[before..], A),
        ["new 1", "mempool>evicted 0"]
    );
    assert_eq!(world.nets(A), [(730, 0)]);
    end(&world);
}
