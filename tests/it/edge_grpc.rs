//! gRPC through the edge: tonic on both sides, and hyper where a client has to say what tonic would not.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes};
use http_body_util::{BodyExt, Full};
use hyper::{Request as HttpRequest, Response as HttpResponse, StatusCode};
use serin_measure::{Arm, EpochCounts, OutcomeClass};
use serin_proxy::Refusal;
use serin_route::{Conditions, Host, Protocol, Retries, Route, Upstream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::client::Grpc as Client;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc as Server, NamedService, StreamingService};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::edge::{TestEdge, drawn, run, settings};
use crate::speaker::{Speaker, ask, full, http2_to, run_here};
use crate::wire::{Then, Wire, WireBackend, within};

/// Messages that are text, as they are.
#[derive(Clone, Default)]
struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, message: String, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(message.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        String::from_utf8(bytes.to_vec()).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

/// Says every message again. `refuse N` as the first one is answered by a status alone, `fail N` by one after what came before,
/// `repeat N` by as many messages, `wait` by nothing.
#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

type Answers = Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;

impl StreamingService<String> for Echo {
    type Response = String;
    type ResponseStream = Answers;
    type Future = BoxFuture<Response<Answers>, Status>;

    fn call(&mut self, request: Request<Streaming<String>>) -> Self::Future {
        Box::pin(async move {
            let mut messages = request.into_inner();
            let first = messages.message().await?;
            if let Some(code) = first.as_deref().and_then(|first| first.strip_prefix("refuse ")) {
                return Err(Status::new(code_of(code), "refused"));
            }
            let (say, said) = mpsc::channel(4);
            tokio::spawn(async move {
                let mut next = Ok(first);
                while let Ok(Some(message)) = next {
                    match message.split_once(' ') {
                        Some(("fail", code)) => {
                            let _ = say.send(Err(Status::new(code_of(code), "failed"))).await;
                            return;
                        }
                        Some(("repeat", count)) => {
                            for number in 0..count.parse().expect("a number") {
                                let _ = say.send(Ok(format!("{number}"))).await;
                            }
                        }
                        _ if message == "wait" => say.closed().await,
                        _ => {
                            let _ = say.send(Ok(message)).await;
                        }
                    }
                    next = messages.message().await;
                }
            });
            let mut answer = Response::new(Box::pin(ReceiverStream::new(said)) as Answers);
            answer.metadata_mut().insert("x-from", "echo".parse().expect("a value"));
            Ok(answer)
        })
    }
}

fn code_of(number: &str) -> Code {
    Code::from(number.parse::<i32>().expect("a number"))
}

impl Service<http::Request<tonic::body::Body>> for Echo {
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async move { Ok(Server::new(Text).streaming(Self, request).await) })
    }
}

/// An edge before one server of gRPC, which is the canary.
struct Shop {
    edge: TestEdge,
    address: std::net::SocketAddr,
}

impl Shop {
    async fn open(upstream: Upstream) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let server = tonic::transport::Server::builder().add_service(Echo);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let route = drawn(Arm::Canary, &[address], &[address]);
        let edge = TestEdge::start(settings(), vec![Route { upstream: Arc::new(upstream), ..route }]);
        Self { edge, address }
    }

    async fn client(&self) -> Client<Channel> {
        let channel = Channel::from_shared(format!("http://{}", self.edge.address)).expect("an address");
        let mut client = Client::new(channel.connect().await.expect("somebody listens"));
        client.ready().await.expect("it is connected");
        client
    }
}

const GRPC: Upstream = Upstream::speaking(Protocol::Http2);

fn path() -> http::uri::PathAndQuery {
    http::uri::PathAndQuery::from_static("/test.Echo/Say")
}

async fn unary(client: &mut Client<Channel>, message: &str) -> Result<Response<String>, Status> {
    within("an answer", client.unary(Request::new(message.to_owned()), path(), Text)).await
}

#[track_caller]
fn assert_classes(counts: &EpochCounts, expected: &[(OutcomeClass, u64)]) {
    let classes = counts.canary.evidence.classes;
    let found: Vec<_> = OutcomeClass::ALL.iter().map(|class| (*class, classes[class.index()])).collect();
    let found: Vec<_> = found.into_iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(found, expected);
}

#[test]
fn calls_of_every_kind_go_through_with_their_metadata_and_trailers() {
    run(async {
        let shop = Shop::open(GRPC).await;
        let mut client = shop.client().await;
        let answer = unary(&mut client, "hello").await.expect("an answer");
        assert_eq!(answer.metadata().get("x-from").expect("it is passed on"), "echo");
        assert_eq!(answer.into_inner(), "hello");

        client.ready().await.expect("it is connected");
        let repeated = client.server_streaming(Request::new("repeat 100".to_owned()), path(), Text).await;
        let repeated: Vec<_> = repeated.expect("a stream").into_inner().collect().await;
        assert_eq!(repeated.len(), 100);
        assert!(repeated.iter().all(Result::is_ok));

        client.ready().await.expect("it is connected");
        let (say, said) = mpsc::channel::<String>(1);
        let both = client.streaming(Request::new(ReceiverStream::new(said)), path(), Text);
        say.send("first".to_owned()).await.expect("somebody reads");
        let mut answers = within("a stream", both).await.expect("a stream").into_inner();
        // Each is answered before the next one is sent, so nothing waits for an end.
        for message in ["first", "second", "third"] {
            if message != "first" {
                say.send(message.to_owned()).await.expect("somebody reads");
            }
            assert_eq!(within("an answer", answers.next()).await.expect("one").expect("no status"), message);
        }
        drop(say);
        assert!(within("the end", answers.next()).await.is_none());
        assert_classes(&shop.edge.settled(3).await, &[(OutcomeClass::S2xx, 3)]);
    });
}

#[test]
fn a_status_in_the_head_or_after_the_body_is_what_is_measured() {
    run(async {
        let shop = Shop::open(GRPC).await;
        let mut client = shop.client().await;
        for message in ["refuse 13", "fail 13", "refuse 5", "fail 5"] {
            client.ready().await.expect("it is connected");
            let status = unary(&mut client, message).await.expect_err("a status");
            assert_eq!(status.code(), code_of(message.split_once(' ').expect("two words").1), "{message}");
            assert_eq!(status.message(), if message.starts_with("fail") { "failed" } else { "refused" });
        }
        let counts = shop.edge.settled(4).await;
        assert_classes(&counts, &[(OutcomeClass::S4xx, 2), (OutcomeClass::Grpc, 2)]);
        assert_eq!(counts.cell().a, 2, "the canary has failed twice, with 200 each time");
    });
}

#[test]
fn a_status_that_a_route_wants_to_try_again_is_tried_again() {
    run(async {
        let on = Conditions::parse("unavailable").expect("conditions");
        let shop = Shop::open(Upstream { retries: Retries { attempts: 2, on, try_timeout: None }, ..GRPC }).await;
        let mut client = shop.client().await;
        let status = unary(&mut client, "refuse 14").await.expect_err("a status");
        assert_eq!(status.code(), Code::Unavailable);
        let counts = shop.edge.settled(1).await;
        assert_eq!(counts.canary.retries, 2);
        assert_classes(&counts, &[(OutcomeClass::Grpc, 1)]);
    });
}

/// A message in its frame: not compressed, its length, its bytes.
fn framed(message: &str) -> Bytes {
    let mut frame = vec![0];
    frame.put_u32(u32::try_from(message.len()).expect("short"));
    frame.put_slice(message.as_bytes());
    frame.into()
}

fn call(authority: &str) -> http::request::Builder {
    HttpRequest::post(format!("http://{authority}/test.Echo/Say"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

/// The status of an answer that has nothing else.
fn status_alone(answer: &HttpResponse<()>) -> (StatusCode, Option<&str>) {
    (answer.status(), answer.headers().get("grpc-status").and_then(|status| status.to_str().ok()))
}

#[test]
fn the_time_that_a_client_gives_a_call_is_kept_for_it() {
    run(async {
        let shop = Shop::open(GRPC).await;
        let mut sender = http2_to(shop.edge.address).await;
        let request = call("shop").header("grpc-timeout", "200m").body(Full::new(framed("wait")));
        // The server has begun to answer, so nothing is left but to end the stream.
        let answer = within("a head", sender.send_request(request.expect("a request"))).await.expect("a head");
        within("the end", answer.into_body().collect()).await.expect_err("it is cut off");
        assert_classes(&shop.edge.settled(1).await, &[(OutcomeClass::Timeout, 1)]);
    });
    run(async {
        let deaf = WireBackend::start(async |mut wire: Wire| {
            wire.rest().await;
        });
        let deaf = deaf.await;
        let route = drawn(Arm::Canary, &[deaf.address()], &[deaf.address()]);
        let edge = TestEdge::start(settings(), vec![Route { upstream: Arc::new(GRPC), ..route }]);
        let mut sender = http2_to(edge.address).await;
        let request = call("shop").header("grpc-timeout", "200m").body(Full::new(framed("hello")));
        let (answer, _) = ask(&mut sender, request.expect("a request")).await;
        assert_eq!(status_alone(&answer), (StatusCode::OK, Some("4")));
        assert_classes(&edge.settled(1).await, &[(OutcomeClass::Timeout, 1)]);
    });
}

#[test]
fn what_is_not_answered_by_a_server_of_grpc_is_told_in_its_form() {
    run(async {
        let shop = Shop::open(GRPC).await;
        let route = |hosts: Vec<Host>, addresses: &[std::net::SocketAddr]| Route {
            hosts,
            upstream: Arc::new(GRPC),
            ..drawn(Arm::Canary, addresses, addresses)
        };
        let known = vec![Host::parse("shop").expect("a host")];
        let nobody = WireBackend::saying(String::new(), Then::Keep).await.address();
        let mut sender = http2_to(shop.edge.address).await;
        for (host, addresses, expected) in
            [("elsewhere", vec![shop.address], "12"), ("shop", vec![], "14"), ("shop", vec![nobody], "14")]
        {
            shop.edge.publish(vec![route(known.clone(), &addresses)]);
            let request = call(host).body(Full::new(framed("hello"))).expect("a request");
            let (answer, body) = ask(&mut sender, request).await;
            assert_eq!(status_alone(&answer), (StatusCode::OK, Some(expected)), "{host} {addresses:?}");
            assert_eq!((answer.headers()["content-type"].as_bytes(), body.len()), (&b"application/grpc"[..], 0));
        }
        assert_eq!(shop.edge.refused(Refusal::UnknownHost), 1);
        assert_eq!(shop.edge.refused(Refusal::NoEndpoint), 1);
        assert_classes(&shop.edge.settled(1).await, &[(OutcomeClass::ConnectFailed, 1)]);
    });
}

#[test]
fn an_answer_of_plain_http_becomes_a_status() {
    run_here(async {
        let backend = Speaker::http2(async |_| {
            let mut answer = HttpResponse::new(full("<h1>busy</h1>"));
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            answer.headers_mut().insert("content-type", "text/html".parse().expect("a value"));
            answer
        });
        let backend = backend.await;
        let route = drawn(Arm::Canary, &[backend.address], &[backend.address]);
        let edge = TestEdge::start(settings(), vec![Route { upstream: Arc::new(GRPC), ..route }]);
        let mut sender = http2_to(edge.address).await;
        let request = call("shop").body(Full::new(framed("hello"))).expect("a request");
        let (answer, body) = ask(&mut sender, request).await;
        assert_eq!((status_alone(&answer), body.len()), ((StatusCode::OK, Some("14")), 0));
        // Who does not speak gRPC gets it as it is.
        let request = HttpRequest::post("http://shop/").body(Full::default()).expect("a request");
        let (answer, body) = ask(&mut sender, request).await;
        assert_eq!((answer.status(), &body[..]), (StatusCode::SERVICE_UNAVAILABLE, &b"<h1>busy</h1>"[..]));
        assert_classes(&edge.settled(2).await, &[(OutcomeClass::S5xx, 2)]);
    });
}

#[test]
fn an_answer_without_a_status_is_a_failure() {
    run_here(async {
        let backend = Speaker::http2(async |_| {
            let mut answer = HttpResponse::new(full("cut"));
            answer.headers_mut().insert("content-type", "application/grpc".parse().expect("a value"));
            answer
        });
        let backend = backend.await;
        let route = drawn(Arm::Canary, &[backend.address], &[backend.address]);
        let edge = TestEdge::start(settings(), vec![Route { upstream: Arc::new(GRPC), ..route }]);
        let mut sender = http2_to(edge.address).await;
        let request = call("shop").body(Full::new(framed("hello"))).expect("a request");
        let answer = within("an answer", sender.send_request(request)).await.expect("an answer");
        let _ = answer.into_body().collect().await;
        assert_classes(&edge.settled(1).await, &[(OutcomeClass::Grpc, 1)]);
    });
}
