//! The beginning and the end of an edge: ports, draining, stopping.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serin_measure::{Arm, BootId, OutcomeClass};
use serin_proxy::{Bound, Listen, Settings};
use serin_tests::process::{free_port, is_free};
use serin_tests::wait::until;
use tokio::net::TcpSocket;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::edge::{GET, TestEdge, assert_counts, drawn, settings};
use crate::wire::{PATIENCE, Then, Wire, WireBackend, ok};

/// A backend that answers when it is told to, and the edge before it.
struct Gate {
    edge: TestEdge,
    backend: WireBackend,
    go: Arc<Notify>,
}

impl Gate {
    async fn start(threads: usize) -> Self {
        let go = Arc::new(Notify::new());
        let gate = Arc::clone(&go);
        let backend = WireBackend::start(move |mut wire| {
            let gate = Arc::clone(&gate);
            async move {
                while wire.request().await.is_some() {
                    gate.notified().await;
                    wire.send(ok("hi")).await;
                }
            }
        })
        .await;
        let routes = vec![drawn(Arm::Primary, &[backend.address()], &[([127, 0, 0, 1], 9).into()])];
        Self { edge: TestEdge::start(Settings { threads, ..settings() }, routes), backend, go }
    }

    /// A connection that has been served once and is kept.
    async fn idle(&self) -> Wire {
        let mut client = Wire::connect(self.edge.address).await;
        self.go.notify_one();
        assert_eq!(client.ask(GET).await.expect("an answer").status(), 200);
        client
    }

    /// A connection whose request is with the backend.
    async fn busy(&self) -> Wire {
        let before = self.backend.heads().len();
        let mut client = Wire::connect(self.edge.address).await;
        client.send(GET).await;
        let heard = async || Ok((self.backend.heads().len() > before).then_some(()));
        until("the request", PATIENCE, heard).await.expect("it is passed on");
        client
    }

    /// Stops the edge elsewhere: how long that takes.
    fn stop(&mut self, patience: Duration) -> JoinHandle<Duration> {
        let running = self.edge.running.take().expect("it is stopped once");
        tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            running.stop(patience);
            began.elapsed()
        })
    }

    async fn closed(&self) {
        let closed = async || Ok(is_free(self.edge.address).then_some(()));
        until("closed listeners", PATIENCE, closed).await.expect("they are closed");
    }
}

#[tokio::test]
async fn stopping_closes_ports_and_idle_connections_and_lets_requests_finish() {
    let mut gate = Gate::start(2).await;
    let mut idle = gate.idle().await;
    let mut silent = Wire::connect(gate.edge.address).await;
    let mut busy = gate.busy().await;
    let stopping = gate.stop(PATIENCE);
    gate.closed().await;
    assert_eq!(idle.head().await, None, "an idle connection is closed");
    assert_eq!(silent.head().await, None, "so is one that never asked");
    assert!(!stopping.is_finished(), "it waits for the request in flight");
    gate.go.notify_one();
    let answer = busy.answer(false).await.expect("a request in flight is answered");
    assert_eq!((answer.status(), answer.field("connection")), (200, Some("close")));
    assert_eq!(busy.head().await, None);
    assert!(stopping.await.expect("it returns") < PATIENCE);
    let counts = gate.edge.settled(2).await;
    assert_counts(&counts, Arm::Primary, OutcomeClass::S2xx, 2);
}

#[tokio::test]
async fn stopping_does_not_wait_for_ever() {
    let mut gate = Gate::start(1).await;
    let busy = gate.busy().await;
    let took = gate.stop(Duration::from_millis(100)).await.expect("it returns");
    assert!((Duration::from_millis(100)..Duration::from_secs(5)).contains(&took), "{took:?}");
    gate.closed().await;
    drop(busy);
}

#[tokio::test]
async fn stopping_an_idle_edge_returns_at_once() {
    let mut gate = Gate::start(2).await;
    let took = gate.stop(PATIENCE).await.expect("it returns");
    assert!(took < Duration::from_secs(5), "{took:?}");
    gate.closed().await;
}

#[tokio::test]
async fn draining_tells_clients_to_close_and_still_serves_new_ones() {
    let gate = Gate::start(1).await;
    let mut idle = gate.idle().await;
    let mut busy = gate.busy().await;
    gate.edge.handle.drain();
    gate.go.notify_one();
    let answer = busy.answer(false).await.expect("an answer");
    assert_eq!(answer.field("connection"), Some("close"), "also for a request that came before");
    assert_eq!(busy.head().await, None);
    for client in [&mut idle, &mut Wire::connect(gate.edge.address).await] {
        gate.go.notify_one();
        let answer = client.ask(GET).await.expect("an answer");
        assert_eq!((answer.status(), answer.field("connection")), (200, Some("close")));
        assert_eq!(client.head().await, None, "and then it is closed");
    }
    gate.edge.settled(4).await;
}

fn bind(listen: &[SocketAddr]) -> Result<Bound, serin_proxy::BindError> {
    Bound::bind(Settings { listen: listen.iter().copied().map(Listen::plain).collect(), ..settings() }, BootId(1))
}

/// That a free port before `taken` is free again after binding both has failed, and the error names `taken`.
#[track_caller]
fn check_in_use(taken: SocketAddr) {
    let free = ([127, 0, 0, 1], free_port()).into();
    for listen in [vec![taken], vec![free, taken], vec![taken, free]] {
        let error = bind(&listen).expect_err("the port is in use");
        assert_eq!((error.address, error.why.kind()), (taken, std::io::ErrorKind::AddrInUse), "{listen:?}");
        assert!(error.to_string().starts_with(&format!("cannot listen on {taken}: ")), "{error}");
        assert!(is_free(free), "{listen:?}: nothing is left listening");
    }
}

#[tokio::test]
async fn a_port_in_use_is_an_error_and_nothing_is_left_listening() {
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    check_in_use(other.local_addr().expect("it is bound"));
    let everywhere = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port is free");
    let port = everywhere.local_addr().expect("it is bound").port();
    check_in_use(([127, 0, 0, 1], port).into());
}

#[tokio::test]
async fn a_port_that_another_would_share_is_in_use_all_the_same() {
    let sharing = TcpSocket::new_v4().expect("a socket is free");
    sharing.set_reuseport(true).expect("the kernel knows it");
    sharing.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port is free");
    let sharing = sharing.listen(16).expect("it is bound");
    check_in_use(sharing.local_addr().expect("it is bound"));
    let edge = bind(&[(Ipv4Addr::LOCALHOST, 0).into()]).expect("a port is free");
    check_in_use(edge.addresses()[0]);
}

#[tokio::test]
async fn a_client_that_connects_before_the_first_table_is_served_by_it() {
    let backend = WireBackend::saying(ok("hi"), Then::Keep).await;
    let bound = bind(&[(Ipv4Addr::LOCALHOST, 0).into(), (Ipv4Addr::LOCALHOST, 0).into()]).expect("ports are free");
    let mut clients = Vec::new();
    for address in bound.addresses() {
        let mut client = Wire::connect(*address).await;
        client.send(GET).await;
        clients.push(client);
    }
    let table = vec![crate::edge::route(&[backend.address()], &[])];
    bound.handle().publish(serin_route::RouteTable::build(serin_route::Generation(1), table).expect("one route"));
    let (edge, _tripped) = bound.serve();
    for mut client in clients {
        assert_eq!(client.answer(false).await.expect("an answer").text(), "hi");
    }
    edge.stop(Duration::ZERO);
}
