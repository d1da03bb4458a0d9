//! The proxies, each with the recipe that its own makers recommend for this job.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, Result};

use crate::job::{Backends, HOST, Job, local};
use crate::process::{Process, Used};

/// The core of whoever is measured.
const PROXY_CORE: usize = 0;
/// Where each listens, one at a time.
const LISTEN: SocketAddr = local(18_080);
/// Serin's admin listener.
const ADMIN: SocketAddr = local(18_090);

/// A program and its arguments.
type Command = (String, Vec<String>);

/// A proxy, not running yet.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    recipe: fn(&Backends) -> Result<Command>,
}

/// A proxy that runs.
pub(crate) struct Running {
    process: Process,
}

impl Peer {
    /// All of them; nginx is what the others are held against.
    pub(crate) fn all() -> Vec<Self> {
        vec![
            Self { name: "nginx", recipe: nginx },
            Self { name: "haproxy", recipe: haproxy },
            Self { name: "serin", recipe: serin },
            Self { name: "relay", recipe: relay },
        ]
    }

    pub(crate) fn address(&self) -> SocketAddr {
        LISTEN
    }

    /// Whether it can be started for a job.
    pub(crate) fn try_start(&self, job: &Job, backends: &Backends) -> Result<()> {
        self.start(job, backends).map(drop)
    }

    pub(crate) fn start(&self, _: &Job, backends: &Backends) -> Result<Running> {
        let (program, arguments) = (self.recipe)(backends)?;
        let log = backends.folder.join(format!("{}.log", self.name));
        let mut process = Process::start(PROXY_CORE, &program, &arguments, &log)?;
        process.until_listening(LISTEN).with_context(|| {
            format!("{} does not start: {}", self.name, fs::read_to_string(&log).unwrap_or_default().trim())
        })?;
        Ok(Running { process })
    }
}

impl Running {
    pub(crate) fn used(&self) -> Result<Used> {
        self.process.used()
    }
}

/// `split_clients` and maps; one worker, connections to the backends kept (nginx, "Module ngx_http_upstream_module", keepalive).
fn nginx(backends: &Backends) -> Result<Command> {
    let Backends { primary, canary, folder, .. } = backends;
    let root = folder.display();
    let text = format!(
        "worker_processes 1; daemon off; pid {root}/nginx.pid; error_log stderr;
events {{ worker_connections 20000; }}
http {{
  access_log off; tcp_nodelay on; keepalive_requests 1000000000; keepalive_timeout 300s;
  client_body_temp_path {root}/nginx-body; proxy_temp_path {root}/nginx-proxy; client_max_body_size 10m;
  split_clients \"$request_id\" $drawn {{ 10% canary; * primary; }}
  map $http_x_canary $by_header {{ always canary; default $drawn; }}
  map $cookie_canary $group {{ always canary; default $by_header; }}
  upstream primary {{ server {primary}; keepalive 256; keepalive_requests 1000000000; }}
  upstream canary {{ server {canary}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen {LISTEN}; server_name {HOST};
    location / {{
      proxy_pass http://$group; proxy_http_version 1.1;
      proxy_set_header Connection \"\"; proxy_set_header Host $host;
    }}
  }}
}}
"
    );
    let conf = folder.join("nginx.conf");
    fs::write(&conf, text)?;
    Ok(("nginx".to_owned(), vec!["-c".to_owned(), conf.display().to_string()]))
}

/// `rand` and ACLs; one thread, connections to the backends shared (HAProxy manual, "http-reuse").
fn haproxy(backends: &Backends) -> Result<Command> {
    let Backends { primary, canary, folder, .. } = backends;
    let text = format!(
        "global
  nbthread 1
  maxconn 9000
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 60s
  http-reuse always
frontend edge
  bind {LISTEN}
  use_backend canary if {{ req.hdr(x-canary) -m str always }}
  use_backend canary if {{ req.cook(canary) -m str always }}
  use_backend canary if {{ rand(100) lt 10 }}
  default_backend primary
backend primary
  server one {primary}
backend canary
  server one {canary}
"
    );
    let conf = folder.join("haproxy.cfg");
    fs::write(&conf, text)?;
    Ok(("haproxy".to_owned(), vec!["-db".to_owned(), "-f".to_owned(), conf.display().to_string()]))
}

/// The same by flags: it measures, judges, and would take the canary out.
fn serin(backends: &Backends) -> Result<Command> {
    let program = std::env::current_exe()?.with_file_name("serin");
    let program = program.to_str().context("the path of a program is not text")?.to_owned();
    let arguments = [
        "run".to_owned(),
        format!("--listen={LISTEN}"),
        format!("--admin={ADMIN}"),
        format!("--primary={}", backends.primary),
        format!("--canary={}", backends.canary),
        "--weight=10".to_owned(),
        "--header=x-canary=always".to_owned(),
        "--cookie=canary=always".to_owned(),
        "--threads=1".to_owned(),
    ];
    Ok((program, arguments.into()))
}

fn relay(backends: &Backends) -> Result<Command> {
    let program = std::env::current_exe()?;
    let program = program.to_str().context("the path of a program is not text")?.to_owned();
    Ok((program, vec!["relay".to_owned(), LISTEN.to_string(), backends.primary.to_string()]))
}
