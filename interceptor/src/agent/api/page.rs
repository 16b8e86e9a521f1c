//! The page: one HTML file that loads nothing from elsewhere.

use anyhow::{Context as _, Result};
use axum::{
    http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    response::IntoResponse,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::error::ApiError;

const HTML: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

pub(super) async fn html() -> Result<impl IntoResponse, ApiError> {
    let nonce = nonce()?;
    let html = HTML
        .replace("{{nonce}}", &nonce)
        .replace("{{style}}", STYLE)
        .replace("{{script}}", SCRIPT);
    let headers = [
        (CONTENT_SECURITY_POLICY, policy(&nonce)),
        (CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
    ];
    Ok((headers, html))
}

/// Only the page's own script and style, and requests to the agent. Text from the node cannot become
/// markup, because the script may not create any.
fn policy(nonce: &str) -> String {
    format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src \
         'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'"
    )
}

/// A number that is valid for one response.
fn nonce() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).context("cannot read random bytes")?;
    Ok(BASE64_STANDARD.encode(bytes))
}
