//! The proxies, as processes on one core. All of a job are there, and all but one of them are stopped.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::job::{Entry, local};
use crate::process::{Process, scrape};
use crate::recipe;

/// The core of whoever is measured.
const PROXY_CORE: usize = 0;
/// Serin's admin listener.
pub(crate) const ADMIN: SocketAddr = local(18_090);
/// Where the backends listen.
pub(crate) const PRIMARY: SocketAddr = local(18_081);
pub(crate) const CANARY: SocketAddr = local(18_082);

/// A program and its arguments.
pub(crate) type Command = (String, Vec<String>);

/// A proxy, not running yet.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    recipe: fn(&Place<'_>) -> Result<Command>,
    /// Whether its metrics are read meanwhile, as they are in production.
    is_scraped: bool,
}

/// Where a proxy has to listen, what for, and where its files are.
pub(crate) struct Place<'a> {
    pub(crate) listen: SocketAddr,
    pub(crate) threads: usize,
    pub(crate) entry: &'a Entry,
    pub(crate) folder: &'a Path,
}

/// A proxy that runs.
pub(crate) struct Running {
    pub(crate) process: Process,
    is_scraped: bool,
}

impl Running {
    /// Reads its metrics in the middle of a window, if they are.
    pub(crate) fn scrape_within(&self, lasting: Duration) -> Option<JoinHandle<()>> {
        self.is_scraped.then(|| {
            std::thread::spawn(move || {
                std::thread::sleep(lasting / 2);
                scrape(ADMIN);
            })
        })
    }
}

impl Peer {
    /// All of them; nginx is what the others are held against.
    pub(crate) fn all() -> Vec<Self> {
        let peer = |name, recipe| Self { name, recipe, is_scraped: false };
        vec![
            peer("nginx", recipe::nginx),
            peer("haproxy", recipe::haproxy),
            Self { name: "serin", recipe: recipe::serin, is_scraped: true },
            peer("relay", recipe::relay),
            peer("edge", recipe::edge),
            peer("envoy", recipe::envoy),
            peer("traefik", recipe::traefik),
            peer("caddy", recipe::caddy),
        ]
    }

    pub(crate) fn start(&self, place: &Place<'_>) -> Result<Running> {
        let (program, arguments) = (self.recipe)(place)?;
        let log = place.folder.join("log");
        let mut process = Process::start(PROXY_CORE, &program, &arguments, &log)?;
        process.until_listening(place.listen).with_context(|| {
            let said = fs::read_to_string(&log).unwrap_or_default();
            format!("it does not start: {}", said.trim().lines().last().unwrap_or_default())
        })?;
        Ok(Running { process, is_scraped: self.is_scraped })
    }
}
