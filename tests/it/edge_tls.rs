//! TLS and HTTP/2 at the front door, as clients that others have written see them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::Full;
use hyper::Request;
use hyper::body::{Body, Bytes};
use rustls::pki_types::ServerName;
use rustls::{HandshakeKind, RootCertStore};
use serin_measure::{Arm, OutcomeClass};
use serin_proxy::{Certificates, Forwarding, Pem, Refusal, Settings, Tls};
use serin_tests::wait::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certificates::{certificate, client, pair, roots};
use crate::edge::{TestEdge, assert_counts, run, settings, tried};
use crate::speaker::{ask, http2};
use crate::wire::{PATIENCE, Then, Wire, WireBackend, ok, within};

/// An edge with TLS before a backend that is the canary.
struct Door {
    edge: TestEdge,
    backend: WireBackend,
    certificates: Arc<Certificates>,
}

impl Door {
    async fn open(pairs: &[Pem], clients: Option<Arc<RootCertStore>>) -> Self {
        Self::open_by(pairs, clients, settings()).await
    }

    async fn open_by(pairs: &[Pem], clients: Option<Arc<RootCertStore>>, settings: Settings) -> Self {
        let backend = WireBackend::start(async |mut wire: Wire| {
            while let Some(request) = wire.request().await {
                wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", request.body.len())).await;
                wire.send(&request.body).await;
            }
        });
        let backend = backend.await;
        let certificates = Arc::new(Certificates::new(pairs).expect("they can be used"));
        let tls = Tls { certificates: certificates.clone(), clients, http2: true };
        let mut settings = Settings { forwarding: Forwarding::default(), ..settings };
        settings.listen[0].tls = Some(tls);
        let edge = tried(settings, &backend);
        Self { edge, backend, certificates }
    }

    async fn connect(&self, connector: &TlsConnector, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.edge.address).await.expect("somebody listens");
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        within("a handshake", connector.connect(name, stream)).await
    }
}

/// A body of which nothing ever comes.
struct Never;

impl Body for Never {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        Poll::Pending
    }
}

fn post(scheme: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(format!("{scheme}://shop.example/a?b")).body(Full::new(body.into())).expect("a request")
}

#[test]
fn http_1_and_http_2_are_spoken_over_tls_as_the_client_wants() {
    run(async {
        let shop = pair(&["shop.example"]);
        let door = Door::open(std::slice::from_ref(&shop), None).await;
        let mut old = door.connect(&client(&[&shop], &["http/1.1"], None), "shop.example").await.expect("TLS");
        assert_eq!(old.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        old.write_all(b"GET /a HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n").await.expect("it is open");
        let mut answer = String::new();
        // An end without a close_notify would be an error here.
        within("the end", old.read_to_string(&mut answer)).await.expect("a proper end");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");

        let new = door.connect(&client(&[&shop], &["h2", "http/1.1"], None), "shop.example").await.expect("TLS");
        assert_eq!(new.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let mut sender = http2(new).await;
        let large = vec![b'x'; 3 << 20];
        for body in [vec![], b"hello".to_vec(), large] {
            let (answer, came) = ask(&mut sender, post("https", body.clone())).await;
            assert_eq!((answer.status(), came.len()), (hyper::StatusCode::OK, body.len()));
        }
        for head in door.backend.heads() {
            let head = head.to_lowercase();
            assert!(head.contains("host: shop.example\r\n"), "{head}");
            assert!(head.contains("x-forwarded-proto: https\r\n") && head.contains("x-forwarded-for: 127.0.0.1\r\n"));
        }
        assert_counts(&door.edge.settled(4).await, Arm::Canary, OutcomeClass::S2xx, 4);
    });
}

#[test]
fn http_2_is_spoken_without_tls_to_who_begins_with_it() {
    run(async {
        let backend = WireBackend::saying(ok("hi"), Then::Keep).await;
        let edge = tried(settings(), &backend);
        let mut sender = http2(TcpStream::connect(edge.address).await.expect("somebody listens")).await;
        let request = Request::get("http://shop.example/a?b").header("cookie", "a=1").header("cookie", "b=2");
        let request = request.body(Full::default()).expect("a request");
        for _ in 0..2 {
            assert_eq!(ask(&mut sender, request.clone()).await.1, "hi");
        }
        let head = backend.heads()[0].to_lowercase();
        assert!(head.starts_with("get /a?b http/1.1\r\n") && head.contains("host: shop.example\r\n"), "{head}");
        assert!(head.contains("cookie: a=1; b=2\r\n"), "{head}");
        assert_counts(&edge.settled(2).await, Arm::Canary, OutcomeClass::S2xx, 2);
        // What begins like it and is not is read as what it is.
        let mut other = Wire::connect(edge.address).await;
        other.send("PRI").await;
        other.send(" / HTTP/1.1\r\nhost: shop.example\r\n\r\n").await;
        assert_eq!(other.answer(false).await.expect("an answer").text(), "hi");
    });
}

#[test]
fn a_certificate_is_chosen_by_name_and_replaced_without_dropping_a_connection() {
    run(async {
        let (shop, other, next) = (pair(&["shop.example"]), pair(&["*.other.example"]), pair(&["shop.example"]));
        let door = Door::open(&[shop.clone(), other.clone()], None).await;
        let connector = client(&[&shop, &other, &next], &["http/1.1"], None);
        let shown = async |name: &str| {
            let stream = door.connect(&connector, name).await.expect("TLS");
            stream.get_ref().1.peer_certificates().expect("a server has one")[0].clone()
        };
        assert_eq!(shown("shop.example").await, certificate(&shop));
        assert_eq!(shown("a.other.example").await, certificate(&other));
        // Nobody has this name, so the client sees the first, and refuses it.
        assert!(door.connect(&connector, "nobody.example").await.is_err());

        let mut open = door.connect(&connector, "shop.example").await.expect("TLS");
        let mut ask = async || {
            open.write_all(b"GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n").await.expect("it is open");
            let mut bytes = [0; 1_024];
            let count = within("an answer", open.read(&mut bytes)).await.expect("an answer");
            assert!(bytes[..count].starts_with(b"HTTP/1.1 200"));
        };
        ask().await;
        door.certificates.replace(&[]).expect_err("there has to be one");
        assert_eq!(shown("shop.example").await, certificate(&shop));
        door.certificates.replace(std::slice::from_ref(&next)).expect("it can be used");
        // Without what it remembers of the former certificate.
        let anew = client(&[&shop, &next], &["http/1.1"], None);
        let stream = door.connect(&anew, "shop.example").await.expect("TLS");
        assert_eq!(stream.get_ref().1.peer_certificates().expect("it has one")[0], certificate(&next));
        ask().await;
    });
}

#[test]
fn a_client_goes_on_with_its_session() {
    run(async {
        let shop = pair(&["shop.example"]);
        let door = Door::open(std::slice::from_ref(&shop), None).await;
        let connector = client(&[&shop], &["http/1.1"], None);
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut stream = door.connect(&connector, "shop.example").await.expect("TLS");
            // Tickets come after the handshake.
            stream.write_all(b"GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n").await.expect("it is open");
            within("an answer", stream.read(&mut [0; 64])).await.expect("an answer");
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(expected));
        }
    });
}

#[test]
fn who_cannot_show_what_is_asked_for_does_not_come_in_and_is_counted() {
    run(async {
        let (shop, friend, stranger) = (pair(&["shop.example"]), pair(&["friend"]), pair(&["stranger"]));
        let door = Door::open(std::slice::from_ref(&shop), Some(roots(&[&friend]))).await;
        let comes_in = async |own: Option<&Pem>| {
            let Ok(mut stream) = door.connect(&client(&[&shop], &["http/1.1"], own), "shop.example").await else {
                return false;
            };
            // In TLS 1.3 a client learns only when it reads.
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n").await;
            within("an answer", stream.read(&mut [0; 64])).await.is_ok_and(|count| count > 0)
        };
        assert!(comes_in(Some(&friend)).await);
        assert!(!comes_in(Some(&stranger)).await);
        assert!(!comes_in(None).await);
        let mut plain = Wire::connect(door.edge.address).await;
        plain.send("GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n").await;
        plain.rest().await;
        let counted = async || Ok((door.edge.refused(Refusal::Handshake) == 3).then_some(()));
        until("three that did not come in", PATIENCE, counted).await.expect("they are counted");
        door.edge.settled(1).await;
    });
}

#[test]
fn who_agrees_on_http_2_and_then_is_silent_or_says_something_else_is_closed() {
    run(async {
        let shop = pair(&["shop.example"]);
        let patience = Duration::from_millis(200);
        let settings = Settings { downstream_read_timeout: patience, keep_alive_timeout: patience, ..settings() };
        let door = Door::open_by(std::slice::from_ref(&shop), None, settings).await;
        let connector = client(&[&shop], &["h2"], None);
        for said in ["", "PRI * HT", "GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n"] {
            let mut stream = door.connect(&connector, "shop.example").await.expect("TLS");
            stream.write_all(said.as_bytes()).await.expect("it is open");
            // However it is closed, no answer comes.
            assert!(!matches!(within("the end", stream.read(&mut [0; 64])).await, Ok(1..)), "{said:?}");
        }
        door.edge.settled(0).await;
        assert!(door.backend.heads().is_empty());
    });
}

#[test]
fn a_stream_that_stalls_within_its_body_is_the_clients_failure() {
    run(async {
        let waits = WireBackend::saying(ok("hi"), Then::Keep).await;
        let settings = Settings { upstream_read_timeout: Duration::from_millis(300), ..settings() };
        let edge = tried(settings, &waits);
        let mut sender = http2(TcpStream::connect(edge.address).await.expect("somebody listens")).await;
        let request = Request::post("http://shop.example/").header("content-length", "5").body(Never);
        let answer = within("an answer", sender.send_request(request.expect("a request"))).await.expect("an answer");
        assert_eq!(answer.status(), hyper::StatusCode::REQUEST_TIMEOUT);
        assert_counts(&edge.settled(1).await, Arm::Canary, OutcomeClass::ClientAbort, 1);
    });
}

#[test]
fn a_backend_that_takes_nothing_of_a_stream_is_the_one_who_failed() {
    run(async {
        let deaf = WireBackend::start(async |mut wire: Wire| {
            wire.head().await.expect("a request");
            std::future::pending::<()>().await;
        });
        let (backend, patience) = (deaf.await, Duration::from_millis(500));
        let settings = Settings { upstream_read_timeout: patience, upstream_write_timeout: patience, ..settings() };
        let edge = tried(settings, &backend);
        let mut sender = http2(TcpStream::connect(edge.address).await.expect("somebody listens")).await;
        // More than all buffers on the way hold.
        let (answer, _) = ask(&mut sender, post("http", vec![b'x'; 16 << 20])).await;
        assert_eq!(answer.status(), hyper::StatusCode::GATEWAY_TIMEOUT);
        assert_counts(&edge.settled(1).await, Arm::Canary, OutcomeClass::Timeout, 1);
    });
}

#[test]
fn a_stream_whose_body_never_comes_is_ended() {
    run(async {
        let early = WireBackend::start(async |mut wire: Wire| {
            wire.head().await.expect("a request");
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
            wire.rest().await;
        });
        let (backend, patience) = (early.await, Duration::from_millis(200));
        let settings = Settings { downstream_read_timeout: patience, upstream_read_timeout: patience, ..settings() };
        let edge = tried(settings, &backend);
        let mut sender = http2(TcpStream::connect(edge.address).await.expect("somebody listens")).await;
        let request = Request::post("http://shop.example/").body(Never).expect("a request");
        let answer = within("an answer", sender.send_request(request)).await.expect("an answer");
        assert_eq!(answer.status(), hyper::StatusCode::OK);
        edge.settled(1).await;
    });
}
