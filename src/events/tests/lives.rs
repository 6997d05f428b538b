//! Random lives of a reader.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use proptest::prelude::*;

use super::*;

/// What may happen to a reader.
#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<u8>),
    /// It is announced with the next one.
    CommitUnannounced(Vec<u8>),
    Settle,
    /// Pages are not in memory any more.
    Forget,
    Register(Vec<u8>),
    /// With the head of now; `Some`: `after`, as a part of the log.
    Subscribe(Option<u8>),
    Unsubscribe(u8),
    Pull(u8),
    Wait(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let topics = || prop::collection::vec(0..5u8, 1..4);
    prop_oneof![
        4 => prop::collection::vec(0..5u8, 1..6).prop_map(Step::Commit),
        1 => prop::collection::vec(0..5u8, 1..6).prop_map(Step::CommitUnannounced),
        2 => Just(Step::Settle),
        1 => Just(Step::Forget),
        2 => topics().prop_map(Step::Register),
        3 => prop::option::of(any::<u8>()).prop_map(Step::Subscribe),
        1 => (0..5u8).prop_map(Step::Unsubscribe),
        4 => (1..6u8).prop_map(Step::Pull),
        1 => (0..8u8).prop_map(Step::Wait),
    ]
}

/// A waker that only notes it.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A subscriber that is polled only when it was woken, or when something was asked for.
struct Life {
    world: World,
    subscriber: Subscriber,
    /// Topics that are registered and not subscribed yet, and the head at the time.
    registered: Option<(Vec<u8>, u64)>,
    woken: Arc<Woken>,
}

impl Life {
    fn new() -> Self {
        let world = World::new();
        Self {
            subscriber: world.reader(),
            world,
            registered: None,
            woken: Arc::default(),
        }
    }

    fn poll(&mut self) -> bool {
        let waker = Waker::from(self.woken.clone());
        if self.woken.0.swap(false, Ordering::SeqCst)
            && let Poll::Ready(given) = self.subscriber.poll_with(&mut Context::from_waker(&waker))
        {
            given.unwrap();
            self.touch();
        }
        self.woken.0.load(Ordering::SeqCst)
    }

    fn touch(&self) {
        self.woken.0.store(true, Ordering::SeqCst);
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Commit(topics) => self.world.commit(&topics),
            Step::CommitUnannounced(topics) => self.world.commit_unannounced(&topics),
            Step::Settle => self.world.settle().await,
            Step::Forget => self.world.log.forget_pages(),
            Step::Register(mut topics) => {
                topics.sort_unstable();
                topics.dedup();
                self.subscriber.register(&topics).await;
                // The snapshot may be ahead of what was announced.
                self.registered = Some((topics, self.world.writer.head()));
            }
            Step::Subscribe(after) => {
                if let Some((topics, head)) = self.registered.take() {
                    let after = after.map(|part| self.world.head() * u64::from(part) / 255);
                    let after = after.filter(|after| *after <= head);
                    self.subscriber.subscribe(&topics, head, after);
                    self.touch();
                }
            }
            Step::Unsubscribe(n) => {
                if self.registered.is_none() {
                    self.subscriber.unsubscribe(n);
                    self.touch();
                }
            }
            // Not while a packet is handled (rule 5).
            Step::Pull(_) if self.registered.is_some() => {}
            Step::Pull(count) => {
                for _ in 0..count {
                    self.poll();
                }
            }
            Step::Wait(seconds) => {
                tokio::time::advance(Duration::from_secs(u64::from(seconds))).await;
            }
        }
    }

    /// Takes what there is, as long as it is woken for more.
    async fn end(mut self) {
        self.touch();
        self.world.announce();
        self.world.settle().await;
        let mut quiet = 0;
        // A page may be on its way from the disk; there the clock does not go on by itself.
        while quiet < 20 {
            if self.poll() {
                quiet = 0;
            } else {
                quiet += 1;
                tokio::task::spawn_blocking(|| ()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        self.subscriber.check(&self.world.written);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is asked for, written and pulled in whatever order: what the client may conclude is
    /// right, and it is woken for all of it.
    #[test]
    fn reader_gives_what_a_filter_of_the_log_gives(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut life = Life::new();
            for step in steps {
                life.step(step).await;
            }
            life.end().await;
        });
    }
}
