//! The web page, embedded in the binary: plain files, no build step, nothing from elsewhere.
//!
//! The page talks to the daemon's own REST and Socket.IO at the origin that served it. Laws:
//! - every file that a file refers to is among [`files`], and no file refers to another origin;
//! - markup holds no script and no style, so that [`CONTENT_SECURITY_POLICY`] can forbid both;
//! - text from outside enters the document as text only (the policy makes the browser refuse
//!   anything else).

use std::collections::HashMap;
use std::io::Write;
use std::sync::LazyLock;

use flate2::Compression;
use flate2::write::GzEncoder;

/// To be sent with every file of the page, with `Referrer-Policy: no-referrer` and `Cache-Control:
/// no-cache` (a new daemon brings a new page): see [`HEADERS`].
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// The headers that a file of the page has and other answers do not have, besides its content type
/// and length.
pub const HEADERS: [(&str, &str); 3] = [
    ("content-security-policy", CONTENT_SECURITY_POLICY),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-cache"),
];

/// One file of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asset {
    pub content_type: &'static str,
    pub body: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const INDEX: Asset = asset_of(HTML, include_str!("index.html"));

const fn asset_of(content_type: &'static str, body: &'static str) -> Asset {
    Asset { content_type, body }
}

/// Request path and file of each module of the page.
macro_rules! modules {
    ($($name:literal)*) => {
        [$((concat!("/", $name), asset_of(JAVASCRIPT, include_str!($name)))),*]
    };
}

/// Request path and file.
const FILES: [(&str, Asset); 4] = [
    ("/", INDEX),
    ("/realtime_client.html", INDEX),
    (
        "/style.css",
        asset_of("text/css; charset=utf-8", include_str!("style.css")),
    ),
    (
        "/icon.svg",
        asset_of("image/svg+xml", include_str!("icon.svg")),
    ),
];

const MODULES: [(&str, Asset); 25] = modules! {
    "alerts.js" "app.js" "away.js" "chart.js" "deliveries.js" "detail.js" "dom.js" "feed.js"
    "list.js" "log.js" "login.js" "node.js" "parts.js" "polling.js" "prefs.js" "qr.js"
    "receive.js" "rest.js" "scan.js" "session.js" "socket.js" "state.js" "sync.js" "truth.js"
    "words.js"
};

/// The reference, made in the browser from the contracts.
const DOCS: [(&str, Asset); 3] = [
    ("/docs", asset_of(HTML, include_str!("docs/docs.html"))),
    (
        "/docs.css",
        asset_of("text/css; charset=utf-8", include_str!("docs/docs.css")),
    ),
    (
        "/docs.js",
        asset_of(JAVASCRIPT, include_str!("docs/docs.js")),
    ),
];

/// All of them, with their request paths.
pub fn files() -> impl Iterator<Item = (&'static str, Asset)> {
    FILES.into_iter().chain(MODULES).chain(DOCS)
}

/// The file served at a request path (without query), if there is one.
pub fn asset(path: &str) -> Option<Asset> {
    files()
        .find(|(served, _)| *served == path)
        .map(|(_, asset)| asset)
}

/// The same with gzip (RFC 1952).
pub fn gzipped(path: &str) -> Option<&'static [u8]> {
    static GZIPPED: LazyLock<HashMap<&'static str, Vec<u8>>> = LazyLock::new(|| {
        files()
            .map(|(path, file)| (path, gzip(file.body)))
            .collect()
    });
    GZIPPED.get(path).map(Vec::as_slice)
}

fn gzip(text: &str) -> Vec<u8> {
    const NEVER_FAILS: &str = "memory takes what is written into it";
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text.as_bytes()).expect(NEVER_FAILS);
    encoder.finish().expect(NEVER_FAILS)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    /// What stands between each `before` and the next double quote.
    fn quoted_after<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
        text.split(before)
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
    }

    fn references(text: &str) -> Vec<&str> {
        let mut found: Vec<_> = ["src=\"", "href=\"", "from \"./"]
            .iter()
            .flat_map(|before| quoted_after(text, before))
            .collect();
        found.retain(|reference| !reference.starts_with('#'));
        found
    }

    #[test]
    fn every_file_that_is_referred_to_is_served() {
        let found: Vec<_> = files()
            .flat_map(|(_, file)| references(file.body))
            .collect();
        for reference in &found {
            // The contracts are routes.
            let is_contract = ["openapi.json", "asyncapi.json"].contains(reference);
            assert!(
                is_contract || asset(&format!("/{reference}")).is_some(),
                "{reference} is referred to, but not served"
            );
        }
        for (path, _) in files() {
            let name = path.trim_start_matches('/');
            let is_page = asset(path) == Some(INDEX) || path == "/docs";
            assert!(
                is_page || found.contains(&name),
                "{name} is served, but nothing refers to it"
            );
        }
    }

    /// So that it does not grow unseen: what a browser fetches.
    #[test]
    fn the_page_stays_small() {
        let size = |files: &[(&'static str, Asset)]| -> usize {
            let sizes = files
                .iter()
                .map(|(path, _)| gzipped(path).map_or(0, <[u8]>::len));
            sizes.sum()
        };
        // Its two names are the same file.
        let page = size(&FILES[1..]) + size(&MODULES);
        assert!(page <= 52 * 1024, "{page} bytes");
        let docs = size(&DOCS);
        assert!(docs <= 6 * 1024, "{docs} bytes of the reference");
    }

    #[test]
    fn what_is_compressed_is_the_same() {
        for (path, file) in files() {
            let mut text = String::new();
            let bytes = gzipped(path).expect("every file");
            GzDecoder::new(bytes)
                .read_to_string(&mut text)
                .expect("gzip");
            assert_eq!(text, file.body, "{path}");
        }
    }

    #[test]
    fn both_names_of_the_page_serve_the_same() {
        assert_eq!(asset("/"), asset("/realtime_client.html"));
        assert!(asset("/").is_some_and(|page| page.content_type.starts_with("text/html")));
        for path in [
            "",
            "/index.html",
            "/app.js/",
            "//app.js",
            "/../Cargo.toml",
            "/APP.JS",
        ] {
            assert_eq!(asset(path), None, "{path:?}");
        }
    }

    #[test]
    fn nothing_comes_from_elsewhere() {
        for (path, file) in files() {
            let body = file
                .body
                .replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
            for marker in [
                "http://",
                "https://",
                "ws://",
                "wss://",
                "url(",
                "@import",
                "src=\"//",
                "href=\"//",
            ] {
                assert!(!body.contains(marker), "{path} contains {marker}");
            }
        }
    }

    #[test]
    fn nothing_breaks_the_content_security_policy() {
        assert!(
            CONTENT_SECURITY_POLICY.starts_with("default-src 'none'")
                && !CONTENT_SECURITY_POLICY.contains("unsafe")
        );
        let pages = files().filter(|(_, file)| file.content_type == HTML);
        let pages = pages.map(|(_, file)| file.body.to_ascii_lowercase());
        let page = pages.collect::<String>();
        for marker in [
            "<style",
            " style=",
            " onclick=",
            " onload=",
            " onsubmit=",
            "javascript:",
        ] {
            assert!(!page.contains(marker), "the page contains {marker}");
        }
        assert_eq!(
            page.matches("<script").count(),
            page.matches("<script type=\"module\" src=").count()
        );
        for (path, file) in files() {
            for marker in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
            ] {
                assert!(!file.body.contains(marker), "{path} contains {marker}");
            }
        }
    }
}
