//! The HTTP client with which one satwatch asks another: `satwatch watch` a daemon, an edge its
//! primary. Webhooks, which go to strangers, have one of their own.

use std::error::Error;
use std::io;
use std::iter::successors;

use reqwest::{Certificate, ClientBuilder, redirect};

/// It goes to this URL only, whatever proxies and redirects say. `trusted`: certificates besides
/// those of the system, or of the file in `SSL_CERT_FILE`.
pub fn builder(agent: &str, url: &str, trusted: Vec<Certificate>) -> ClientBuilder {
    // The client takes the default; an error means that it is set already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder()
        .user_agent(agent)
        .redirect(redirect::Policy::none())
        .referer(false)
        .no_proxy();
    match url.starts_with("https:") {
        true => builder.tls_certs_merge(trusted),
        // Needs no certificates of the system.
        false => builder.tls_certs_only([]),
    }
}

/// An error, what it came from, and so on.
pub fn chain<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&error| {
        // An error of `io` hides what it is made of from `source`.
        let inner = error.downcast_ref().and_then(io::Error::get_ref);
        inner.map_or_else(|| error.source(), |inner| Some(inner))
    })
}

/// The last of the causes, which says most; the URL is known.
pub fn root(error: &(dyn Error + 'static)) -> String {
    chain(error)
        .last()
        .map(ToString::to_string)
        .unwrap_or_default()
}
