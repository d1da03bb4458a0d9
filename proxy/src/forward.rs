//! What a backend is told of where a request comes from, and to which request and trace it belongs.
//!
//! What a client says of itself is believed only as far as the proxies in front are trusted ([`Forwarding::trusted_hops`]). Both ways to
//! carry a request ask here which fields that came are left out, and what takes their place.

use std::io::Write;
use std::net::IpAddr;

use pingora_core::protocols::Stream;
use serin_measure::Arm;
use serin_route::RequestView;
use smallvec::SmallVec;

/// The longest request id that is passed on, in bytes: it is copied into logs, and a UUID has 36.
const REQUEST_ID_BYTES_MAX: usize = 128;
/// Bytes of a `traceparent` of version 00 (W3C Trace Context, section 3.2).
const TRACEPARENT_BYTES: usize = 55;

/// A value while it is put together; most fit without an allocation.
type Value = SmallVec<[u8; 128]>;

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarding {
    /// Proxies in front whose word is taken. With none, whatever a client sends of `X-Forwarded-*`, `X-Real-IP` and `Forwarded` is left out;
    /// with any, it is passed on, added to, and theirs are `X-Forwarded-Proto` and `X-Forwarded-Host`.
    pub trusted_hops: u8,
    /// `X-Forwarded-For`, `-Proto` and `-Host`.
    pub x_forwarded: bool,
    /// `Forwarded` (RFC 7239).
    pub forwarded: bool,
    /// `X-Request-Id`: passed on, and made where there is none.
    pub request_id: bool,
    /// `traceparent` (W3C Trace Context): passed on, and made, not sampled, where there is none.
    pub trace_context: bool,
    /// The field that tells the application which arm it is; a client's own is left out. None tells nothing.
    pub arm: Option<Box<str>>,
}

impl Default for Forwarding {
    fn default() -> Self {
        Self {
            trusted_hops: 0,
            x_forwarded: true,
            forwarded: false,
            request_id: true,
            trace_context: true,
            arm: Some("x-serin-arm".into()),
        }
    }
}

/// Where a request came from.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Origin {
    /// The other end of the client's connection; none where it has no address.
    pub(crate) peer: Option<IpAddr>,
    pub(crate) is_tls: bool,
}

/// Where a request came from and goes to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passage {
    pub(crate) peer: Option<IpAddr>,
    pub(crate) arm: Arm,
}

impl Origin {
    /// The one of a connection.
    pub(crate) fn of(stream: &Stream) -> Self {
        let digest = stream.get_socket_digest();
        let peer = digest.and_then(|digest| digest.peer_addr()?.as_inet().map(|peer| peer.ip().to_canonical()));
        Self { peer, is_tls: stream.get_ssl_digest().is_some() }
    }

    pub(crate) const fn scheme(self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }
}

impl Forwarding {
    /// Nothing is told, and what a client says goes through as it is.
    pub const fn none() -> Self {
        Self {
            trusted_hops: u8::MAX,
            x_forwarded: false,
            forwarded: false,
            request_id: false,
            trace_context: false,
            arm: None,
        }
    }

    /// Whether a field that came is left out: [`Self::tell`] says again what is to stay of it, so what is told has its place in both.
    pub(crate) fn replaces(&self, name: &str) -> bool {
        let is_untrusted = self.trusted_hops == 0;
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        (match name.len() {
            9 if is("x-real-ip") => is_untrusted,
            9 => (self.forwarded || is_untrusted) && is("forwarded"),
            10 => self.trace_context && is("tracestate"),
            11 => self.trace_context && is("traceparent"),
            12 => self.request_id && is("x-request-id"),
            // There are many of these, and frameworks believe them: -Port, -Prefix, -Ssl, …
            13.. if is_untrusted && begins_like(name, "x-forwarded-") => true,
            15 => self.x_forwarded && is("x-forwarded-for"),
            16 => self.x_forwarded && is("x-forwarded-host"),
            17 => self.x_forwarded && is("x-forwarded-proto"),
            _ => false,
        }) || self.arm.as_deref().is_some_and(is)
    }

    /// Says the fields that a backend gets, their names in lower case.
    pub(crate) fn tell(&self, request: &impl RequestView, passage: Passage, mut say: impl FnMut(&str, &[u8])) {
        let mut value = Value::new();
        if self.x_forwarded {
            self.x_forwarded(request, passage, &mut value, &mut say);
        }
        if self.forwarded {
            value.clear();
            self.earlier(request, "forwarded", &mut value);
            forwarded(request, passage.peer, &mut value);
            say("forwarded", &value);
        }
        if self.request_id {
            let came = request.header("x-request-id").next().filter(|id| is_request_id(id));
            match came {
                Some(id) => say("x-request-id", id),
                None => say("x-request-id", new_request_id().encode_lower(&mut [0; 36]).as_bytes()),
            }
        }
        if self.trace_context {
            trace(request, &mut value, &mut say);
        }
        if let Some(name) = &self.arm {
            say(name, passage.arm.as_str().as_bytes());
        }
    }

    fn x_forwarded(
        &self,
        request: &impl RequestView,
        passage: Passage,
        value: &mut Value,
        say: &mut impl FnMut(&str, &[u8]),
    ) {
        self.earlier(request, "x-forwarded-for", value);
        if let Some(peer) = passage.peer {
            // Memory takes everything.
            let _ = write!(value, "{peer}");
        }
        if !value.is_empty() {
            say("x-forwarded-for", value);
        }
        let trusted = |name| if self.trusted_hops > 0 { request.header(name).next() } else { None };
        say("x-forwarded-proto", trusted("x-forwarded-proto").unwrap_or_else(|| request.scheme().as_bytes()));
        if let Some(host) = trusted("x-forwarded-host").or_else(|| request.authority()) {
            say("x-forwarded-host", host);
        }
    }

    /// What trusted proxies have said in this field, with a comma after it. All of it is passed on: how far back it can be believed is for
    /// the reader, who counts from the end.
    fn earlier(&self, request: &impl RequestView, name: &str, value: &mut Value) {
        if self.trusted_hops == 0 {
            return;
        }
        for came in request.header(name).filter(|came| !came.is_empty()) {
            value.extend_from_slice(came);
            value.extend_from_slice(b", ");
        }
    }
}

fn begins_like(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix))
}

/// An element of `Forwarded` (RFC 7239 section 4). An IPv6 address, and a host with a port, need quotes.
fn forwarded(request: &impl RequestView, peer: Option<IpAddr>, value: &mut Value) {
    // Memory takes everything.
    let _ = match peer {
        Some(IpAddr::V4(peer)) => write!(value, "for={peer}"),
        Some(IpAddr::V6(peer)) => write!(value, "for=\"[{peer}]\""),
        None => write!(value, "for=unknown"),
    };
    let is_quotable = |host: &&[u8]| host.iter().all(|byte| !matches!(byte, b'"' | b'\\'));
    if let Some(host) = request.authority().filter(is_quotable) {
        value.extend_from_slice(b";host=\"");
        value.extend_from_slice(host);
        value.push(b'"');
    }
    let _ = write!(value, ";proto={}", request.scheme());
}

fn is_request_id(id: &[u8]) -> bool {
    (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

/// Made of numbers that are no part of the evidence, so that it has its own ones.
fn new_request_id() -> uuid::fmt::Hyphenated {
    uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid().into()
}

/// Passes a trace on as it is: Serin records no spans, so it has no part in one. A field that is none begins a trace anew, and then what
/// others have said of the old one is left out (W3C Trace Context, section 4.3).
fn trace(request: &impl RequestView, value: &mut Value, say: &mut impl FnMut(&str, &[u8])) {
    let mut parents = request.header("traceparent");
    let parent = parents.next().filter(|parent| is_traceparent(parent));
    if let (Some(parent), None) = (parent, parents.next()) {
        say("traceparent", parent);
        request.header("tracestate").for_each(|state| say("tracestate", state));
        return;
    }
    value.clear();
    value.extend_from_slice(b"00-");
    hex(value, &fastrand::u128(1..).to_be_bytes());
    value.push(b'-');
    hex(value, &fastrand::u64(1..).to_be_bytes());
    value.extend_from_slice(b"-00");
    say("traceparent", value);
}

/// Appends bytes as digits, without a formatter in each request.
fn hex(value: &mut Value, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        value.push(DIGITS[usize::from(byte >> 4)]);
        value.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// Version, trace, parent and flags, in lower case; neither of the two is all zeros (W3C Trace Context, section 3.2.2). A later version may
/// have more after a dash.
fn is_traceparent(value: &[u8]) -> bool {
    let Some((known, more)) = value.split_at_checked(TRACEPARENT_BYTES) else { return false };
    let mut parts = known.split(|byte| *byte == b'-');
    let mut hex = |length| {
        let part = parts.next().filter(|part| part.len() == length);
        part.filter(|part| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
    };
    let (Some(version), Some(trace), Some(parent), Some(_)) = (hex(2), hex(32), hex(16), hex(2)) else { return false };
    let is_zero = |part: &[u8]| part.iter().all(|byte| *byte == b'0');
    let has_proper_end = match version {
        b"00" => more.is_empty(),
        b"ff" => false,
        _ => more.is_empty() || more.starts_with(b"-"),
    };
    has_proper_end && !is_zero(trace) && !is_zero(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Request<'a>(&'a [(&'a str, &'a str)]);

    impl RequestView for Request<'_> {
        fn method(&self) -> &str {
            "GET"
        }
        fn scheme(&self) -> &str {
            "http"
        }
        fn authority(&self) -> Option<&[u8]> {
            Some(b"shop:80")
        }
        fn path(&self) -> &[u8] {
            b"/"
        }
        fn query(&self) -> Option<&[u8]> {
            None
        }
        fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
            self.0.iter().filter(move |(n, _)| *n == name).map(|(_, value)| value.as_bytes())
        }
    }

    const PEER: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));

    /// What of `came` a backend gets, and what it is told.
    fn told(forwarding: &Forwarding, came: &[(&str, &str)], peer: Option<IpAddr>) -> Vec<String> {
        let stays = came.iter().filter(|(name, _)| !forwarding.replaces(name));
        let mut told: Vec<String> = stays.map(|(name, value)| format!("{name}: {value}")).collect();
        forwarding.tell(&Request(came), Passage { peer, arm: Arm::Canary }, |name, value| {
            told.push(format!("{name}: {}", String::from_utf8_lossy(value)));
        });
        told
    }

    #[track_caller]
    fn check(forwarding: &Forwarding, came: &[(&str, &str)], peer: Option<IpAddr>, expected: &[&str]) {
        assert_eq!(told(forwarding, came, peer), expected, "{forwarding:?}");
    }

    const SPOOFED: [(&str, &str); 4] = [
        ("x-forwarded-for", "198.51.100.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "bank"),
        ("forwarded", "for=198.51.100.7"),
    ];

    #[test]
    fn what_a_client_says_of_itself_is_believed_as_far_as_proxies_in_front_are_trusted() {
        let none = Forwarding::none();
        let alone = Forwarding { x_forwarded: true, trusted_hops: 0, ..none.clone() };
        let ours = ["x-forwarded-for: 192.0.2.1", "x-forwarded-proto: http", "x-forwarded-host: shop:80"];
        check(&alone, &SPOOFED, PEER, &ours);
        check(&alone, &[], None, &ours[1..]);
        let behind = Forwarding { trusted_hops: 1, ..alone.clone() };
        let theirs = [
            "forwarded: for=198.51.100.7",
            "x-forwarded-for: 198.51.100.7, 192.0.2.1",
            "x-forwarded-proto: https",
            "x-forwarded-host: bank",
        ];
        check(&behind, &SPOOFED, PEER, &theirs);
        check(&Forwarding { trusted_hops: 0, ..none.clone() }, &SPOOFED, PEER, &[]);
        check(
            &alone,
            &[("X-Forwarded-Prefix", "/admin"), ("X-Real-IP", "198.51.100.7"), ("x-real", "1")],
            None,
            &["x-real: 1", ours[1], ours[2]],
        );
        check(&none, &SPOOFED[..1], PEER, &["x-forwarded-for: 198.51.100.7"]);
    }

    #[test]
    fn forwarded_has_the_form_of_rfc_7239() {
        let alone = Forwarding { forwarded: true, trusted_hops: 0, ..Forwarding::none() };
        check(&alone, &SPOOFED[3..], PEER, &["forwarded: for=192.0.2.1;host=\"shop:80\";proto=http"]);
        let v6 = Some("2001:db8::1".parse().expect("an address"));
        let behind = Forwarding { trusted_hops: 1, ..alone };
        let both = "forwarded: for=198.51.100.7, for=\"[2001:db8::1]\";host=\"shop:80\";proto=http";
        check(&behind, &SPOOFED[3..], v6, &[both]);
    }

    #[test]
    fn a_request_has_an_id_and_a_trace_and_those_that_came_stay() {
        let marks = Forwarding { request_id: true, trace_context: true, ..Forwarding::none() };
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let came = [("x-request-id", "abc"), ("traceparent", parent), ("tracestate", "a=b"), ("tracestate", "c=d")];
        let expected = ["x-request-id: abc", &format!("traceparent: {parent}"), "tracestate: a=b", "tracestate: c=d"];
        check(&marks, &came, PEER, &expected);
        let long = "x".repeat(REQUEST_ID_BYTES_MAX + 1);
        for came in [
            &[][..],
            &[("x-request-id", &*long), ("traceparent", "junk"), ("tracestate", "a=b")],
            &[("x-request-id", "a b"), ("traceparent", parent), ("traceparent", parent)],
        ] {
            let [id, trace] = &told(&marks, came, PEER)[..] else { panic!("two fields") };
            let id = id.strip_prefix("x-request-id: ").expect("its name");
            assert_eq!(uuid::Uuid::parse_str(id).expect("a UUID").get_version_num(), 4);
            let trace = trace.strip_prefix("traceparent: ").expect("its name");
            assert!(is_traceparent(trace.as_bytes()) && trace.ends_with("-00"), "{trace}");
        }
    }

    #[test]
    fn a_traceparent_is_what_the_specification_says() {
        let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let zeros = |count| "0".repeat(count);
        for (value, expected) in [
            (format!("00-{trace}-{parent}-00"), true),
            (format!("cc-{trace}-{parent}-01"), true),
            (format!("cc-{trace}-{parent}-01-more"), true),
            (format!("cc-{trace}-{parent}-01more"), false),
            (format!("00-{trace}-{parent}-01-more"), false),
            (format!("ff-{trace}-{parent}-01"), false),
            (format!("00-{}-{parent}-01", trace.to_uppercase()), false),
            (format!("00-{}-{parent}-01", zeros(32)), false),
            (format!("00-{trace}-{}-01", zeros(16)), false),
            (format!("00-{trace}{parent}-01"), false),
            (String::new(), false),
        ] {
            assert_eq!(is_traceparent(value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn the_application_is_told_its_arm_and_no_client_can_say_it() {
        let arm = Forwarding { arm: Some("x-serin-arm".into()), ..Forwarding::none() };
        check(&arm, &[("X-Serin-Arm", "primary"), ("a", "b")], PEER, &["a: b", "x-serin-arm: canary"]);
    }
}
