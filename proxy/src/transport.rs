//! What lies between a client's socket and HTTP: bytes that were read before, and TLS. Either is a connection like the socket itself, to
//! Pingora and to us.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::server::TlsStream;

/// How long the last word may take, where Pingora says it: what was not sent yet has to go before it.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// A connection over another one.
#[derive(Debug)]
pub(crate) enum Over {
    /// These bytes come first.
    Read(Bytes, Stream),
    Tls(Box<TlsStream<Stream>>, Arc<SslDigest>),
}

impl Over {
    /// TLS whose handshake is done.
    pub(crate) fn tls(stream: TlsStream<Stream>) -> Self {
        let session = stream.get_ref().1;
        let cipher = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or_default();
        let version = session.protocol_version().and_then(|version| version.as_str()).unwrap_or_default();
        let digest = SslDigest::new(cipher, version, None, None, Vec::new());
        Self::Tls(Box::new(stream), Arc::new(digest))
    }

    fn below(&self) -> &Stream {
        match self {
            Self::Read(_, stream) => stream,
            Self::Tls(stream, _) => stream.get_ref().0,
        }
    }

    fn below_mut(&mut self) -> &mut Stream {
        match self {
            Self::Read(_, stream) => stream,
            Self::Tls(stream, _) => stream.get_mut().0,
        }
    }
}

impl AsyncRead for Over {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Read(first, _) if !first.is_empty() => {
                let count = first.len().min(buffer.remaining());
                buffer.put_slice(&first[..count]);
                first.advance(count);
                Poll::Ready(Ok(()))
            }
            Self::Read(_, stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream, _) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Over {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Read(_, stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream, _) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Read(_, stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Self::Tls(stream, _) => Pin::new(stream).poll_write_vectored(context, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Read(_, stream) => stream.is_write_vectored(),
            Self::Tls(stream, _) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Read(_, stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream, _) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Read(_, stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream, _) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[async_trait]
impl Shutdown for Over {
    async fn shutdown(&mut self) {
        // Whoever has gone does not hear it, and whoever does not read is not waited for.
        let _ = tokio::time::timeout(SHUTDOWN, AsyncWriteExt::shutdown(self)).await;
    }
}

impl UniqueID for Over {
    fn id(&self) -> UniqueIDType {
        self.below().id()
    }
}

impl Ssl for Over {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        match self {
            Self::Read(_, stream) => stream.get_ssl_digest(),
            Self::Tls(_, digest) => Some(digest.clone()),
        }
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        match self {
            Self::Read(_, stream) => stream.selected_alpn_proto(),
            Self::Tls(stream, _) => match stream.get_ref().1.alpn_protocol()? {
                b"h2" => Some(ALPN::H2),
                _ => Some(ALPN::H1),
            },
        }
    }
}

impl GetTimingDigest for Over {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.below().get_timing_digest()
    }
}

impl GetProxyDigest for Over {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.below().get_proxy_digest()
    }
}

impl GetSocketDigest for Over {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.below().get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.below_mut().set_socket_digest(digest);
    }
}

impl Peek for Over {}
