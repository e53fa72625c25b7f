//! Bodies that are sent again with a token.

use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

#[tokio::test]
async fn a_small_body_that_came_without_a_token_is_sent_again_with_one() {
    let (fake, asked) = with_tokens().await;
    let origin = open(&with_user(remote(&[fake.address]), "ada")).await;
    let put = Ask { method: Method::PUT, body: full("a manifest"), follow: false, ..get("/v2/a/manifests/1") };
    assert_eq!(origin.send(put).await.unwrap().status(), StatusCode::OK);
    let shown: Vec<String> = asked_for(&asked, "/v2/a").into_iter().map(|(_, shown)| shown).collect();
    assert_eq!(shown, ["", "Bearer t1"]);
}

/// An upstream that refuses before the body came, goes on reading, and thinks about the token.
#[tokio::test]
async fn what_went_on_to_be_sent_while_a_token_was_asked_for_was_missing_in_what_was_sent_with_it() {
    let (came, all) = (Arc::new(Mutex::new(Vec::new())), 20 * 64 * 1024);
    let log = Arc::clone(&came);
    let fake = Fake::accept(move |mut stream| {
        let log = Arc::clone(&log);
        async move {
            let head = head(&mut stream).await;
            let realm = format!("http://{}/token", stream.local_addr().unwrap());
            let refused = format!("401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"{realm}\"");
            let (status, body) = match head.starts_with("GET /token") {
                true => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    ("200 OK".to_owned(), r#"{"token":"t1"}"#)
                }
                false if head.contains("Bearer t1") => {
                    let mut body = Vec::new();
                    while !body.ends_with(b"\r\n0\r\n\r\n")
                        && stream.read_buf(&mut body).await.is_ok_and(|read| read > 0)
                    {}
                    log.lock().unwrap().push(body.iter().filter(|byte| **byte == b'z').count());
                    ("202 Accepted".to_owned(), "")
                }
                false => (refused, ""),
            };
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
    })
    .await;
    let origin = open(&with_user(remote(&[fake.address]), "ada")).await;
    let pieces = futures_util::stream::unfold(0, |number| async move {
        tokio::time::sleep(Duration::from_millis(if number == 1 { 50 } else { 0 })).await;
        let piece = http_body::Frame::data(vec![b'z'; 64 * 1024].into());
        (number < 20).then_some((Ok(piece), number + 1))
    });
    let body = http_body_util::StreamBody::new(pieces).boxed_unsync();
    let patch = Ask { method: Method::PATCH, body, follow: false, ..get("/v2/a/blobs/uploads/1") };
    assert_eq!(origin.send(patch).await.unwrap().status(), StatusCode::ACCEPTED);
    assert_eq!(*came.lock().unwrap(), [all]);
}

/// A request's head.
async fn head(stream: &mut tokio::net::TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}
