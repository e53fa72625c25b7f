//! A client's socket. What it was sent waits in the system's memory until it takes it: megabytes for each socket
//! (`net.ipv4.tcp_wmem`), which are in nobody's budget, and which take time to copy. So of one that has taken little yet the
//! system keeps little; one that reads gets what the system thinks is best for it.
//!
//! Whoever waits for a socket is woken for each piece that comes, if it is a byte, and whether it will be read or not. So a socket
//! that will not be read for a while can be put to sleep.

use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::server::TlsStream;

/// What the system keeps for a client that did not show yet that it reads, beside what is on its way.
const UNSENT_BYTES_MAX: u32 = 32 << 10;
/// Who takes so much reads: a client's system takes less by itself (`net.ipv4.tcp_rmem`).
const READER_TAKES_BYTES: usize = 256 << 10;
/// Whatever the system thinks best (tcp(7), `TCP_NOTSENT_LOWAT`).
const NO_LIMIT_OF_OURS: u32 = 0;

/// The socket of one client.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    /// How much more it has to take.
    to_take: usize,
}

#[derive(Debug)]
enum Stream {
    Awake(TcpStream),
    /// The system tells nobody about it.
    Asleep(std::net::TcpStream),
    /// It could not be put to sleep, or woken.
    Gone,
}

/// What can be put to sleep.
pub(super) trait Sleeper {
    /// From now on nobody is woken for what comes, until it is read or written again. Whoever waits for it needs another reason
    /// to wake up.
    fn sleep(self: Pin<&mut Self>);
}

/// Of whom `listener` accepts, the system keeps little. How fast answers go out does not depend on it, so it may fail.
pub(super) fn keep_little(listener: &TcpSocket) {
    let _ = SockRef::from(listener).set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
}

impl Socket {
    /// Of a client that was just accepted.
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream: Stream::Awake(stream), to_take: READER_TAKES_BYTES }
    }

    /// The socket, awake.
    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        if let Stream::Asleep(_) = self.stream
            && let Stream::Asleep(stream) = mem::replace(&mut self.stream, Stream::Gone)
        {
            self.stream = Stream::Awake(TcpStream::from_std(stream)?);
        }
        match &mut self.stream {
            Stream::Awake(stream) => Ok(Pin::new(stream)),
            Stream::Asleep(_) | Stream::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn wrote(&mut self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = outcome
            && self.to_take > 0
        {
            self.to_take = self.to_take.saturating_sub(bytes);
            if self.to_take == 0
                && let Stream::Awake(stream) = &self.stream
            {
                let _ = SockRef::from(stream).set_tcp_notsent_lowat(NO_LIMIT_OF_OURS);
            }
        }
        outcome
    }
}

impl Sleeper for Socket {
    fn sleep(mut self: Pin<&mut Self>) {
        if let Stream::Awake(_) = self.stream
            && let Stream::Awake(stream) = mem::replace(&mut self.stream, Stream::Gone)
            && let Ok(stream) = stream.into_std()
        {
            self.stream = Stream::Asleep(stream);
        }
    }
}

impl Sleeper for Box<TlsStream<Socket>> {
    fn sleep(self: Pin<&mut Self>) {
        Pin::new(self.get_mut().get_mut().0).sleep();
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = self.stream()?.poll_write(context, bytes);
        self.wrote(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = self.stream()?.poll_write_vectored(context, slices);
        self.wrote(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        // TCP always can.
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is held back here, so there is nothing to wake up for.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// How many bytes the system takes for a client that reads nothing.
    async fn taken(socket: &mut Socket) -> usize {
        let chunk = [0; 64 << 10];
        let mut taken = 0;
        while let Ok(bytes) = tokio::time::timeout(std::time::Duration::from_millis(200), socket.write(&chunk)).await {
            taken += bytes.unwrap();
        }
        taken
    }

    #[tokio::test]
    async fn little_is_kept_until_the_client_reads() {
        let listener = TcpSocket::new_v4().unwrap();
        keep_little(&listener);
        listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = listener.listen(1).unwrap();
        let client = TcpSocket::new_v4().unwrap();
        client.set_recv_buffer_size(8 << 10).unwrap();
        let mut client = client.connect(listener.local_addr().unwrap()).await.unwrap();
        let mut socket = Socket::new(listener.accept().await.unwrap().0);
        let before = taken(&mut socket).await;
        assert!(before < 160 << 10, "{before}");
        let reading = tokio::spawn(async move {
            let mut bytes = vec![0; READER_TAKES_BYTES];
            client.read_exact(&mut bytes).await.unwrap();
            client
        });
        let mut sent = before;
        while sent < READER_TAKES_BYTES + before {
            sent += socket.write(&[0; 16 << 10]).await.unwrap();
        }
        let _client = reading.await.unwrap();
        let after = taken(&mut socket).await;
        assert!(after > 2 * before, "{after} after {before}");
    }

    /// How often somebody was woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::AcqRel);
        }
    }

    #[tokio::test]
    async fn who_would_not_read_was_woken_for_each_byte_all_the_same() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut socket = Socket::new(listener.accept().await.unwrap().0);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut byte = [0];
        let mut wait = |socket: &mut Socket| {
            let mut buffer = ReadBuf::new(&mut byte);
            assert!(Pin::new(socket).poll_read(&mut Context::from_waker(&waker), &mut buffer).is_pending());
        };
        wait(&mut socket);
        client.write_all(b"a").await.unwrap();
        while woken.0.load(Ordering::Acquire) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(socket.read_u8().await.unwrap(), b'a');
        wait(&mut socket);
        Pin::new(&mut socket).sleep();
        client.write_all(b"b").await.unwrap();
        // There is nothing to flush, so it sleeps on; long enough for the system to tell of it, did it tell anybody.
        socket.flush().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(woken.0.load(Ordering::Acquire), 1);
        assert_eq!(socket.read_u8().await.unwrap(), b'b');
        Pin::new(&mut socket).sleep();
        socket.write_all(b"c").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'c');
    }
}
