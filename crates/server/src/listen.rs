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
use axum_server::accept::Accept;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use hyper_util::rt::TokioTimer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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
    let limited = Limited {
        room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
    };
    let service = router.into_make_service();
    match tls {
        None => server.acceptor(limited).serve(service).await,
        Some(config) => {
            let acceptor = RustlsAcceptor::new(config).handshake_timeout(HANDSHAKE_TIMEOUT);
            server
                .acceptor(acceptor.acceptor(limited))
                .serve(service)
                .await
        }
    }
}

/// Turns connections away when there are too many.
#[derive(Clone)]
struct Limited {
    room: Arc<Semaphore>,
}

impl<S> Accept<TcpStream, S> for Limited {
    type Stream = Held;
    type Service = S;
    type Future = std::future::Ready<io::Result<(Held, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let accepted = match Arc::clone(&self.room).try_acquire_owned() {
            Ok(place) => stream.set_nodelay(true).map(|()| {
                (
                    Held {
                        stream,
                        _place: place,
                    },
                    service,
                )
            }),
            Err(_) => {
                tracing::warn!(
                    limit = CONNECTIONS_MAX,
                    "too many connections; one was turned away"
                );
                Err(io::Error::other("too many connections"))
            }
        };
        std::future::ready(accepted)
    }
}

/// A connection and its place among those that are allowed.
struct Held {
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Held {
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
