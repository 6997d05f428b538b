//! What deriving the scripts of a wallet costs: 1000 at a time, on one core.
//!
//! ```text
//! cargo bench --bench descriptors
//! ```
//!
//! Targets: at most 60 ms for wpkh and 160 ms for 2-of-3 in wsh.

use std::hint::black_box;
use std::time::Duration;

use bitcoin::Network;
use criterion::{Criterion, criterion_group, criterion_main};
use satwatch::descriptors::WalletDescriptor;

const SCRIPTS: u32 = 1000;

/// Of BIP 383's and BIP 389's vectors.
const KEYS: [&str; 3] = [
    "xpub6ERApfZwUNrhLCkDtcHTcxd75RbzS1ed54G1LkBUHQVHQKqhMkhgbmJbZRkrgZw4koxb5JaHWkY4ALHY2grBGRjaDMzQLcgJvLJuZZvRcEL/<0;1>/*",
    "xpub68NZiKmJWnxxS6aaHmn81bvJeTESw724CRDs6HbuccFQN9Ku14VQrADWgqbhhTHBaohPX4CjNLf9fq9MYo6oDaPPLPxSb7gwQN3ih19Zm4Y/<0;1>/*",
    "xpub661MyMwAqRbcGDZQUKLqmWodYLcoBQnQH33yYkkF3jjxeLvY8qr2wWGEWkiKFaaQfJCoi3HeEq3Dc5DptfbCyjD38fNhSqtKc1UHaP4ba3t/<0;1>/*",
];

fn derive(criterion: &mut Criterion) {
    let [a, b, c] = KEYS;
    let mut group = criterion.benchmark_group("derive_1000");
    for (name, text) in [
        ("wpkh", format!("wpkh({a})")),
        ("wsh_2_of_3", format!("wsh(sortedmulti(2,{a},{b},{c}))")),
        ("tr", format!("tr({a})")),
        ("tr_with_tree", format!("tr({a},{{pk({b}),pk({c})}})")),
    ] {
        let wallet = WalletDescriptor::parse(&text, Network::Bitcoin).expect("it is taken");
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(wallet.derive(0, 0..SCRIPTS)));
        });
    }
    group.finish();
}

criterion_group! {
    name = descriptors;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = derive
}
criterion_main!(descriptors);
