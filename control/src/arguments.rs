//! What can be asked of the command line. The texts are what `--help` teaches.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Where the admin listener is by default.
const ADMIN: &str = "127.0.0.1:9090";

#[derive(Debug, Parser)]
#[command(
    name = "serin",
    version,
    about = "Progressive delivery in the data path: splits traffic, measures every response, promotes or rolls back by itself.",
    after_help = "Try it on two running versions of your service, without any file:\n  serin run --primary 127.0.0.1:9001 --canary 127.0.0.1:9002 --weight 10"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve traffic and roll releases out.
    Run(Box<RunArguments>),
    /// Check a configuration directory and name everything that is wrong with it.
    Validate(ValidateArguments),
    /// Show how rollouts stand.
    Get(GetArguments),
    /// Wait until a rollout has ended; for pipelines.
    Wait(WaitArguments),
    /// Print the CustomResourceDefinitions for a cluster, to be piped to `kubectl apply -f -`.
    Crd(CrdArguments),
}

#[derive(Debug, Args)]
#[command(
    after_help = "With files: the directory holds YAML documents of the kinds Canary (flagger.app/v1beta1), Backend, Listener and Settings (serin.dev/v1alpha1). They are watched: point a Backend's release at another version, and a rollout starts.\n\nIn a cluster: --kubernetes takes Canaries, Deployments and Services from the API server, and several replicas act as one.\n\nWithout files: --primary, --canary and --weight split traffic at a fixed weight and measure both versions.\n\nSIGTERM drains: readiness goes first, then the listeners close, then requests in flight get a bounded time to end. SERIN_LOG sets log levels, such as debug."
)]
pub(crate) struct RunArguments {
    /// Take Canaries from a Kubernetes cluster, and keep state there: the one of KUBECONFIG or ~/.kube/config as kubectl reads them,
    /// or the one in which this process is a pod.
    #[arg(long, conflicts_with_all = ["primary", "config", "state"])]
    pub(crate) kubernetes: bool,
    /// Directory with the configuration, watched while running.
    #[arg(long, value_name = "DIR", default_value = "/etc/serin", conflicts_with = "primary")]
    pub(crate) config: PathBuf,
    /// Directory for state and history; one process at a time uses it.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/serin", conflicts_with = "primary")]
    pub(crate) state: PathBuf,
    /// Address to serve traffic on; may be given several times. Without it: the Listener documents, or 127.0.0.1:8080.
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Vec<SocketAddr>,
    /// Address of the admin listener (health, metrics, API). Without it: the Settings document, or 127.0.0.1:9090.
    #[arg(long, value_name = "ADDR", env = "SERIN_ADMIN")]
    pub(crate) admin: Option<SocketAddr>,
    /// Threads that carry requests. Without it: the Settings document, or one per processor.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// How log lines are written. Without it: the Settings document, or text.
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    /// How long readiness is withdrawn before the listeners close, such as 5s: as long as your load balancer needs to notice.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration)]
    pub(crate) drain_delay: Duration,
    /// In a cluster.
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
    /// Without files: address of the trusted version; may be given several times.
    #[arg(long, value_name = "ADDR", requires = "canary", requires = "weight", help_heading = "Without files")]
    pub(crate) primary: Vec<String>,
    /// Without files: address of the version on trial; may be given several times.
    #[arg(long, value_name = "ADDR", requires = "primary", help_heading = "Without files")]
    pub(crate) canary: Vec<String>,
    /// Without files: share of requests for the canary, in percent.
    #[arg(long, value_name = "PERCENT", requires = "primary", value_parser = clap::value_parser!(u8).range(0..=100), help_heading = "Without files")]
    pub(crate) weight: Option<u8>,
    /// Without files: requests with this header go to the canary, whatever the weight.
    #[arg(long, value_name = "NAME=VALUE", requires = "primary", help_heading = "Without files")]
    pub(crate) header: Option<String>,
    /// Without files: requests whose Cookie header matches this pattern go to the canary, whatever the weight.
    #[arg(long, value_name = "REGEX", requires = "primary", help_heading = "Without files")]
    pub(crate) cookie: Option<String>,
}

/// How Serin runs in a cluster.
#[derive(Debug, Args)]
#[command(next_help_heading = "In a cluster")]
pub(crate) struct ClusterArguments {
    /// Look at the Canaries of this namespace only.
    #[arg(long, value_name = "NAMESPACE", requires = "kubernetes")]
    pub(crate) namespace: Option<String>,
    /// The namespace in which Serin itself runs. Without it: that of its service account, or of the kubeconfig.
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE", hide_env_values = true)]
    pub(crate) own_namespace: Option<String>,
    /// The name of this pod; it shows who leads.
    #[arg(long, value_name = "NAME", env = "POD_NAME", hide_env_values = true)]
    pub(crate) pod_name: Option<String>,
    /// The headless Service whose endpoints are Serin's own pods. Its port `admin` is the admin listener.
    #[arg(long, value_name = "SERVICE", default_value = "serin-fleet")]
    pub(crate) fleet_service: String,
    /// The Lease by which one replica is elected to step rollouts.
    #[arg(long, value_name = "LEASE", default_value = "serin")]
    pub(crate) lease: String,
    /// How long the elected replica may be silent before another one takes over, such as 10s.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) lease_duration: Duration,
    /// Take Canaries over whose provider means a mesh or a gateway: Serin then shifts their traffic itself.
    #[arg(long, requires = "kubernetes")]
    pub(crate) inline_providers: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 0: it can be used (there may be warnings). 1: it cannot; every error is listed with its file and line."
)]
pub(crate) struct ValidateArguments {
    /// The directory.
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct GetArguments {
    /// Name of a Canary; all of them if left out.
    pub(crate) name: Option<String>,
    /// Namespace of the Canary.
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// Keep showing, and redraw when something changes. Ends with Ctrl-C.
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// What to print.
    #[arg(short, long, default_value = "tree")]
    pub(crate) output: Output,
    /// Address of the admin listener.
    #[arg(long, value_name = "ADDR", env = "SERIN_ADMIN", default_value = ADMIN)]
    pub(crate) admin: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// A tree for people.
    Tree,
    /// The API's own JSON.
    Json,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 0: it ended so. 1: it ended otherwise, or cannot be asked. 3: it had not ended in time.\n\nIn a pipeline, name the revision you have just released: without it, a rollout that ended long ago counts too.\n  serin wait podinfo --for promoted --revision 6.0.1 --timeout 10m"
)]
pub(crate) struct WaitArguments {
    /// Name of the Canary.
    pub(crate) name: String,
    /// Namespace of the Canary.
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// The end to wait for.
    #[arg(long = "for", value_name = "END")]
    pub(crate) end: End,
    /// The revision whose rollout is meant; the newest one if left out.
    #[arg(long, value_name = "VERSION")]
    pub(crate) revision: Option<String>,
    /// How long to wait, such as 90s or 5m.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// Address of the admin listener.
    #[arg(long, value_name = "ADDR", env = "SERIN_ADMIN", default_value = ADMIN)]
    pub(crate) admin: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum End {
    /// The canary became the primary.
    Promoted,
    /// The canary was taken back.
    Failed,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Flagger's three kinds (flagger.app) accept all that Flagger's own definitions accept, and what Serin adds.\nWhere Flagger has installed its own they can stay; then the additions are not there."
)]
pub(crate) struct CrdArguments {
    /// Only Serin's own kinds (serin.dev), for clusters where Flagger's definitions are installed and are to stay.
    #[arg(long)]
    pub(crate) own: bool,
}

/// A duration in Go's form, as everywhere in Serin.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed: serin_config::GoDuration =
        text.parse().map_err(|error: serin_config::DurationError| error.to_string())?;
    Ok(parsed.to_std())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
