//! Pods that are cut off: nothing is refused, there is just no answer.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use serin_plane::{Cut, Namespace, network};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::lifecycle::is_ready;
use crate::objects::{SOON, apart, backend};
use crate::workloads::version;

/// Silence is told from slowness by waiting this long; an answer takes less than a millisecond.
const SILENCE: Duration = Duration::from_millis(700);

/// Binds all addresses, as a pod of its own may.
fn anywhere() -> Value {
    let mut spec = backend("1");
    spec["containers"][0]["args"][0] = json!("--listen=0.0.0.0:8080");
    spec
}

async fn is_silent(address: SocketAddr) -> Result<()> {
    match timeout(SILENCE, TcpStream::connect(address)).await {
        Err(_) => Ok(()),
        Ok(answer) => bail!("{address} was to be silent, and there was {answer:?}"),
    }
}

/// A connection from the node itself, which no cut stops.
async fn from_node(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((network::NODE, 0).into())?;
    socket.connect(address).await
}

pub(crate) async fn from_all(shop: Namespace) -> Result<()> {
    shop.apply(apart("web", anywhere())).await?;
    shop.until_object("web", SOON, is_ready).await?;
    let (node, called) = (shop.plane().node(), format!("{}/web", shop.name()));
    let address: SocketAddr = (node.address(&called)?, 8080).into();
    version(address).await.context("before the cut")?;
    let mut open = TcpStream::connect(address).await?;

    node.partition(&called, Cut::FromAll).await?;
    is_silent(address).await?;
    open.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await.context("writing to a connection that was cut")?;
    let mut first = [0; 1];
    ensure!(timeout(SILENCE, open.read(&mut first)).await.is_err(), "an open connection is silent, too");
    // So its probes succeed, and it is not restarted.
    from_node(address).await.context("from the node, during the cut")?;

    node.heal(&called).await?;
    version(address).await.context("after the cut")?;
    // The kernel sends again what was lost.
    timeout(SOON, open.read_exact(&mut first)).await.context("the open connection goes on")??;
    let pod = shop.until_object("web", SOON, is_ready).await?;
    ensure!(pod.status.context("it has a status")?.container_statuses.unwrap_or_default()[0].restart_count == 0);
    Ok(())
}

/// Waits until the last words of a pod's program are these.
async fn says(shop: &Namespace, pod: &str, container: &str, expected: &str) -> Result<()> {
    let called = format!("{}/{pod}", shop.name());
    shop.until(&format!("{container} of {pod} does not say {expected:?}"), SOON, async || {
        let log = shop.plane().node().log_of(&called, container).unwrap_or_default();
        Ok((log.lines().last() == Some(expected)).then_some(()))
    })
    .await
}

pub(crate) async fn from_api(shop: Namespace) -> Result<()> {
    let mut spec = anywhere();
    spec["terminationGracePeriodSeconds"] = json!(1);
    spec["containers"]
        .as_array_mut()
        .context("it is an array")?
        .push(json!({ "name": "client", "image": "api-client" }));
    shop.apply(json!([
        { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": "view" },
          "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view" },
          "subjects": [{ "kind": "ServiceAccount", "name": "default" }] },
        apart("web", spec),
    ]))
    .await?;
    says(&shop, "web", "client", "answered").await?;
    let (node, called) = (shop.plane().node(), format!("{}/web", shop.name()));
    node.partition(&called, Cut::FromApi).await?;
    says(&shop, "web", "client", "silent").await?;
    version((node.address(&called)?, 8080).into()).await.context("others reach it during the cut")?;
    node.heal(&called).await?;
    says(&shop, "web", "client", "answered").await
}

pub(crate) async fn from_peers(shop: Namespace) -> Result<()> {
    shop.apply(apart("server", anywhere())).await?;
    shop.until_object("server", SOON, is_ready).await?;
    let node = shop.plane().node();
    let server: Ipv4Addr = node.address(&format!("{}/server", shop.name()))?;
    let dialler = json!({ "terminationGracePeriodSeconds": 1,
        "containers": [{ "name": "app", "image": "dialler", "args": [format!("{server}:8080")] }] });
    shop.apply(apart("client", dialler)).await?;
    says(&shop, "client", "app", "open").await?;
    let called = format!("{}/server", shop.name());
    let client = node.address(&format!("{}/client", shop.name()))?;
    node.partition(&called, Cut::FromPeers(vec![client])).await?;
    says(&shop, "client", "app", "silent").await?;
    version((server, 8080).into()).await.context("others reach it during the cut")?;
    node.heal(&called).await?;
    says(&shop, "client", "app", "open").await?;
    // Where nobody listens, a pod in a network of its own refuses as any other does.
    let refused = TcpStream::connect((server, 9)).await.err().map(|error| error.kind());
    ensure!(refused == Some(ErrorKind::ConnectionRefused), "{refused:?}");
    Ok(())
}
