//! Whether a version can take traffic: each of its addresses accepts a connection.

use std::net::SocketAddr;
use std::time::Duration;

use serin_rollout::Readiness;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// How long an address may take to accept. Backends are near; one that needs longer is overloaded.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Asks all addresses at once.
pub(crate) async fn readiness(addresses: Vec<SocketAddr>) -> Readiness {
    let total = addresses.len();
    let mut asked: JoinSet<bool> = addresses
        .into_iter()
        .map(|address| async move {
            matches!(tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await, Ok(Ok(_)))
        })
        .collect();
    let mut accepting = 0;
    while let Some(answer) = asked.join_next().await {
        accepting += usize::from(answer.unwrap_or(false));
    }
    if accepting == total && total > 0 {
        Readiness::Ready
    } else {
        Readiness::Waiting(format!("{accepting} of {total} endpoints accept connections"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_version_is_ready_when_every_address_accepts() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let open = listener.local_addr().expect("bound");
        let closed = {
            let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            gone.local_addr().expect("bound")
        };
        assert_eq!(readiness(vec![open]).await, Readiness::Ready);
        let waiting = |text: &str| Readiness::Waiting(text.to_owned());
        assert_eq!(readiness(vec![open, closed]).await, waiting("1 of 2 endpoints accept connections"));
        assert_eq!(readiness(vec![]).await, waiting("0 of 0 endpoints accept connections"));
    }
}
