//! The guard together with hyper: what comes through is what hyper alone would have read, or it is refused.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};

use http_body_util::{BodyExt as _, Empty};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::ReadBuf;
use tokio::time::Instant;

use super::*;
use crate::gateway::BadHead;
use crate::server::activity::Activity;
use crate::server::framing::HeadLimits;
use crate::server::guarded::{Guarded, Verdicts};
use crate::server::pace::{Entrance, Turnstile};
use crate::server::socket::Sleeper;

fn anybody() -> Entrance {
    Turnstile::default().entrance([192, 0, 2, 1].into())
}

const LIMITS: HeadLimits = HeadLimits { bytes: 8 << 10, headers: 100 };

/// A client that sends pieces, leaves, and keeps what it is answered.
struct Script {
    pieces: VecDeque<Vec<u8>>,
    answers: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Script {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(mut piece) = self.pieces.pop_front() {
            let rest = piece.split_off(piece.len().min(buffer.remaining()));
            buffer.put_slice(&piece);
            if !rest.is_empty() {
                self.pieces.push_front(rest);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Sleeper for Script {
    fn sleep(self: Pin<&mut Self>) {}
}

impl AsyncWrite for Script {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.answers.lock().unwrap().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A request as a handler sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    head: String,
    /// `None` if it broke.
    body: Option<Bytes>,
}

/// What hyper makes of `bytes` in pieces of so many: the requests, and what the guard said of the last.
async fn seen(bytes: &[u8], piece_bytes: usize, guarded: bool) -> (Vec<Seen>, Option<BadHead>) {
    let answers = Arc::default();
    let script =
        Script { pieces: bytes.chunks(piece_bytes).map(<[u8]>::to_vec).collect(), answers: Arc::clone(&answers) };
    let verdicts = Arc::new(Verdicts::default());
    let all = Mutex::new((Vec::new(), None));
    let service = service_fn(|request: Request<Incoming>| {
        let bad = verdicts.next();
        let all = &all;
        async move {
            let (parts, body) = request.into_parts();
            let head = format!("{} {} {:?} {:?}", parts.method, parts.uri, parts.version, parts.headers);
            let body = body.collect().await.ok().map(http_body_util::Collected::to_bytes);
            let mut all = all.lock().unwrap();
            if bad.is_none() {
                all.0.push(Seen { head, body });
            }
            assert!(all.1.is_none(), "a request came after a bad one");
            all.1 = bad;
            let mut response = Response::new(Empty::<Bytes>::new());
            if bad.is_some() {
                response.headers_mut().insert("connection", http::HeaderValue::from_static("close"));
            }
            Ok::<_, io::Error>(response)
        }
    });
    let mut http = http1::Builder::new();
    // This client is gone before its requests are answered; they are to be seen all the same.
    http.half_close(true);
    http.max_headers(LIMITS.headers).max_header_size(LIMITS.bytes);
    let _ = if guarded {
        let io = Guarded::new(script, LIMITS, Arc::clone(&verdicts), Arc::new(Activity::start()), anybody());
        http.serve_connection(TokioIo::new(io), service).await
    } else {
        http.serve_connection(TokioIo::new(script), service).await
    };
    let answers = String::from_utf8(answers.lock().unwrap().clone()).unwrap();
    let all = all.into_inner().unwrap();
    // hyper refuses nothing by itself: it would do that without a word of why.
    let own = answers.matches("HTTP/1.").count() - answers.matches(" 200 OK\r\n").count();
    assert!(!guarded || own == 0, "{answers:?} to {}", bytes.escape_ascii());
    all
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// Requests as clients write them.
fn ordinary() -> impl Strategy<Value = Vec<u8>> {
    let body = prop_oneof![
        Just(String::new()),
        "[ -~\r\n]{0,300}".prop_map(|text| format!("Content-Length: {}\r\n\r\n{text}", text.len())),
        (
            proptest::collection::vec("[ -~\r\n]{1,60}", 0..5),
            "(;[a-z]{1,5}(=[a-z]{1,5})?)?",
            "(X-[a-z]{1,5}: [a-z]{0,5}\r\n)?"
        )
            .prop_map(|(chunks, extension, trailer)| {
                let chunks = chunks.iter().map(|text| format!("{:x}{extension}\r\n{text}\r\n", text.len()));
                format!("Transfer-Encoding: chunked\r\n\r\n{}0\r\n{trailer}\r\n", chunks.collect::<String>())
            }),
    ];
    let head = ("(GET|PUT|POST|PATCH|DELETE|HEAD)", "/v2/[a-z/]{0,20}(\\?[a-z]{1,5}=[a-z:]{0,9})?");
    let headers = proptest::collection::vec(("[A-Z][a-z-]{0,12}x", "[!-~]{0,20}( [!-~]{1,9})?"), 0..6);
    let request = (head, headers, body).prop_map(|((method, target), headers, body)| {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let body = if body.is_empty() { "\r\n".to_owned() } else { body };
        format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{headers}{body}")
    });
    proptest::collection::vec(request, 1..5).prop_map(|requests| requests.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ordinary_requests_come_through_unchanged(bytes in ordinary(), piece_bytes in 1_usize..900) {
        let (alone, _) = block_on(seen(&bytes, usize::MAX, false));
        prop_assert!(alone.iter().all(|seen| seen.body.is_some()));
        prop_assert_eq!(block_on(seen(&bytes, usize::MAX, true)), (alone.clone(), None));
        prop_assert_eq!(block_on(seen(&bytes, piece_bytes, true)), (alone, None));
    }

    #[test]
    fn of_others_nothing_is_read_that_hyper_alone_would_not_read_so(
        bytes in ordinary(),
        places in proptest::collection::vec(any::<proptest::sample::Index>(), 1..6),
        mutation in proptest::sample::select(vec![
            "\r\n", "\n", "\r", "\0", " ", "\t", ":", "0", "3", "f", ";", "\r\n ", "Content-Length: 3\r\n", "\r\nTransfer-Encoding: chunked",
            "\r\nContent-Length: 0", "<", "\"", "#", "%", "\u{e9}", "[", "@", "\r\n\r\n", "GET /smuggled HTTP/1.1\r\n\r\n", "0\r\n\r\n", "",
        ]),
        piece_bytes in 1_usize..900,
    ) {
        let mut bytes = bytes;
        for place in places {
            let at = place.index(bytes.len());
            let end = if mutation.is_empty() { (at + 1).min(bytes.len()) } else { at };
            bytes.splice(at..end, mutation.bytes());
        }
        let (alone, _) = block_on(seen(&bytes, usize::MAX, false));
        let (through, bad) = block_on(seen(&bytes, piece_bytes, true));
        for (index, seen) in through.iter().enumerate() {
            let alone = alone.get(index).unwrap_or_else(|| panic!("{seen:?} was seen through the guard only"));
            prop_assert_eq!(&seen.head, &alone.head);
            let is_last = index + 1 == through.len() && bad.is_none();
            prop_assert!(seen.body == alone.body || (is_last && seen.body.is_none()), "{:?} and alone {:?}", seen, alone);
        }
    }
}

#[tokio::test]
async fn a_bad_head_is_told_apart_from_those_before_it() {
    for (bad, reason) in [
        ("PUT /x HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", BadHead::Length),
        ("GET /x\r\n\r\n", BadHead::RequestLine),
        ("GET /x HTTP/1.1\nHost: a\n\n", BadHead::LineEnd),
    ] {
        let requests = format!(
            "GET /a HTTP/1.1\r\n\r\nPUT /b HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc{bad}GET /c HTTP/1.1\r\n\r\n"
        );
        for piece_bytes in [1, 7, 50, usize::MAX] {
            let (good, said) = seen(requests.as_bytes(), piece_bytes, true).await;
            let heads: Vec<_> = good.iter().map(|seen| seen.head.split(' ').nth(1).unwrap()).collect();
            assert_eq!((&heads[..], said), (&["/a", "/b"][..], Some(reason)), "{bad:?} in pieces of {piece_bytes}");
        }
    }
}

#[tokio::test]
async fn a_bad_body_breaks_and_nothing_comes_after_it() {
    let requests = "PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\nGET /b HTTP/1.1\r\n\r\n";
    for piece_bytes in [1, 7, 50, usize::MAX] {
        let (seen, bad) = seen(requests.as_bytes(), piece_bytes, true).await;
        assert_eq!((seen.len(), bad), (1, None));
        assert_eq!(seen[0].body, None);
    }
}

#[tokio::test(start_paused = true)]
async fn requests_by_the_hundred_and_chunks_of_a_byte_are_read_last() {
    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let read = |bytes: Vec<u8>| async move {
        let activity = Arc::new(Activity::start());
        let mut guarded = Guarded::new(&bytes[..], LIMITS, Arc::default(), activity, anybody());
        let began = Instant::now();
        let mut piece = [0; 8 << 10];
        let mut length = 0;
        while let read @ 1.. = guarded.read(&mut piece).await.unwrap() {
            length += read;
        }
        assert_eq!(length, bytes.len());
        began.elapsed()
    };
    assert_eq!(read(GET.repeat(30)).await, Duration::ZERO);
    assert!(read(GET.repeat(2_000)).await > Duration::from_millis(1_500));
    let chunks = |chunk: &[u8]| [POST, &chunk.repeat(20_000), b"0\r\n\r\n"].concat();
    assert!(read(chunks(b"1\r\nx\r\n")).await > Duration::from_secs(2));
    let large = [b"100\r\n", &[b'x'; 256][..], b"\r\n"].concat();
    assert_eq!(read(chunks(&large)).await, Duration::ZERO);
}
