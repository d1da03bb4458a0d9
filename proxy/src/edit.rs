//! Edits of Pingora's parsed heads, as `direct/compose.rs` makes them in raw ones.

use http::Uri;
use pingora_core::{Error, ErrorType, OrErr, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use serin_measure::Arm;
use serin_route::{Edits, HeaderEdits, Match};

use crate::forward::{Forwarding, Origin, Passage};
use crate::view::HeaderView;

/// Edits the head that a backend gets. `entry` is the one by which the route was found.
pub(crate) fn request(head: &mut RequestHeader, edits: &Edits, entry: Option<&Match>) -> Result<()> {
    if edits.is_empty() {
        return Ok(());
    }
    if edits.path.is_some() {
        let mut target = Vec::new();
        edits.path_to(&mut target, head.uri.path().as_bytes(), entry);
        if let Some(query) = head.uri.query() {
            target.push(b'?');
            target.extend_from_slice(query.as_bytes());
        }
        head.set_uri(Uri::try_from(target).or_err(ErrorType::InvalidHTTPHeader, "a rewritten path")?);
    }
    if let Some(authority) = &edits.authority {
        head.insert_header(http::header::HOST, &**authority)?;
    }
    for name in edits.request.dropped() {
        head.remove_header(name);
    }
    for (name, value) in edits.request.appended() {
        head.append_header(name.to_owned(), value).map_err(|error| unfit(error, name))?;
    }
    Ok(())
}

/// Tells a backend where the request comes from; before other edits, as these look at what the client has sent.
pub(crate) fn forward(
    head: &mut RequestHeader,
    edits: &Edits,
    forwarding: &Forwarding,
    origin: Origin,
    arm: Arm,
) -> Result<()> {
    let mut told = Vec::new();
    let view = HeaderView { head, origin, trusted_hops: forwarding.trusted_hops };
    forwarding
        .tell(&view, Passage { peer: origin.peer, arm }, |name, value| told.push((name.to_owned(), value.to_owned())));
    let replaced = head.headers.keys().filter(|name| forwarding.replaces(name.as_str()));
    for name in replaced.cloned().collect::<Vec<_>>() {
        head.remove_header(&name);
    }
    for (name, value) in told {
        if !edits.request.drops(&name) {
            head.append_header(name, value)?;
        }
    }
    Ok(())
}

/// Joins cookies that HTTP/2 may carry one by one: in HTTP/1 they are one field (RFC 9113 section 8.2.3).
pub(crate) fn join_cookies(head: &mut RequestHeader) -> Result<()> {
    let cookies: Vec<&[u8]> =
        head.headers.get_all(http::header::COOKIE).iter().map(http::HeaderValue::as_bytes).collect();
    if cookies.len() < 2 {
        return Ok(());
    }
    let joined = cookies.join(&b"; "[..]);
    head.insert_header(http::header::COOKIE, joined)
}

/// Edits the head that a client gets.
pub(crate) fn response(head: &mut ResponseHeader, edits: &HeaderEdits) -> Result<()> {
    for name in edits.dropped() {
        head.remove_header(name);
    }
    for (name, value) in edits.appended() {
        head.append_header(name.to_owned(), value).map_err(|error| unfit(error, name))?;
    }
    Ok(())
}

/// Edits were looked at when they were compiled, so this is for Pingora's stricter rules alone.
fn unfit(error: Box<Error>, name: &str) -> Box<Error> {
    error.more_context(format!("an edit of {name}"))
}
