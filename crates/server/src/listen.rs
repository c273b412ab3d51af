//! Accepting connections: how many, how patiently, and with or without TLS.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum_server::Handle;
use axum_server::accept::{Accept, NoDelayAcceptor};
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use futures::future::BoxFuture;
use hyper_util::rt::TokioTimer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

use crate::config::Tls;

/// Connections at once.  Higher: their files and buffers are missing elsewhere; lower:
/// honest followers are turned away.
const CONNECTIONS_MAX: usize = 4_096;

/// How long the head of a request may take, and a connection be idle.  Higher: those
/// who only want to hold connections hold them longer; lower: slow networks break.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long TLS may take to begin.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A handle that ends a listener.
pub(crate) type Ender = Handle<SocketAddr>;

/// Begins to listen.  Connections wait until [`serve`].
pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener> {
    let bind = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok::<_, io::Error>(listener)
    };
    bind().with_context(|| {
        format!("cannot listen on {address}: end what listens there, or choose another with --listen HOST:PORT")
    })
}

/// Reads certificate and key.
pub(crate) async fn tls(files: &Tls) -> Result<RustlsConfig> {
    let config = RustlsConfig::from_pem_file(&files.cert, &files.key).await;
    config.with_context(|| {
        format!(
            "cannot use the certificate {} with the key {}: both must be PEM files that belong together",
            files.cert.display(),
            files.key.display()
        )
    })
}

/// Answers until `ender` is told to end.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    tls: Option<RustlsConfig>,
    ender: Ender,
) -> io::Result<()> {
    let mut server = axum_server::from_tcp(listener)?.handle(ender);
    let http = server.http_builder();
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HEAD_TIMEOUT);
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    match tls {
        None => {
            let limited = Limited::new(NoDelayAcceptor::new());
            server.acceptor(limited).serve(service).await
        }
        Some(config) => {
            let tls = RustlsAcceptor::new(config).handshake_timeout(HANDSHAKE_TIMEOUT);
            let limited = Limited::new(tls.acceptor(NoDelayAcceptor::new()));
            server.acceptor(limited).serve(service).await
        }
    }
}

/// Turns connections away when there are too many, and ends those that say nothing.
#[derive(Clone)]
struct Limited<A> {
    inner: A,
    room: Arc<Semaphore>,
}

impl<A> Limited<A> {
    fn new(inner: A) -> Self {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Self { inner, room }
    }
}

impl<A, S> Accept<TcpStream, S> for Limited<A>
where
    A: Accept<TcpStream, S>,
    A::Future: Send + 'static,
{
    type Stream = Held<A::Stream>;
    type Service = A::Service;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let place = Arc::clone(&self.room).try_acquire_owned();
        let accepted = self.inner.accept(stream, service);
        Box::pin(async move {
            let Ok(place) = place else {
                tracing::warn!(
                    limit = CONNECTIONS_MAX,
                    "too many connections; one was turned away"
                );
                return Err(io::Error::other("too many connections"));
            };
            let (stream, service) = accepted.await?;
            let held = Held::new(stream, place);
            Ok((held, service))
        })
    }
}

/// A connection and its place among those that are allowed.
struct Held<S> {
    stream: S,
    /// Until when it must have said its first byte: before that nobody knows which
    /// HTTP it speaks, and so nobody else watches the time.
    silence: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl<S> Held<S> {
    fn new(stream: S, place: OwnedSemaphorePermit) -> Self {
        Self {
            stream,
            silence: Some(Box::pin(tokio::time::sleep(HEAD_TIMEOUT))),
            _place: place,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Held<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            self.silence = None;
        } else if let Some(silence) = &mut self.silence
            && silence.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Held<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_says_nothing_is_ended() {
        let (near, _far) = tokio::io::duplex(64);
        let room = Arc::new(Semaphore::new(1));
        let place = || Arc::clone(&room).try_acquire_owned().expect("room");
        let mut silent = Held::new(near, place());
        let error = silent.read_u8().await.expect_err("its time is over");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(silent);
        let (near, mut far) = tokio::io::duplex(64);
        let mut talking = Held::new(near, place());
        tokio::io::AsyncWriteExt::write_u8(&mut far, 1)
            .await
            .expect("written");
        assert_eq!(talking.read_u8().await.expect("a byte"), 1);
        let later = tokio::time::timeout(HEAD_TIMEOUT * 2, talking.read_u8()).await;
        assert!(
            later.is_err(),
            "from its first byte on others watch the time"
        );
    }
}
