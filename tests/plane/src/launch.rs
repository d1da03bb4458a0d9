//! Starts processes that die with us, and gives each the view of the machine that it should have.
//!
//! Between `fork` and `exec` a process can join namespaces, mount volumes and ask to die with its parent; but code that runs there
//! inside our process is `unsafe` in Rust. So we start this very program again. [`become_it`] sees in its arguments that it was meant,
//! does all of that as a process with one thread, and then becomes the wanted program, under the same process id:
//!
//! ```text
//! test program ── spawner thread ── fork, exec /proc/self/exe serin-plane-launch FILE ── namespaces, mounts ── exec the program
//! ```

mod root;
mod spawner;

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{chdir, chroot, fchdir, getppid, sethostname};
use serde::{Deserialize, Serialize};

pub(crate) use spawner::{Output, Spawner};

/// The first argument of a process that is to become another program.
const ARGUMENT: &str = "serin-plane-launch";

/// A program to run, and what it sees of the machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Launch {
    /// The program and its arguments.
    pub(crate) argv: Vec<String>,
    /// Its whole environment.
    pub(crate) environment: Vec<(String, String)>,
    /// Where it starts.
    pub(crate) directory: Option<PathBuf>,
    /// What it sees of the machine.
    pub(crate) view: View,
}

/// What a process sees of the machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum View {
    /// What we see.
    Ours,
    /// The same files, and a network namespace of its own that is still empty.
    NewNetwork,
    /// What a container sees.
    Container {
        /// The name of its host.
        hostname: String,
        /// The network namespace to join, as a file; ours if there is none.
        network: Option<PathBuf>,
        /// The volumes.
        mounts: Vec<Mount>,
        /// An empty folder where its root is put together.
        root: PathBuf,
    },
    /// What another process sees, for commands that run inside a container.
    Of {
        /// That process.
        pid: u32,
    },
}

/// A volume at its place.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Mount {
    /// The file or folder outside.
    pub(crate) source: PathBuf,
    /// Where the container sees it.
    pub(crate) target: PathBuf,
    /// Whether it may only be read there.
    pub(crate) read_only: bool,
}

impl Launch {
    /// A program that sees what we see. Of our environment it gets the few variables that programs cannot do without.
    pub(crate) fn of(argv: Vec<String>) -> Self {
        Self { argv, environment: basic_environment(), directory: None, view: View::Ours }
    }
}

/// The variables that every process here starts from.
pub(crate) fn basic_environment() -> Vec<(String, String)> {
    let path =
        std::env::var("PATH").unwrap_or_else(|_| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
    vec![("PATH".into(), path), ("HOME".into(), "/root".into())]
}

/// Becomes the wanted program if this process was started for that; comes back only if it was not.
pub(crate) fn become_it() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some(ARGUMENT) {
        return;
    }
    let told = arguments.next().zip(arguments.next());
    let failed =
        told.context("it takes the id of its parent and a file").and_then(|(parent, file)| become_told(&parent, &file));
    if let Err(error) = failed {
        // This goes to the log of the container, where people look.
        let _told = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("cannot start: {error:#}\n"));
    }
    // As a shell says that a command is not there.
    std::process::exit(127);
}

fn become_told(parent: &str, file: &str) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("asking to die with the tests")?;
    // If they died before that, nobody will tell.
    ensure!(getppid().to_string() == parent, "the tests have ended");
    let launch: Launch = serde_json::from_slice(&fs::read(file).with_context(|| format!("reading {file}"))?)?;
    take_view(&launch.view)?;
    if let Some(directory) = &launch.directory {
        chdir(directory).with_context(|| format!("changing to {}", directory.display()))?;
    }
    let Some((program, arguments)) = launch.argv.split_first() else { bail!("there is no command") };
    let error = Command::new(program).args(arguments).env_clear().envs(launch.environment).exec();
    Err(error).with_context(|| format!("running {program}"))
}

fn take_view(view: &View) -> Result<()> {
    match view {
        View::Ours => Ok(()),
        View::NewNetwork => unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace"),
        View::Container { hostname, network, mounts, root } => {
            if let Some(network) = network {
                join(network, CloneFlags::CLONE_NEWNET)?;
            }
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS).context("making a mount namespace")?;
            sethostname(hostname).context("naming the host")?;
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
                .context("keeping mounts to ourselves")?;
            root::enter(root, mounts)
        }
        View::Of { pid } => {
            let process = Path::new("/proc").join(pid.to_string());
            let root = File::open(process.join("root")).context("opening the container's root")?;
            join(&process.join("ns/net"), CloneFlags::CLONE_NEWNET)?;
            join(&process.join("ns/uts"), CloneFlags::CLONE_NEWUTS)?;
            join(&process.join("ns/mnt"), CloneFlags::CLONE_NEWNS)?;
            fchdir(root).context("going to the container's root")?;
            chroot(".").context("taking the container's root")
        }
    }
}

fn join(namespace: &Path, kind: CloneFlags) -> Result<()> {
    let file = File::open(namespace).with_context(|| format!("opening {}", namespace.display()))?;
    setns(file, kind).with_context(|| format!("joining {}", namespace.display()))
}
