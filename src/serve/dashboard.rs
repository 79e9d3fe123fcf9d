//! The page at `/dashboard`: it draws what `/metrics` says, once a second. It is one file, and asks nobody else for anything.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};

use super::routes::{self, Reply};

const PAGE: &str = concat!(
    include_str!("dashboard/head.html"),
    "<style>\n",
    include_str!("dashboard/style.css"),
    "</style>\n</head>\n",
    include_str!("dashboard/body.html"),
    // A block, so that nothing of it is global.
    "<script>\n'use strict';\n{\n",
    include_str!("dashboard/words.js"),
    include_str!("dashboard/history.js"),
    include_str!("dashboard/plot.js"),
    include_str!("dashboard/tables.js"),
    include_str!("dashboard/panels.js"),
    include_str!("dashboard/page.js"),
    "}\n</script>\n</body>\n</html>\n",
);
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// What the browser may do for the page: run its one script, use its one style sheet, and ask this server. Nothing else is
/// fetched, nothing is sent anywhere, and no other page shows it in a frame.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let (script, style) = (fingerprint(PAGE, "script"), fingerprint(PAGE, "style"));
    let policy = format!(
        "default-src 'none'; script-src '{script}'; style-src '{style}'; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    // Whatever it was made of: without a policy that allows something, nothing is allowed.
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// The page.
pub(super) fn page() -> Reply {
    let mut reply = routes::reply(StatusCode::OK, HTML, PAGE.as_bytes());
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    let always: [(HeaderName, &'static str); 3] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Another version of the server has another page.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    for (name, value) in always {
        headers.insert(name, HeaderValue::from_static(value));
    }
    reply
}

/// What a content security policy calls the first `element` of a page: the hash of what stands in it.
fn fingerprint(page: &str, element: &str) -> String {
    let inside = page
        .split_once(&format!("<{element}>"))
        .and_then(|(_, rest)| rest.split_once(&format!("</{element}>")))
        .map_or("", |(inside, _)| inside);
    format!("sha256-{}", STANDARD.encode(Sha256::digest(inside.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        for outside in ["src=", "@import", "url(", "http-equiv", "<link rel=\"stylesheet", "<iframe", "<base"]
        {
            assert!(!PAGE.contains(outside), "{outside}");
        }
        for element in ["<script", "<style"] {
            assert_eq!(PAGE.matches(element).count(), 1, "{element}");
        }
        // A policy with hashes refuses both, and the page would look wrong in a browser only.
        assert!(!PAGE.contains(" style=\"") && !PAGE.contains(" onclick="));
    }

    #[test]
    fn a_fingerprint_is_the_hash_that_browsers_make() {
        // As `openssl dgst -sha256 -binary | base64` makes it.
        let page = "<html><script>doSomething();</script></html>";
        assert_eq!(fingerprint(page, "script"), "sha256-RFWPLDbv2BY+rCkDzsE+0fr8ylGr2R2faWMhq4lfEQc=");
        assert!(POLICY.to_str().unwrap().contains(&fingerprint(PAGE, "style")));
    }
}
