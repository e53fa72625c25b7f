//! A client's socket. What it was sent waits in the system's memory until it takes it: megabytes for each socket
//! (`net.ipv4.tcp_wmem`), which are in nobody's budget, and which take time to copy. So of one that has taken little yet the
//! system keeps little; one that reads gets what the system thinks is best for it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

/// What the system keeps for a client that did not show yet that it reads, beside what is on its way.
const UNSENT_BYTES_MAX: u32 = 32 << 10;
/// Who takes so much reads: a client's system takes less by itself (`net.ipv4.tcp_rmem`).
const READER_TAKES_BYTES: usize = 256 << 10;
/// Whatever the system thinks best (tcp(7), `TCP_NOTSENT_LOWAT`).
const NO_LIMIT_OF_OURS: u32 = 0;

/// The socket of one client.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    /// How much more it has to take.
    to_take: usize,
}

/// Of whom `listener` accepts, the system keeps little. How fast answers go out does not depend on it, so it may fail.
pub(super) fn keep_little(listener: &TcpSocket) {
    let _ = SockRef::from(listener).set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
}

impl Socket {
    /// Of a client that was just accepted.
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, to_take: READER_TAKES_BYTES }
    }

    fn wrote(&mut self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = outcome
            && self.to_take > 0
        {
            self.to_take = self.to_take.saturating_sub(bytes);
            if self.to_take == 0 {
                let _ = SockRef::from(&self.stream).set_tcp_notsent_lowat(NO_LIMIT_OF_OURS);
            }
        }
        outcome
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.wrote(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

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
}
