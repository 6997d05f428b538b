//! Reading for a request.

use tokio::time::Instant;

use super::*;

fn reader(log: &Arc<EventLog>, dispatch: &Handle, n: u8, after: u64) -> Reader<()> {
    let selection = Selection {
        scripts: Some(Arc::new([ScriptHash([n; 32])].into())),
        descriptors: Some(Arc::default()),
        blocks: false,
    };
    Reader::of_selection(log, dispatch, selection, after)
}

/// What is read of this topic.
#[derive(Clone, Copy)]
struct Request {
    n: u8,
    after: u64,
    limit: usize,
}

fn request(n: u8, after: u64, limit: usize) -> Request {
    Request { n, after, limit }
}

async fn read(
    log: &Arc<EventLog>,
    dispatch: &Handle,
    Request { n, after, limit }: Request,
    enough: Option<impl Future<Output = ()>>,
) -> Result<Batch, PageError> {
    let mut reader = reader(log, dispatch, n, after);
    reader.read_batch(after, limit, enough).await
}

fn numbers(batch: &Batch) -> Vec<u64> {
    batch.events.iter().map(|entry| entry.number).collect()
}

/// With nothing to wait for.
async fn read_now(world: &World, request: Request) -> Batch {
    let enough = None::<std::future::Ready<()>>;
    read(&world.log, &world.dispatch, request, enough)
        .await
        .unwrap()
}

/// How long a request waits for what is wanted.
const WAIT: Duration = Duration::from_secs(10);

async fn read_or_wait(world: &World, request: Request) -> Batch {
    let enough = Some(tokio::time::sleep(WAIT));
    read(&world.log, &world.dispatch, request, enough)
        .await
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn batch_is_what_is_there_up_to_its_limit() {
    let mut world = World::new();
    world.commit(&[1, 2, 1]);
    let start = Instant::now();
    for (n, limit, expected, next) in [
        (1, 10, vec![1, 3], 3),
        (1, 1, vec![1], 1),
        (1, 2, vec![1, 3], 3),
        (9, 10, vec![], 3),
    ] {
        let batch = read_now(&world, request(n, 0, limit)).await;
        let found = (numbers(&batch), batch.next, batch.head);
        assert_eq!(found, (expected, next, 3));
    }
    let batch = read_or_wait(&world, request(1, 0, 10)).await;
    assert_eq!((numbers(&batch), batch.next), (vec![1, 3], 3));
    assert_eq!(start.elapsed(), Duration::ZERO, "nothing is waited for");
}

#[tokio::test(start_paused = true)]
async fn batch_waits_for_what_is_wanted_and_takes_what_came_with_it() {
    let mut world = World::new();
    world.commit(&[1, 2, 1]);
    let start = Instant::now();
    let (log, dispatch) = (world.log.clone(), world.dispatch.clone());
    let waiting = tokio::spawn(async move {
        let enough = Some(tokio::time::sleep(WAIT));
        read(&log, &dispatch, request(1, 3, 10), enough).await
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.commit(&[2]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.commit(&[1, 2, 1]);
    let batch = waiting.await.unwrap().unwrap();
    assert_eq!((numbers(&batch), batch.next), (vec![5, 7], 7));
    assert_eq!(start.elapsed(), Duration::from_secs(2));
    let batch = read_or_wait(&world, request(9, 3, 10)).await;
    assert_eq!((numbers(&batch), batch.next), (vec![], 7));
    assert_eq!(start.elapsed(), Duration::from_secs(2) + WAIT);
}

#[tokio::test(start_paused = true)]
async fn batch_that_matches_little_ends_before_the_log_and_does_not_wait() {
    let mut world = World::new();
    for _ in 0..51 {
        world.commit(&[2; 1000]);
    }
    let start = Instant::now();
    let batch = read_or_wait(&world, request(1, 0, 10)).await;
    assert_eq!(
        (batch.events.len(), batch.next, batch.head),
        (0, 50_000, 51_000)
    );
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn batch_passes_the_numbers_that_a_power_loss_skipped() {
    let mut world = World::new();
    world.commit(&[1, 1]);
    let mut world = world.lose_power().await;
    world.commit(&[1]);
    let starts = world.log.encoder.starts();
    assert!(
        world.head() > 50_002,
        "more are skipped than one look takes"
    );
    let mut after = 2;
    let found = loop {
        let batch = read_now(&world, request(1, after, 10)).await;
        // As a client goes on: with the text of the cursor.
        let cursor = world.log.encoder.cursor(batch.next);
        let next = crate::wire::cursor::read(&starts, &cursor).unwrap();
        assert_ne!(next, after, "it goes on");
        after = next;
        if !batch.events.is_empty() {
            break numbers(&batch);
        }
    };
    assert_eq!(found, [world.head()]);
}

#[tokio::test(start_paused = true)]
async fn batch_registers_only_to_wait_and_once() {
    let mut world = World::new();
    world.commit(&[1, 2, 1]);
    let mut reader = reader(&world.log, &world.dispatch, 1, 0);
    let enough = || Some(tokio::time::sleep(WAIT));
    let batch = reader.read_batch(0, 1, enough()).await.unwrap();
    assert_eq!((numbers(&batch), batch.next), (vec![1], 1));
    let batch = reader.read_batch(1, 10, enough()).await.unwrap();
    assert_eq!((numbers(&batch), batch.next), (vec![3], 3));
    assert!(!reader.follows(), "there was something at once");
    let batch = reader.read_batch(3, 10, enough()).await.unwrap();
    assert_eq!((numbers(&batch), batch.next), (vec![], 3));
    assert!(reader.follows());
    // Given up while it waits.
    tokio::select! {
        biased;
        _ = reader.read_batch(3, 10, enough()) => panic!("there is nothing"),
        () = tokio::task::yield_now() => {}
    }
    world.commit(&[2, 1]);
    world.settle().await;
    let batch = reader.read_batch(3, 10, enough()).await.unwrap();
    assert_eq!((numbers(&batch), batch.next), (vec![5], 5));
    assert!(reader.follows(), "it is the same registration");
    let batch = reader.read_batch(0, 2, enough()).await.unwrap();
    assert_eq!((numbers(&batch), batch.next), (vec![1, 3], 3));
    assert!(reader.follows(), "going back it stays registered");
    let batch = reader.read_batch(3, 10, enough()).await.unwrap();
    assert_eq!((numbers(&batch), batch.next), (vec![5], 5));
}

/// It may have been passed by events that it was not marked for.
#[tokio::test(start_paused = true)]
async fn batch_reader_that_is_given_up_while_it_registers_begins_anew() {
    // Whether dispatch takes the commit or the registration first is left to chance.
    for _ in 0..16 {
        let mut world = World::new();
        world.commit(&[1]);
        world.settle().await;
        let mut reader = reader(&world.log, &world.dispatch, 1, 1);
        let enough = || Some(tokio::time::sleep(WAIT));
        {
            let mut reading = Box::pin(reader.read_batch(1, 10, enough()));
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(reading.as_mut().poll(&mut cx).is_pending());
        }
        world.commit(&[1]);
        world.settle().await;
        let batch = reader.read_batch(1, 10, enough()).await.unwrap();
        assert_eq!((numbers(&batch), batch.next), (vec![2], 2));
    }
}

/// Between its reading and its registration.
#[tokio::test(start_paused = true)]
async fn batch_finds_what_is_written_while_it_registers() {
    for announced in [false, true] {
        let mut world = World::new();
        world.commit(&[2]);
        world.settle().await;
        let (log, dispatch) = (world.log.clone(), world.dispatch.clone());
        let enough = Some(tokio::time::sleep(WAIT));
        let mut reading = Box::pin(read(&log, &dispatch, request(1, 1, 10), enough));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(reading.as_mut().poll(&mut cx).is_pending());
        world.commit_unannounced(&[1]);
        if announced {
            world.announce();
        }
        tokio::task::yield_now().await;
        world.announce();
        let batch = reading.await.unwrap();
        assert_eq!((numbers(&batch), batch.next), (vec![2], 2));
    }
}
