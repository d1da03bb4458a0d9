//! Programs for pods that need more than a shell: a client of the API server, and one that dials.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, ListParams};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};

/// Asks the API server for ConfigMaps again and again, and says `answered` or what went wrong.
pub(crate) const API_CLIENT: &str = "api-client";

/// Dials the address in its argument again and again, and says `open`, `refused` or `silent`.
pub(crate) const DIALLER: &str = "dialler";

/// How long they wait for an answer, and between two questions.
const PATIENCE: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(50);

/// They end by themselves: no test lasts that long.
const ROUNDS_MAX: usize = 6_000;

/// Becomes the program that the first argument names; none if it names no program.
pub(crate) fn become_one() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let (program, argument) = (arguments.next()?, arguments.next());
    let runtime = || Builder::new_current_thread().enable_all().build();
    let ended = match program.as_str() {
        API_CLIENT => runtime().map(|runtime| runtime.block_on(ask_api())),
        DIALLER => runtime().map(|runtime| runtime.block_on(dial(argument.as_deref().unwrap_or_default()))),
        _ => return None,
    };
    Some(match ended.map_err(Into::into).flatten() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    })
}

/// As any program in a cluster does: all it knows is in its environment and its files.
async fn ask_api() -> Result<()> {
    let client = Client::try_default().await.context("the configuration inside the cluster")?;
    let namespace = client.default_namespace().to_owned();
    let api: Api<ConfigMap> = Api::namespaced(client, &namespace);
    for _ in 0..ROUNDS_MAX {
        match timeout(PATIENCE, api.list(&ListParams::default())).await {
            Ok(Ok(_)) => say("answered"),
            Ok(Err(kube::Error::Api(status))) => say(&format!("{} {}", status.code, status.message)),
            Ok(Err(error)) => say(&format!("broken: {error}")),
            Err(_) => say("silent"),
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

async fn dial(address: &str) -> Result<()> {
    let address: SocketAddr = address.parse().with_context(|| format!("dialling {address:?}"))?;
    for _ in 0..ROUNDS_MAX {
        match timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(_)) => say("open"),
            Ok(Err(_)) => say("refused"),
            Err(_) => say("silent"),
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

fn say(text: &str) {
    let _said = writeln!(std::io::stdout(), "{text}");
}
