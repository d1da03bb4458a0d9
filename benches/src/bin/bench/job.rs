//! What is asked of every proxy alike: a tenth of the requests to the canary by the coin, others by a header or a cookie, all on
//! connections that are kept, to two backends.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::Process;

/// The core of the load and the backends; the proxy has the other one.
pub(crate) const LOAD_CORE: usize = 1;
/// The host that is asked for.
pub(crate) const HOST: &str = "shop.example.com";
/// Where the backends listen: primary and canary.
const BACKENDS: [SocketAddr; 2] = [local(18_081), local(18_082)];

pub(crate) const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port)
}

/// One kind of traffic.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) name: &'static str,
    /// What is asked for; the backends have it under its size.
    path: &'static str,
    /// A body that is sent with each request, in bytes.
    upload: usize,
    /// Whether each request has a connection of its own.
    closes: bool,
    connections: usize,
}

/// Running backends, and where their files are.
pub(crate) struct Backends {
    pub(crate) primary: SocketAddr,
    pub(crate) canary: SocketAddr,
    pub(crate) folder: PathBuf,
    _process: Process,
}

/// What a load saw.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    pub(crate) requests: u64,
    pub(crate) failed: u64,
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

impl Job {
    /// All of them; the first is the headline.
    pub(crate) fn all() -> Vec<Self> {
        let job = Self { name: "small", path: "/30", upload: 0, closes: false, connections: 64 };
        vec![
            job.clone(),
            Self { name: "1k", path: "/1k", ..job },
            Self { name: "64k", path: "/64k", ..job },
            Self { name: "1m", path: "/1m", connections: 16, ..job },
            Self { name: "post-1k", upload: 1_024, ..job },
            Self { name: "connection-per-request", closes: true, ..job },
        ]
    }

    /// Starts both backends: one nginx, beside the load.
    pub(crate) fn start_backends(&self) -> Result<Backends> {
        let folder = std::env::temp_dir().join(format!("serin-bench-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        for (name, bytes) in [("30", 30), ("1k", 1 << 10), ("64k", 64 << 10), ("1m", 1 << 20)] {
            fs::write(folder.join(name), vec![b'x'; bytes])?;
        }
        let [primary, canary] = BACKENDS;
        let root = folder.display();
        let text = format!(
            "worker_processes 1; daemon off; pid {root}/backend.pid; error_log stderr;
events {{ worker_connections 20000; }}
http {{
  access_log off; sendfile on; tcp_nodelay on; keepalive_requests 1000000000; keepalive_timeout 300s;
  open_file_cache max=100; client_body_temp_path {root}/body; client_max_body_size 10m;
  server {{ listen {primary}; listen {canary}; root {root}; error_page 405 =200 $uri; }}
}}
"
        );
        let conf = folder.join("backend.conf");
        fs::write(&conf, text)?;
        let arguments = ["-c".to_owned(), conf.display().to_string()];
        let mut process = Process::start(LOAD_CORE, "nginx", &arguments, &folder.join("backend.log"))?;
        process.until_listening(primary)?;
        Ok(Backends { primary, canary, folder, _process: process })
    }

    /// Asks for so long, as fast as answers come.
    pub(crate) fn load(&self, address: SocketAddr, lasting: Duration) -> Result<Load> {
        let script = std::env::temp_dir().join(format!("serin-bench-{}", std::process::id())).join("load.lua");
        let mut lua = String::new();
        if self.upload > 0 {
            lua.push_str(&format!("wrk.method = \"POST\"\nwrk.body = string.rep(\"x\", {})\n", self.upload));
        }
        if self.closes {
            lua.push_str("wrk.headers[\"Connection\"] = \"close\"\n");
        }
        fs::write(&script, lua)?;
        let connections = format!("-c{}", self.connections);
        let output = Command::new("taskset")
            .args(["-c", &LOAD_CORE.to_string(), "wrk", "-t1", &connections, "--latency", "-s"])
            .arg(&script)
            .arg(format!("-d{}s", lasting.as_secs().max(1)))
            .args(["-H", &format!("Host: {HOST}"), &format!("http://{address}{}", self.path)])
            .output()
            .context("wrk is not there; `make bench` installs it")?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "wrk: {text}{}", String::from_utf8_lossy(&output.stderr));
        Load::read(&text, self.closes)
    }
}

impl Load {
    fn read(text: &str, closes: bool) -> Result<Self> {
        let find = |needle: &str| text.lines().find(|line| line.contains(needle)).map(str::trim);
        let requests = find("requests in").and_then(|line| line.split(' ').next()?.parse().ok());
        let per_second = find("Requests/sec:").and_then(|line| line.split_whitespace().last()?.parse().ok());
        let latency = |percent: &str| find(percent).and_then(|line| line.split_whitespace().last()).map_or(0.0, micros);
        let bad = find("Non-2xx").and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or(0);
        // wrk takes the end of a connection that says it ends for an error of reading.
        let socket = find("Socket errors").filter(|_| !closes);
        let socket: u64 = socket
            .map_or(0, |line| line.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u64>().ok()).sum());
        Ok(Self {
            requests: requests.context("wrk told no requests")?,
            failed: bad + socket,
            per_second: per_second.unwrap_or(0.0),
            p50_us: latency("50%"),
            p99_us: latency("99%"),
        })
    }
}

/// A time as wrk writes it.
fn micros(text: &str) -> f64 {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let number: f64 = text[..split].parse().unwrap_or(0.0);
    number
        * match &text[split..] {
            "us" => 1.0,
            "ms" => 1e3,
            "s" => 1e6,
            _ => 0.0,
        }
}
