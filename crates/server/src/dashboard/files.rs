//! The files, each with its type, under a policy that lets the page run nothing and ask nobody else.

use axum::{
    body::Body,
    extract::Path,
    http::{HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use limosa_model::ErrorCode;

/// No inline script or style, nothing from elsewhere, no frames.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Name, type, content.
const FILES: &[(&str, &str, &str)] = &[
    ("index.html", HTML, include_str!("static/index.html")),
    ("style.css", "text/css; charset=utf-8", include_str!("static/style.css")),
    ("icon.svg", "image/svg+xml", include_str!("static/icon.svg")),
    ("app.js", SCRIPT, include_str!("static/app.js")),
    ("api.js", SCRIPT, include_str!("static/api.js")),
    ("dom.js", SCRIPT, include_str!("static/dom.js")),
    ("words.js", SCRIPT, include_str!("static/words.js")),
    ("chart.js", SCRIPT, include_str!("static/chart.js")),
    ("dialog.js", SCRIPT, include_str!("static/dialog.js")),
    ("pages/sign-in.js", SCRIPT, include_str!("static/pages/sign-in.js")),
    ("pages/home.js", SCRIPT, include_str!("static/pages/home.js")),
    ("pages/migration.js", SCRIPT, include_str!("static/pages/migration.js")),
    ("pages/create.js", SCRIPT, include_str!("static/pages/create.js")),
    ("pages/hosts.js", SCRIPT, include_str!("static/pages/hosts.js")),
    ("pages/clusters.js", SCRIPT, include_str!("static/pages/clusters.js")),
    ("pages/keys.js", SCRIPT, include_str!("static/pages/keys.js")),
    ("pages/audit.js", SCRIPT, include_str!("static/pages/audit.js")),
];

/// `GET /`
pub(super) async fn index() -> Response<Body> {
    serve("index.html")
}

/// `GET /ui/{file}`
pub(super) async fn file(Path(name): Path<String>) -> Response<Body> {
    match name.strip_prefix("errors/") {
        Some(code) => explain(code),
        None => serve(&name),
    }
}

/// An error's page of the documentation.
fn explain(name: &str) -> Response<Body> {
    match ErrorCode::ALL.iter().find(|code| code.name() == name) {
        Some(code) => ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], code.page()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn serve(name: &str) -> Response<Body> {
    let Some((_, kind, content)) = FILES.iter().find(|(known, ..)| *known == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let mut response = Response::new(Body::from(*content));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    // Asked for again each time: the files are small, and an upgraded server must not meet an old page.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_served_and_nothing_in_it_needs_another_host_or_inline_code() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/dashboard/static");
        let mut found = 0;
        for sub in ["", "/pages"] {
            for entry in std::fs::read_dir(format!("{dir}{sub}")).expect("is there") {
                let path = entry.expect("is readable").path();
                if path.is_file() {
                    found += 1;
                }
            }
        }
        assert_eq!(found, FILES.len(), "a file is not embedded");
        for (name, _, content) in FILES {
            let plain = content.replace("http://www.w3.org/2000/svg", "");
            for foreign in ["http://", "https://", " style=\"", " onclick=\"", "innerHTML", "eval("] {
                assert!(!plain.contains(foreign), "{name} has {foreign}");
            }
        }
    }
}
