//! A replica in a cluster: workloads and states from the API server, one of a fleet.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use kube::client::ClientBuilder;
use kube::{Client, Config};
use serin_runtime::cluster::{Cluster, Options};
use serin_runtime::{Board, Controller, Site as _};
use tower::util::MapRequestLayer;

use super::{Process, Signals, Start};
use crate::arguments::RunArguments;

/// How long the API server may take to accept a connection, and to answer a call that is no watch. kube's own default waits for
/// minutes, in which nobody would be elected.
const API_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait before reading the states again, if they cannot be read at the start.
const START_AGAIN: Duration = Duration::from_secs(1);

/// Serves until told to stop.
pub(super) async fn serve(arguments: &RunArguments, start: Start, signals: Signals) -> Result<()> {
    // What was linked could be two, and neither would be taken; with one there is nothing to decide.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = config().await?;
    let own_namespace = own_namespace(arguments, &config);
    let mut process = Process::bind(arguments, &start, signals).await?;
    let client = client(config, process.board.clone())?;
    let options = options(arguments, own_namespace, process.admin_address);
    let seal = Arc::new(OnceLock::new());
    process.answer_admins(Some(seal.clone()));
    let (plane, board, clock, boot, stop) =
        (process.plane.clone(), process.board.clone(), process.clock, process.boot, process.stop.clone());
    tracing::info!(namespace = %options.own_namespace, identity = %options.identity, "looking at the cluster");
    let mut cluster = Cluster::find(client, options, boot, stop).await?;
    // Nobody has set it before.
    let _ = seal.set(cluster.seal());
    let (store, site, workloads) = (Arc::new(cluster.store()), Arc::new(cluster.site()), cluster.workloads());
    let controller = loop {
        let (store, plane, site, board) = (store.clone(), plane.clone(), site.clone(), board.clone());
        match Controller::start(store, plane, site, board, clock, workloads.clone()).await {
            Ok(controller) => break controller,
            Err(error) => tracing::warn!(%error, "waiting for the cluster"),
        }
        tokio::time::sleep(START_AGAIN).await;
    };
    let tell = controller.tell();
    let mut running = process.open(controller);
    let election = cluster.run(tell, board.clone(), clock);
    running.until_told_to_stop().await;
    let closed = async {
        // The Lease goes first: whoever leads next asks for the last counts.
        let _ = election.await;
        if site.peers().iter().any(|peer| peer.serves) {
            board.until_told_finally().await;
        }
    };
    running.drain(arguments.drain_delay, start.settings.drain(), closed).await;
    Ok(())
}

/// The cluster that kubectl would talk to, or the one around this pod.
async fn config() -> Result<Config> {
    let mut config = Config::infer().await.context(
        "no cluster found: there is no kubeconfig (KUBECONFIG, ~/.kube/config), and this process is not a pod with a service account",
    )?;
    config.connect_timeout = Some(API_CONNECT_TIMEOUT);
    Ok(config)
}

/// A client that counts its calls.
fn client(config: Config, board: Arc<Board>) -> Result<Client> {
    let count = move |request: http::Request<kube::client::Body>| {
        board.count_api_call(request.method().as_str(), request.uri().path());
        request
    };
    let builder = ClientBuilder::try_from(config).context("cannot make a client for the API server")?;
    Ok(builder.with_layer(&MapRequestLayer::new(count)).build())
}

fn own_namespace(arguments: &RunArguments, config: &Config) -> String {
    arguments.cluster.own_namespace.clone().unwrap_or_else(|| config.default_namespace.clone())
}

fn options(arguments: &RunArguments, own_namespace: String, own: SocketAddr) -> Options {
    let given = &arguments.cluster;
    Options {
        own_namespace,
        namespace: given.namespace.clone(),
        fleet_service: given.fleet_service.clone(),
        fleet_port: "admin".to_owned(),
        lease: given.lease.clone(),
        lease_duration: given.lease_duration,
        identity: given.pod_name.clone().unwrap_or_else(|| "serin".to_owned()),
        own,
        inline_providers: given.inline_providers,
    }
}
