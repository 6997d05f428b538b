//! Reading for a request.

use tokio::time::Instant;

use super::*;

/// Events of this topic.
fn request(n: u8, after: u64, limit: usize) -> Request {
    Request {
        selection: Selection {
            scripts: Some(Arc::new([ScriptHash([n; 32])].into())),
            blocks: false,
        },
        after,
        limit,
    }
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
    let starts = world.log.encoder.starts.clone();
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
