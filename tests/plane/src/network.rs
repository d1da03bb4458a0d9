//! The network of the plane: a network namespace in which every pod IP is local, and out of which no packet goes.
//!
//! Endpoints refuse loopback addresses, so pods need others. Inside a namespace of our own one route makes a whole range local: any
//! process may then listen on any pod IP, and the tests can dial it.

use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

/// All addresses of the plane.
pub(crate) const RANGE: &str = "10.244.0.0/16";

/// Where pods reach the API server.
pub const API: Ipv4Addr = Ipv4Addr::new(10, 244, 255, 254);

/// The node's own address. Probes come from it, as kubelet's do, and no cut stops it: a pod that is cut off is not restarted for that.
/// A test that wants to ask such a pod something binds its socket to this address first.
pub const NODE: Ipv4Addr = Ipv4Addr::new(10, 244, 255, 253);

/// What a pod in a network of its own sees as the peer, when the tests or a pod without such a network dial it and bind nothing.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 244, 255, 252);

/// Moves this process, and so all that it starts later, into a network namespace of its own.
///
/// # Errors
/// If there are threads already (they would stay behind), or the system does not let us.
pub(crate) fn enter() -> Result<()> {
    let threads = fs::read_dir("/proc/self/task").context("counting threads")?.count();
    ensure!(threads == 1, "Plane::enter has to come first in main: there are {threads} threads already");
    if geteuid().is_root() {
        unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace, as root")?;
    } else {
        become_root()?;
    }
    run("ip", &["-batch", "-"], &format!("link set lo up\nroute add local {RANGE} dev lo\n"))
}

/// A user namespace in which we are root, so that we may make the others.
fn become_root() -> Result<()> {
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
        .context("making a user and a network namespace: run the tests as root, or allow user namespaces")?;
    // The group can be mapped only by a process that gave up setgroups.
    fs::write("/proc/self/setgroups", "deny").context("giving up setgroups")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1")).context("mapping the user")?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1")).context("mapping the group")
}

/// Runs a program to its end, with `input` on its stdin.
///
/// # Errors
/// If it cannot be run or fails; with what it said.
pub(crate) fn run(program: &str, arguments: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("running {program}; tests/setup/plane.sh installs it"))?;
    // All that is written here fits into the pipe. If the program ended early, its own words say why.
    let _written = child.stdin.take().expect("it was piped").write_all(input.as_bytes());
    let ended = child.wait_with_output().with_context(|| format!("waiting for {program}"))?;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "{program} {}: {}; asked for:\n{input}", arguments.join(" "), said.trim());
    Ok(())
}
