//! The thread from which every process is started.
//!
//! The kernel sends the parent-death signal when the *thread* that started a process ends, and threads of a runtime come and go. This
//! one stays until nobody can ask it any more, and then everything that it started dies.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context as _, Result};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::{ARGUMENT, Launch};

/// Where a process writes to.
pub(crate) enum Output {
    /// Both streams, at the end of this file.
    Log(PathBuf),
    /// What it says is read by us, its errors are not.
    Piped,
}

/// Starts processes. Clones share one thread.
#[derive(Clone, Debug)]
pub(crate) struct Spawner(mpsc::Sender<Order>);

#[derive(Debug)]
struct Order {
    command: std::process::Command,
    answer: oneshot::Sender<io::Result<Child>>,
}

impl Spawner {
    /// Starts the thread. Ends of processes are awaited on the current runtime.
    pub(crate) fn start() -> Result<Self> {
        let runtime = Handle::current();
        let (orders, taken) = mpsc::channel::<Order>();
        thread::Builder::new()
            .name("spawner".into())
            .spawn(move || {
                let _inside = runtime.enter();
                for Order { command, answer } in taken {
                    // If nobody takes the answer any more, the dropped handle kills the process.
                    let _given = answer.send(Command::from(command).kill_on_drop(true).spawn());
                }
            })
            .context("starting the spawner thread")?;
        Ok(Self(orders))
    }

    /// Starts a program in a process group of its own. `file` carries what it is to be; it may be removed once the program has ended.
    pub(crate) async fn spawn(&self, launch: &Launch, file: &Path, output: Output) -> Result<Child> {
        let told = serde_json::to_vec(launch).context("writing down a launch")?;
        std::fs::write(file, told).with_context(|| format!("writing {}", file.display()))?;
        let mut command = std::process::Command::new("/proc/self/exe");
        command.arg(ARGUMENT).arg(std::process::id().to_string()).arg(file);
        command.arg0(launch.argv.first().map_or(ARGUMENT, String::as_str)).process_group(0).stdin(Stdio::null());
        match output {
            Output::Log(path) => {
                let log = File::options().create(true).append(true).open(&path);
                let log = log.with_context(|| format!("opening {}", path.display()))?;
                command.stdout(log.try_clone()?).stderr(log);
            }
            Output::Piped => {
                command.stdout(Stdio::piped()).stderr(Stdio::null());
            }
        }
        let (answer, child) = oneshot::channel();
        self.0.send(Order { command, answer }).ok().context("the spawner thread has ended")?;
        child.await.context("the spawner thread has ended")?.with_context(|| format!("starting {:?}", launch.argv))
    }
}
