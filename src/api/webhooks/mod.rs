//! Webhooks: a consumer with a URL has its events posted there.

mod rest;

use std::sync::Arc;

use super::App;
use super::consumers::Consumer;

/// Starts to post the consumer's events if it has a webhook; ends with the consumer, or when the daemon stops.
pub fn spawn(app: &Arc<App>, consumer: &Arc<Consumer>) {
    let _ = (app, consumer);
}
