//! An Engine.IO service with the Socket.IO layer on it.

use std::net::IpAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;
use hyper::{Request, Response};

use super::config::Config;
use super::handler::Handler;
use super::session_handler::SocketIoHandler;
use crate::engineio;

/// Answers the requests of Socket.IO clients; cheap to clone.
pub struct Service<H: Handler> {
    engine: engineio::Service<SocketIoHandler<H>>,
}

impl<H: Handler> Clone for Service<H> {
    fn clone(&self) -> Self {
        Self {
            engine: self.engine.clone(),
        }
    }
}

impl<H: Handler> Service<H> {
    pub fn new(config: Config, handler: H) -> Self {
        Self {
            engine: engineio::Service::new(
                config.engine,
                SocketIoHandler::new(config.layer, handler),
            ),
        }
    }

    /// True for the path that this service answers, exactly.
    pub fn matches(&self, path: &str) -> bool {
        self.engine.matches(path)
    }

    /// Answers a request; a polling request may take up to the ping interval.
    pub fn handle<B>(
        &self,
        request: Request<B>,
        peer: Option<IpAddr>,
    ) -> impl Future<Output = Response<Full<Bytes>>> + use<H, B>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        self.engine.handle(request, peer)
    }

    /// Open sessions, joined to a namespace or not.
    pub fn session_count(&self) -> usize {
        self.engine.session_count()
    }

    /// Closes all sessions, refuses new ones, and waits until all are gone.
    pub async fn shutdown(&self) {
        self.engine.shutdown().await;
    }
}
