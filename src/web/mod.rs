//! The web page, embedded in the binary: plain files, no build step, nothing from elsewhere.
//!
//! The page talks to the daemon's own REST at the origin that served it. Laws:
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

/// One file of the page, as it is served.
#[derive(Debug)]
pub struct Asset {
    pub content_type: &'static str,
    /// [`stripped`].
    pub body: String,
    /// The same with gzip (RFC 1952).
    pub gzipped: Vec<u8>,
}

/// Request path, content type and source.
type Source = (&'static str, &'static str, &'static str);

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const INDEX: &str = include_str!("index.html");

/// Each module of the page.
macro_rules! modules {
    ($($name:literal)*) => {
        [$((concat!("/", $name), JAVASCRIPT, include_str!($name))),*]
    };
}

const FILES: [Source; 4] = [
    ("/", HTML, INDEX),
    ("/realtime_client.html", HTML, INDEX),
    ("/style.css", CSS, include_str!("style.css")),
    ("/icon.svg", "image/svg+xml", include_str!("icon.svg")),
];

const MODULES: [Source; 23] = modules! {
    "alerts.js" "app.js" "away.js" "chart.js" "deliveries.js" "detail.js" "dom.js" "feed.js"
    "list.js" "log.js" "login.js" "node.js" "parts.js" "prefs.js" "qr.js" "receive.js" "rest.js"
    "scan.js" "session.js" "state.js" "sync.js" "truth.js" "words.js"
};

/// The reference, made in the browser from the contracts.
const DOCS: [Source; 3] = [
    ("/docs", HTML, include_str!("docs/docs.html")),
    ("/docs.css", CSS, include_str!("docs/docs.css")),
    ("/docs.js", JAVASCRIPT, include_str!("docs/docs.js")),
];

/// All of them, by their request paths.
pub fn files() -> &'static HashMap<&'static str, Asset> {
    static SERVED: LazyLock<HashMap<&str, Asset>> = LazyLock::new(|| {
        let sources = FILES.into_iter().chain(MODULES).chain(DOCS);
        let served = sources.map(|(path, content_type, source)| {
            let body = stripped(source, content_type);
            let gzipped = gzip(&body);
            let asset = Asset {
                content_type,
                body,
                gzipped,
            };
            (path, asset)
        });
        served.collect()
    });
    &SERVED
}

/// The file served at a request path (without query), if there is one.
pub fn asset(path: &str) -> Option<&'static Asset> {
    files().get(path)
}

/// A source without what only its readers need: indentation, comments (not those of HTML) and empty
/// lines, so that the line numbers in messages of browsers are not those of the source. It knows no
/// grammar: no text of a source goes over several lines or has ` // ` in it, and nothing but a
/// line's end follows a comment over several lines.
fn stripped(source: &str, content_type: &str) -> String {
    let mut comment = false;
    let mut text = String::with_capacity(source.len());
    for line in source.lines().map(str::trim_start) {
        comment |= line.starts_with("/*");
        let code = match content_type {
            HTML => line,
            _ if comment || line.starts_with("//") => "",
            _ => line.split(" // ").next().unwrap_or_default(),
        };
        comment &= !line.contains("*/");
        if !code.is_empty() {
            text.push_str(code);
            text.push('\n');
        }
    }
    text
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
            .values()
            .flat_map(|file| references(&file.body))
            .collect();
        for reference in &found {
            // The contracts are routes.
            let is_contract = ["openapi.json", "asyncapi.json"].contains(reference);
            assert!(
                is_contract || asset(&format!("/{reference}")).is_some(),
                "{reference} is referred to, but not served"
            );
        }
        for (path, file) in files() {
            let name = path.trim_start_matches('/');
            assert!(
                file.content_type == HTML || found.contains(&name),
                "{name} is served, but nothing refers to it"
            );
        }
    }

    fn served(sources: &[Source]) -> impl Iterator<Item = &'static Asset> {
        sources.iter().filter_map(|(path, ..)| asset(path))
    }

    /// So that it does not grow unseen.
    #[test]
    fn the_page_stays_small() {
        // Its two names are the same file.
        let page: Vec<_> = served(&FILES[1..]).chain(served(&MODULES)).collect();
        let whole: usize = page.iter().map(|file| file.body.len()).sum();
        assert!(whole <= 100_000, "{whole} bytes");
        let sent: usize = page.iter().map(|file| file.gzipped.len()).sum();
        assert!(sent <= 46_000, "{sent} bytes with gzip");
        let docs: usize = served(&DOCS).map(|file| file.gzipped.len()).sum();
        assert!(docs <= 6 * 1024, "{docs} bytes of the reference");
    }

    #[test]
    fn comments_and_indentation_are_not_served() {
        let source = "/* One\n   two. */\na {\n  b: c; /* d */\n}\n// e\n/* f */\n  g(); // h";
        assert_eq!(stripped(source, CSS), "a {\nb: c; /* d */\n}\ng();\n");
        assert_eq!(stripped("  <p>a // b\n", HTML), "<p>a // b\n");
        for (path, content_type, source) in FILES.into_iter().chain(MODULES).chain(DOCS) {
            let is_comment = |line: &&str| line.trim_start().starts_with("//");
            for line in source.lines().filter(|line| !is_comment(line)) {
                // What is cut off is a sentence, and no end of a text or of an expression.
                if let Some((_, comment)) = line.split_once(" // ").filter(|_| content_type != HTML)
                {
                    let is_sentence = comment.ends_with('.') && !comment.contains(['`', '"', '\'']);
                    assert!(is_sentence, "{path}: a text is cut: {line}");
                }
                let end = line.split("*/").nth(1);
                assert_eq!(end.unwrap_or_default(), "", "{path}: {line}");
            }
        }
    }

    #[test]
    fn what_is_compressed_is_the_same() {
        for (path, file) in files() {
            let mut text = String::new();
            GzDecoder::new(&*file.gzipped)
                .read_to_string(&mut text)
                .expect("gzip");
            assert_eq!(text, file.body, "{path}");
        }
    }

    #[test]
    fn both_names_of_the_page_serve_the_same() {
        let pages = ["/", "/realtime_client.html"].map(|path| {
            let page = asset(path).expect("it is served");
            assert_eq!(page.content_type, HTML);
            &page.body
        });
        assert_eq!(pages[0], pages[1]);
        for path in [
            "",
            "/index.html",
            "/app.js/",
            "//app.js",
            "/../Cargo.toml",
            "/APP.JS",
        ] {
            assert!(asset(path).is_none(), "{path:?}");
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
        let pages = files().values().filter(|file| file.content_type == HTML);
        let pages = pages.map(|file| file.body.to_ascii_lowercase());
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
