//! A network of its own for a pod, and its silent cuts.
//!
//! ```text
//! the plane's network                                    the pod's network
//! 10.244.255.254 API server ┐                            (a process that only sleeps holds it)
//! 10.244.255.253 the node   ├─ vethN ════════════ eth0 ─ the pod's IP
//! pods without a network    ┘    │ cuts act here, both ways
//! ```
//!
//! A cut sends packets to a device that is down. The kernel drops them there: no reset, no ICMP error, just silence; connections that
//! are open stay open and hear nothing. (`tc` has a plain `drop`, which needs a module that small kernels lack, and packet filters
//! need programs that small systems lack.)

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use tokio::io::AsyncReadExt as _;
use tokio::process::Child;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use crate::launch::{Launch, Output, Spawner, View};
use crate::network::{API, CLIENT, NODE, run};

/// Whom a pod is cut off from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The API server.
    FromApi,
    /// These addresses. Pods without a network of their own are told apart only as servers: when they dial, all come from
    /// [`CLIENT`].
    FromPeers(Vec<Ipv4Addr>),
    /// Everybody, but for the node's own probes.
    FromAll,
}

/// The device to which a cut sends packets: one end of a pair, and it is never switched on.
const DEAD: &str = "dead";

/// A pod's network.
#[derive(Debug)]
pub(super) struct Wire {
    device: String,
    holder: Mutex<Child>,
    pid: u32,
    /// Numbers the rules: each needs a priority of its own.
    rules: AtomicU32,
}

impl Wire {
    /// Makes a network in which the address is, and joins it to ours.
    pub(super) async fn make(spawner: &Spawner, address: Ipv4Addr, folder: &Path) -> Result<Self> {
        // Its line says that it has its network namespace.
        let argv = ["sh", "-c", "echo made; exec sleep infinity"].map(str::to_owned).to_vec();
        let launch = Launch { view: View::NewNetwork, ..Launch::of(argv) };
        let mut holder = spawner.spawn(&launch, &folder.join("network.launch"), Output::Piped).await?;
        let mut line = [0; 5];
        let said = holder.stdout.as_mut().context("its output is piped")?.read_exact(&mut line).await;
        said.context("making a network namespace")?;
        let pid = holder.id().context("the holder of the network has ended")?;
        let [_, _, third, fourth] = address.octets();
        let device = format!("veth{third}-{fourth}");
        let outside = format!(
            "link add {device} type veth peer name eth0 netns {pid}\n\
             link set {device} up\n\
             route add {address}/32 dev {device} src {CLIENT} table local\n"
        );
        let inside = format!(
            "link set lo up\nlink set eth0 up\naddress add {address}/32 dev eth0\n\
             route add default via {NODE} dev eth0 onlink\n"
        );
        let namespace = format!("--net=/proc/{pid}/ns/net");
        let tc = format!("qdisc add dev {device} clsact\n");
        blocking(move || {
            prepare_plane()?;
            run("ip", &["-batch", "-"], &outside)?;
            run("nsenter", &[&namespace, "ip", "-batch", "-"], &inside)?;
            run("tc", &["-batch", "-"], &tc)
        })
        .await?;
        Ok(Self { device, holder: Mutex::new(holder), pid, rules: AtomicU32::new(1) })
    }

    /// The file that stands for the network namespace.
    pub(super) fn namespace(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.pid).into()
    }

    /// Drops what it says from now on, beside what is dropped already.
    pub(super) async fn cut(&self, cut: &Cut) -> Result<()> {
        let dropped = format!("action mirred egress redirect dev {DEAD}");
        let mut rules = String::new();
        let mut rule = |matching: &dyn Fn(&str) -> String, then: &str| {
            let priority = self.rules.fetch_add(1, Ordering::Relaxed);
            // What comes from the pod enters the device, what goes to it leaves there.
            for (way, end) in [("ingress", "dst"), ("egress", "src")] {
                let (device, matching) = (&self.device, matching(end));
                let _written = writeln!(
                    rules,
                    "filter add dev {device} {way} protocol ip prio {priority} u32 match {matching} {then}"
                );
            }
        };
        let of = |address: Ipv4Addr| move |end: &str| format!("ip {end} {address}/32");
        match cut {
            Cut::FromApi => rule(&of(API), &dropped),
            Cut::FromPeers(peers) => peers.iter().for_each(|peer| rule(&of(*peer), &dropped)),
            Cut::FromAll => {
                // A match without an action lets the packet pass, and ends the search.
                rule(&of(NODE), "flowid :1");
                rule(&|_| "u32 0 0".to_owned(), &dropped);
            }
        }
        blocking(move || run("tc", &["-batch", "-"], &rules)).await
    }

    /// Drops nothing any more.
    pub(super) async fn heal(&self) -> Result<()> {
        let rules = format!("filter del dev {0} ingress\nfilter del dev {0} egress\n", self.device);
        blocking(move || run("tc", &["-batch", "-"], &rules)).await
    }

    /// Takes the network away. The device and its route go with the process that held it.
    pub(super) async fn remove(&self) {
        // It fails only if it has ended already.
        let _killed = self.holder.lock().await.kill().await;
    }
}

async fn blocking(work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    spawn_blocking(work).await.context("preparing a network")?
}

/// What the first pod with a network of its own needs from ours.
fn prepare_plane() -> Result<()> {
    static ONCE: Once = Once::new();
    let mut done = Ok(());
    ONCE.call_once(|| {
        // Two such pods reach each other through us.
        done = std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("letting packets through");
        if done.is_ok() {
            done = run("ip", &["link", "add", DEAD, "type", "veth", "peer", "name", "dead-end"], "");
        }
    });
    done
}
