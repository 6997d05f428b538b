//! An Engine.IO service with the Socket.IO layer on it.

use super::config::Config;
use super::handler::Handler;
use super::session_handler::SocketIoHandler;
use crate::engineio;

/// Answers the requests of Socket.IO clients; cheap to clone.
pub type Service<H> = engineio::Service<SocketIoHandler<H>>;

pub fn service<H: Handler>(config: Config, handler: H) -> Service<H> {
    engineio::Service::new(config.engine, SocketIoHandler::new(config.layer, handler))
}
