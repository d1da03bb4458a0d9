//! A backend that speaks HTTP/2, or HTTP over TLS, by hyper and rustls; and a client of HTTP/2.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::edge::run;
use crate::wire::{PATIENCE, within};

/// Runs with tasks of this thread alone, which answers may be.
pub(crate) fn run_here<T>(future: impl Future<Output = T>) -> T {
    run(async {
        let local = tokio::task::LocalSet::new();
        tokio::time::timeout(PATIENCE, local.run_until(future)).await.expect("it ends in time")
    })
}

/// A body of any kind.
pub(crate) type AnyBody = UnsyncBoxBody<Bytes, Infallible>;

/// What a backend was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) head: Request<()>,
    /// Over which connection, counted from 0.
    pub(crate) connection: usize,
}

/// A backend that answers by a function.
pub(crate) struct Speaker {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    accepting: JoinHandle<()>,
}

impl Speaker {
    /// HTTP/2 in cleartext.
    pub(crate) async fn http2<A>(answer: A) -> Self
    where
        A: AsyncFn(Request<Incoming>) -> Response<AnyBody> + Clone + 'static,
    {
        Self::start(None, answer).await
    }

    /// HTTP/2 or HTTP/1.1 over TLS, as the two agree.
    pub(crate) async fn tls<A>(acceptor: TlsAcceptor, answer: A) -> Self
    where
        A: AsyncFn(Request<Incoming>) -> Response<AnyBody> + Clone + 'static,
    {
        Self::start(Some(acceptor), answer).await
    }

    async fn start<A>(acceptor: Option<TlsAcceptor>, answer: A) -> Self
    where
        A: AsyncFn(Request<Incoming>) -> Response<AnyBody> + Clone + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let (address, asked) = (listener.local_addr().expect("it is bound"), Arc::default());
        let kept = Arc::clone(&asked);
        let accepting = tokio::task::spawn_local(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.expect("a connection");
                let (answer, kept, acceptor) = (answer.clone(), Arc::clone(&kept), acceptor.clone());
                tokio::task::spawn_local(async move {
                    match acceptor {
                        None => serve(stream, true, answer, &kept, connection).await,
                        Some(acceptor) => {
                            let Ok(stream) = acceptor.accept(stream).await else { return };
                            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                            serve(stream, is_http2, answer, &kept, connection).await;
                        }
                    }
                });
            }
        });
        Self { address, asked, accepting }
    }

    /// Everything it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Runs tasks of this thread alone, which handlers may be.
#[derive(Clone)]
struct Here;

impl<F: Future + 'static> hyper::rt::Executor<F> for Here {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

async fn serve<S, A>(stream: S, is_http2: bool, answer: A, asked: &Arc<Mutex<Vec<Asked>>>, connection: usize)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    A: AsyncFn(Request<Incoming>) -> Response<AnyBody> + Clone + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let mut head = Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.uri().clone();
        *head.version_mut() = request.version();
        *head.headers_mut() = request.headers().clone();
        asked.lock().unwrap_or_else(PoisonError::into_inner).push(Asked { head, connection });
        let answer = answer.clone();
        async move { Ok::<_, Infallible>(answer(request).await) }
    });
    let stream = TokioIo::new(stream);
    // How a connection ends is seen by who asked.
    if is_http2 {
        let _ = hyper::server::conn::http2::Builder::new(Here).serve_connection(stream, service).await;
    } else {
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await;
    }
}

/// A body that has come.
pub(crate) fn full(text: impl Into<Bytes>) -> AnyBody {
    Full::new(text.into()).boxed_unsync()
}

/// Answers 200 with what was sent.
pub(crate) async fn echo(request: Request<Incoming>) -> Response<AnyBody> {
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    Response::new(full(body))
}

pub(crate) type Sender<B> = hyper::client::conn::http2::SendRequest<B>;

/// HTTP/2 on a connection, as a client.
pub(crate) async fn http2<S, B>(stream: S) -> Sender<B>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let made = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = made.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

/// The same in cleartext to this address.
pub(crate) async fn http2_to<B>(address: SocketAddr) -> Sender<B>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    http2(TcpStream::connect(address).await.expect("somebody listens")).await
}

/// Sends a request and reads its answer.
pub(crate) async fn ask(sender: &mut Sender<Full<Bytes>>, request: Request<Full<Bytes>>) -> (Response<()>, Bytes) {
    let answer: Response<Incoming> = within("an answer", sender.send_request(request)).await.expect("an answer");
    let (parts, body) = answer.into_parts();
    (Response::from_parts(parts, ()), body.collect().await.expect("a whole body").to_bytes())
}
