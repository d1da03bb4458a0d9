//! Where something listens or is reached: `127.0.0.1:8080`, `app.internal:9001`, `[::1]:80`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::problem::{Findings, quoted};

/// A host, by name or by address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The host without the brackets of an IPv6 address.
    pub host: Host,
    /// The port, from 1 on.
    pub port: u16,
}

/// A host of an [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A name that is looked up.
    Name(String),
}

/// Why a text is not an endpoint. All of them are for the person who wrote it to repair.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// There is no port.
    #[error("{} has no port; an endpoint is written host:port", quoted(.0))]
    NoPort(String),
    /// What stands for the port is not one.
    #[error("{} has the port {}, which is not a number from 1 to 65535", quoted(given), quoted(port))]
    Port {
        /// The whole text.
        given: String,
        /// What stands after the last colon.
        port: String,
    },
    /// What stands for the host is neither a name nor an address.
    #[error("{} has no host that could be reached; an endpoint is written host:port", quoted(.0))]
    Host(String),
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let (host, port) = text.rsplit_once(':').ok_or_else(|| EndpointError::NoPort(text.to_owned()))?;
        let host = parse_host(host).ok_or_else(|| EndpointError::Host(text.to_owned()))?;
        // Digits only: `u16::from_str` would take "+80" too.
        let number = port.parse::<u16>().ok().filter(|port_number| *port_number > 0 && !port.starts_with('+'));
        let bad_port = || EndpointError::Port { given: text.to_owned(), port: port.to_owned() };
        Ok(Self { host, port: number.ok_or_else(bad_port)? })
    }
}

fn parse_host(host: &str) -> Option<Host> {
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().ok().map(|address| Host::Address(address.into()));
    }
    if let Ok(address) = host.parse::<std::net::Ipv4Addr>() {
        return Some(Host::Address(address.into()));
    }
    // Letters, digits, hyphens and dots (RFC 1123, section 2.1); underscores occur in the names of containers.
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let name = !host.is_empty() && host.len() <= 253 && host.chars().all(allowed) && !host.starts_with(['-', '.']);
    name.then(|| Host::Name(host.to_owned()))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(address) => SocketAddr::new(*address, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// Reports a text that is not an address to listen on. Port 0 lets the system choose one.
pub(crate) fn check_listen(findings: &mut Findings, path: &str, text: &str) {
    if text.parse::<SocketAddr>().is_ok() {
        return;
    }
    let help = match text.strip_prefix(':').map(str::parse::<u16>) {
        Some(Ok(port)) => format!("write 0.0.0.0:{port} or [::]:{port} for all interfaces"),
        Some(Err(_)) | None => "write it like 127.0.0.1:8080 or [::]:8080".to_owned(),
    };
    findings.error(path, format!("{} is not an IP address and a port", quoted(text))).help(help);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let parsed = text.parse::<Endpoint>();
        let shown = parsed.map(|endpoint| endpoint.to_string()).map_err(|error| error.to_string());
        assert_eq!(shown, expected.map(str::to_owned).map_err(str::to_owned));
    }

    #[test]
    fn an_endpoint_is_a_host_and_a_port() {
        check("127.0.0.1:9001", Ok("127.0.0.1:9001"));
        check("[::1]:80", Ok("[::1]:80"));
        check("my_app.internal:65535", Ok("my_app.internal:65535"));
        check("localhost", Err("\"localhost\" has no port; an endpoint is written host:port"));
        check("a:0", Err("\"a:0\" has the port \"0\", which is not a number from 1 to 65535"));
        check("a:65536", Err("\"a:65536\" has the port \"65536\", which is not a number from 1 to 65535"));
        check("a:+80", Err("\"a:+80\" has the port \"+80\", which is not a number from 1 to 65535"));
        check("a:http", Err("\"a:http\" has the port \"http\", which is not a number from 1 to 65535"));
        let no_host =
            |text: &str| format!("\"{text}\" has no host that could be reached; an endpoint is written host:port");
        for text in [":80", "::1:80", "http://a:80", "a b:80", "[x]:80"] {
            check(text, Err(&no_host(text)));
        }
    }
}
