//! A real `serin` process: found, started, awaited, watched, stopped and never left behind.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::rollouts::Admin;
use crate::wait::until;

/// How long a start may take: half a second is usual, two loaded cores in CI are not.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// The end of the log that is told when a start fails, in lines.
const LOG_LINES_TOLD: usize = 20;

/// Ports below the range from which Linux gives outgoing connections theirs (32768 and up), so that a connection made
/// between the choice of a port and its use cannot take it.
const PORTS: std::ops::Range<u16> = 10_000..32_768;

/// The `serin` binary: `SERIN_BIN` if set, else the one beside this program, where cargo puts both.
///
/// # Errors
/// A sentence that says how to get it.
pub fn binary() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("SERIN_BIN") {
        let given = PathBuf::from(given);
        ensure!(given.is_file(), "SERIN_BIN says {}, and there is no such file", given.display());
        return Ok(given);
    }
    let here = std::env::current_exe().context("finding this program's own place")?;
    // Tests are in target/<profile>/deps, programs one above.
    let beside = here.ancestors().skip(1).take(2).map(|folder| folder.join("serin")).find(|path| path.is_file());
    beside.context("the serin binary is not built: run `cargo build -p serin` first, or set SERIN_BIN to its path")
}

/// A port of 127.0.0.1 on which nothing listens now. Another process may still take it before it is used.
///
/// # Panics
/// If no port is free.
#[must_use]
pub fn free_port() -> u16 {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let ports = PORTS.end - PORTS.start;
    // Processes begin at different places; the factor spreads neighbours.
    let first = u16::try_from(std::process::id().wrapping_mul(257) % u32::from(ports)).expect("it is below a u16");
    (0..ports)
        .map(|_| PORTS.start + first.wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed)) % ports)
        .find(|port| is_free(([127, 0, 0, 1], *port).into()))
        .expect("one of 22,768 ports is free")
}

/// Whether this address can be listened on now. It asks without `SO_REUSEPORT`, so a listener that would share its port is found too.
#[must_use]
pub fn is_free(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_ok()
}

/// How to start a `serin`. Clone it to start the same again after a crash.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Where it will listen for traffic.
    pub listen: SocketAddr,
    /// Where it will answer admins.
    pub admin: SocketAddr,
    /// Takes what it writes to stdout and stderr; a second start appends.
    pub log: PathBuf,
    /// The arguments after `run`, apart from those two addresses.
    pub arguments: Vec<OsString>,
    /// Environment variables beside the caller's own.
    pub environment: Vec<(OsString, OsString)>,
}

impl Launch {
    /// `serin run --config CONFIG --state STATE` on free ports, with its log beside the state.
    #[must_use]
    pub fn configured(config: &Path, state: &Path) -> Self {
        let arguments = vec!["--config".into(), config.into(), "--state".into(), state.into()];
        Self::with(arguments, state.with_extension("log"))
    }

    /// `serin run --primary PRIMARY --canary CANARY --weight PERCENT` on free ports.
    #[must_use]
    pub fn split(primary: SocketAddr, canary: SocketAddr, weight_percent: u32, log: PathBuf) -> Self {
        let flags = [
            ("--primary", primary.to_string()),
            ("--canary", canary.to_string()),
            ("--weight", weight_percent.to_string()),
        ];
        let arguments = flags.into_iter().flat_map(|(flag, value)| [flag.into(), value.into()]).collect();
        Self::with(arguments, log)
    }

    fn with(arguments: Vec<OsString>, log: PathBuf) -> Self {
        let local = |port| (Ipv4Addr::LOCALHOST, port).into();
        Self { listen: local(free_port()), admin: local(free_port()), log, arguments, environment: Vec::new() }
    }

    /// Starts it and waits until `/readyz` says yes.
    ///
    /// # Errors
    /// If there is no binary, it ends at once, or it is not ready within 30 s; with the end of its log.
    pub async fn start(self) -> Result<Serin> {
        let mut serin = self.spawn()?;
        let admin = serin.admin();
        let ready = until("serin did not become ready", READY_WITHIN, async || {
            if let Some(status) = serin.child.try_wait()? {
                bail!("serin ended before it was ready ({status})");
            }
            Ok(admin.ready().await.then_some(()))
        })
        .await;
        if let Err(error) = ready {
            bail!("{error:#}; the end of {}:\n{}", serin.launch.log.display(), serin.log_end());
        }
        Ok(serin)
    }

    /// Starts it and does not wait.
    ///
    /// # Errors
    /// If there is no binary, or it cannot be run.
    pub fn spawn(self) -> Result<Serin> {
        let binary = binary()?;
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("opening {}", self.log.display()))?;
        let child = Command::new(&binary)
            .arg("run")
            .args(&self.arguments)
            .args(["--listen", &self.listen.to_string(), "--admin", &self.admin.to_string()])
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("running {}", binary.display()))?;
        Ok(Serin { launch: self, child })
    }
}

/// A `serin` process. Dropping it kills it.
#[derive(Debug)]
pub struct Serin {
    launch: Launch,
    child: Child,
}

impl Serin {
    /// Where it takes traffic.
    #[must_use]
    pub const fn listen(&self) -> SocketAddr {
        self.launch.listen
    }

    /// Its admin port.
    #[must_use]
    pub const fn admin(&self) -> Admin {
        Admin(self.launch.admin)
    }

    /// How it was started.
    #[must_use]
    pub const fn launch(&self) -> &Launch {
        &self.launch
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far; empty if that cannot be read.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.launch.log).unwrap_or_default()
    }

    fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_TOLD)..].join("\n")
    }

    /// Whether it still runs, and if not, how it ended.
    ///
    /// # Errors
    /// If the system cannot say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("asking for serin's end")
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// If it is gone.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        // While it is not waited for, its id is not given to another process.
        ensure!(self.ended()?.is_none(), "serin has already ended");
        let pid = i32::try_from(self.child.id()).context("a process id that Linux does not give")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("sending {signal} to serin"))
    }

    /// Asks it to end (SIGTERM) and waits for that.
    ///
    /// # Errors
    /// If it is gone already, or still there after `within`; then it is killed.
    pub async fn terminate(mut self, within: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        until("serin did not end after SIGTERM", within, async || self.ended()).await
    }

    /// Kills it (SIGKILL), as a crash or the kernel's memory killer would, and returns how to start it again.
    ///
    /// # Errors
    /// If the system does not let us.
    pub fn crash(mut self) -> Result<Launch> {
        self.child.kill().context("killing serin")?;
        self.child.wait().context("waiting for serin's end")?;
        Ok(self.launch.clone())
    }
}

impl Drop for Serin {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}
