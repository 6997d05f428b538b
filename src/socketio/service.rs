//! An Engine.IO service with the Socket.IO layer on it.

use super::config::Config;
use super::handler::Handler;
use super::session_handler::SocketIoHandler;
use crate::engineio;

/// Answers the requests of Socket.IO clients; cheap to clone.
pub type Service<H> = engineio::Service<SocketIoHandler<H>>;

/// Takes over the bounds of another configuration on packets and on the number of sessions; those
/// that are open stay as they are.
pub fn set_limits<H: Handler>(service: &Service<H>, config: &Config) {
    service.handler().set_limits(config.layer.clone());
    service.set_limits(&config.engine);
}

pub fn service<H: Handler>(config: Config, handler: H) -> Service<H> {
    engineio::Service::new(config.engine, SocketIoHandler::new(config.layer, handler))
}
