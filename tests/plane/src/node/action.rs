//! What probes and hooks do: ask over HTTP, connect, run a command inside the container, or wait.

use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{
    Container, ExecAction, HTTPGetAction, LifecycleHandler, Probe, SleepAction, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::net::{TcpSocket, TcpStream};

use super::container::Run;
use super::sources::Problem;
use crate::network;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// GET, and any answer from 200 to 399 is good.
    Get { host: Ipv4Addr, port: u16, path: String, headers: Vec<(String, String)> },
    /// A connection is enough.
    Connect { host: Ipv4Addr, port: u16 },
    /// A command inside the container that ends with 0.
    Execute(Vec<String>),
    /// Nothing, for this long.
    Sleep(Duration),
}

impl Action {
    /// What a probe does.
    pub(super) fn of_probe(probe: &Probe, container: &Container, address: Ipv4Addr) -> Result<Self, Problem> {
        let known = (probe.http_get.as_ref(), probe.tcp_socket.as_ref(), probe.exec.as_ref(), None);
        Self::of(known, container, address).unwrap_or_else(|| Err(Problem::unsupported("this kind of probe")))
    }

    /// What a hook does.
    pub(super) fn of_hook(hook: &LifecycleHandler, container: &Container, address: Ipv4Addr) -> Result<Self, Problem> {
        let known = (hook.http_get.as_ref(), hook.tcp_socket.as_ref(), hook.exec.as_ref(), hook.sleep.as_ref());
        Self::of(known, container, address).unwrap_or_else(|| Err(Problem::unsupported("this kind of hook")))
    }

    fn of(known: Known<'_>, container: &Container, address: Ipv4Addr) -> Option<Result<Self, Problem>> {
        match known {
            (Some(get), ..) => Some(Self::of_get(get, container, address)),
            (_, Some(tcp), ..) => Some(
                host(tcp.host.as_deref(), address)
                    .and_then(|host| Ok(Self::Connect { host, port: port(&tcp.port, container)? })),
            ),
            (_, _, Some(exec), _) => Some(Ok(Self::Execute(exec.command.clone().unwrap_or_default()))),
            (.., Some(sleep)) => Some(Ok(Self::Sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))))),
            (None, None, None, None) => None,
        }
    }

    fn of_get(get: &HTTPGetAction, container: &Container, address: Ipv4Addr) -> Result<Self, Problem> {
        if get.scheme.as_deref().is_some_and(|scheme| scheme != "HTTP") {
            return Err(Problem::unsupported("a probe over HTTPS"));
        }
        let headers = get.http_headers.iter().flatten().map(|header| (header.name.clone(), header.value.clone()));
        Ok(Self::Get {
            host: host(get.host.as_deref(), address)?,
            port: port(&get.port, container)?,
            path: get.path.clone().unwrap_or_else(|| "/".into()),
            headers: headers.collect(),
        })
    }

    /// Does it once. The caller puts an end to it that takes too long.
    pub(super) async fn perform(&self, run: &Run) -> Result<(), String> {
        match self {
            Self::Connect { host, port } => connect((*host, *port).into()).await.map(drop),
            Self::Get { host, port, path, headers } => get((*host, *port).into(), path, headers).await,
            Self::Execute(command) => execute(command, run).await,
            Self::Sleep(length) => {
                tokio::time::sleep(*length).await;
                Ok(())
            }
        }
    }
}

type Known<'a> =
    (Option<&'a HTTPGetAction>, Option<&'a TCPSocketAction>, Option<&'a ExecAction>, Option<&'a SleepAction>);

fn host(given: Option<&str>, address: Ipv4Addr) -> Result<Ipv4Addr, Problem> {
    match given.filter(|given| !given.is_empty()) {
        None => Ok(address),
        Some(given) => given.parse().map_err(|_| Problem::unsupported(&format!("the host {given} by its name"))),
    }
}

fn port(given: &IntOrString, container: &Container) -> Result<u16, Problem> {
    let number = match given {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let mut named = container.ports.iter().flatten().filter(|port| port.name.as_ref() == Some(name));
            named.next().map(|port| port.container_port).or_else(|| name.parse().ok())
        }
    };
    let number = number.and_then(|number| u16::try_from(number).ok());
    number.ok_or_else(|| Problem::config(format!("container {} has no port {given:?}", container.name)))
}

/// From the node's own address, so that it gets through to a pod that is cut off.
async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    let connected = async {
        let socket = TcpSocket::new_v4()?;
        socket.bind((network::NODE, 0).into())?;
        socket.connect(address).await
    };
    connected.await.map_err(|error| format!("dial tcp {address}: {error}"))
}

async fn get(address: SocketAddr, path: &str, headers: &[(String, String)]) -> Result<(), String> {
    let stream = connect(address).await?;
    let said = |error: hyper::Error| format!("GET {path} of {address}: {error}");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(said)?;
    let mut request = http::Request::get(path).header("user-agent", "kube-probe/1.37").header("connection", "close");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request = request.header("host", address.to_string());
    }
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| format!("GET {path}: {error}"))?;
    let answered = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        // Read to its end, as kubelet does, so that the program is not told of a broken connection.
        response.into_body().collect().await?;
        Ok(status)
    };
    let carried = async {
        // Its end, good or bad, is seen by the request too.
        let _ended = connection.await;
        pending().await
    };
    let status = tokio::select! {
        status = answered => status.map_err(said)?,
        never = carried => never,
    };
    if (200..400).contains(&status.as_u16()) {
        Ok(())
    } else {
        Err(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
    }
}

async fn execute(command: &[String], run: &Run) -> Result<(), String> {
    let mut child = run.spawn_inside(command).await.map_err(|error| format!("{error:#}"))?;
    // The caller may give up on us, and then what was started has to go, with whatever it started itself.
    let _swept = Sweep(child.id());
    let status = child.wait().await.map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}")) }
}

/// Kills a process group when it is dropped.
struct Sweep(Option<u32>);

impl Drop for Sweep {
    fn drop(&mut self) {
        if let Some(group) = self.0.and_then(|pid| i32::try_from(pid).ok()) {
            // It fails if nobody is left, which is as well.
            let _swept = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use serde_json::{Value, json};

    use super::Action;

    #[track_caller]
    fn check(probe: Value, expected: Result<Action, &str>) {
        let container = json!({ "name": "app", "ports": [{ "name": "http", "containerPort": 8080 }] });
        let container = serde_json::from_value(container).unwrap();
        let probe = serde_json::from_value(probe).unwrap();
        let found = Action::of_probe(&probe, &container, Ipv4Addr::new(10, 244, 0, 1));
        assert_eq!(found.map_err(|problem| problem.message), expected.map_err(str::to_owned));
    }

    #[test]
    fn a_probe_is_read_with_its_named_port() {
        let host = Ipv4Addr::new(10, 244, 0, 1);
        let get = Action::Get { host, port: 8080, path: "/readyz".into(), headers: Vec::new() };
        check(json!({ "httpGet": { "port": "http", "path": "/readyz" } }), Ok(get));
        check(json!({ "tcpSocket": { "port": 9000 } }), Ok(Action::Connect { host, port: 9000 }));
        check(json!({ "exec": { "command": ["true"] } }), Ok(Action::Execute(vec!["true".into()])));
    }

    #[test]
    fn what_this_node_does_not_know_is_said() {
        check(json!({ "grpc": { "port": 1 } }), Err("this node does not know this kind of probe"));
        let https = json!({ "httpGet": { "port": 1, "scheme": "HTTPS" } });
        check(https, Err("this node does not know a probe over HTTPS"));
        let unnamed = json!({ "tcpSocket": { "port": "admin" } });
        check(unnamed, Err("container app has no port String(\"admin\")"));
    }
}
