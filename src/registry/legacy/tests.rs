use std::net::SocketAddr;

use http::header::HeaderValue;
use http::{StatusCode, header};

use super::*;
use crate::upstream::BodyError;
use crate::upstream::fake::{self, Fake, empty, full, text};

const BASIC: &str = "Basic dTpw";

/// Answers with the request's head as it arrived, one line each.
async fn mirror() -> Fake {
    Fake::start(|request| async move {
        let mut lines = vec![format!("{} {}", request.method(), request.uri())];
        let line = |(name, value): (&header::HeaderName, &HeaderValue)| {
            format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
        };
        lines.extend(request.headers().iter().map(line));
        let _ = request.into_body().collect().await;
        Response::new(full(lines.join("\n")))
    })
    .await
}

async fn legacy(address: SocketAddr) -> Legacy {
    Legacy::open(&fake::legacy(&[address]), &Metrics::new()).await.unwrap()
}

fn forwarded() -> Forwarded {
    Forwarded { client: "192.0.2.7".parse().unwrap(), host: "gw.example:5000".to_owned(), https: true }
}

fn request(method: &str, lines: &[(&str, &str)], body: Body) -> Request<Body> {
    let mut request = Request::builder().method(method).uri("/v1/search?q=a%2Fb");
    for (name, value) in lines {
        request = request.header(*name, *value);
    }
    request.body(body).unwrap()
}

async fn seen(legacy: &Legacy, request: Request<Body>) -> Vec<String> {
    let answer = legacy.forward(request, &forwarded(), None).await.unwrap();
    text(answer.into_body()).await.lines().map(str::to_owned).collect()
}

/// What an upstream that sends `head` (without its last empty line) and `body` looks like to the caller.
async fn answered(head: &str, body: &str) -> Response<Body> {
    let fake = Fake::raw(format!("{head}\r\n\r\n{body}"), false).await;
    legacy(fake.address).await.forward(request("GET", &[], empty()), &forwarded(), None).await.unwrap()
}

#[tokio::test]
async fn the_registry_learns_who_called_from_us_alone() {
    let fake = mirror().await;
    let sent = [
        ("Host", "evil.example"),
        ("User-Agent", "docker/1.5.0 go/go1.4.1"),
        ("X-Docker-Token", "true"),
        ("Cookie", "session=1"),
        ("Connection", "close, X-Secret"),
        ("X-Secret", "1"),
        ("Proxy-Authorization", BASIC),
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Forwarded-Proto", "gopher"),
        ("X-Real-IP", "10.0.0.1"),
        ("Forwarded", "for=10.0.0.1"),
    ];
    let mut lines = seen(&legacy(fake.address).await, request("GET", &sent, empty())).await;
    lines.sort();
    let expected = [
        "GET /v1/search?q=a%2Fb",
        "cookie: session=1",
        "host: gw.example:5000",
        "user-agent: docker/1.5.0 go/go1.4.1",
        "x-docker-token: true",
        "x-forwarded-for: 192.0.2.7",
        "x-forwarded-host: gw.example:5000",
        "x-forwarded-proto: https",
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn credentials_go_on_only_where_they_belong() {
    const TOKEN: &str = "Token signature=A,repository=\"a/b\",access=write";
    const TWICE: &str = "Token Token signature=A,repository=\"a/b\",access=write";
    let fake = mirror().await;
    let plain = legacy(fake.address).await;
    let mut trusting = fake::legacy(&[fake.address]);
    trusting.forward_basic = true;
    let trusting = Legacy::open(&trusting, &Metrics::new()).await.unwrap();
    let mut known = fake::legacy(&[fake.address]);
    known.credentials =
        Some(config::BasicCredentials { username: "gate".to_owned(), password: config::Secret::new("s3cret") });
    let known = Legacy::open(&known, &Metrics::new()).await.unwrap();
    let ours = Some("Basic Z2F0ZTpzM2NyZXQ=");
    for (sent, plainly, trustingly) in [
        (&[][..], None, None),
        (&[BASIC][..], None, Some(BASIC)),
        (&["bAsIc dTpw"][..], None, Some("bAsIc dTpw")),
        (&[TOKEN][..], None, None),
        (&[TWICE][..], None, None),
        (&["Bearer e30"][..], None, None),
        (&["Tokenish e30"][..], None, None),
        (&[TOKEN, BASIC][..], None, None),
    ] {
        let lines: Vec<_> = sent.iter().map(|value| ("authorization", *value)).collect();
        for (legacy, expected) in [(&plain, plainly), (&trusting, trustingly), (&known, ours)] {
            let lines = seen(legacy, request("GET", &lines, empty())).await;
            let got: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix("authorization: ")).collect();
            assert_eq!(got, expected.into_iter().collect::<Vec<_>>(), "{sent:?}");
        }
    }
    assert!(!format!("{known:?}").contains("Z2F0ZT"), "{known:?}");
}

#[tokio::test]
async fn a_body_keeps_its_framing() {
    let fake = mirror().await;
    let legacy = legacy(fake.address).await;
    let frames = futures_util::stream::iter([Ok(http_body::Frame::data(bytes::Bytes::from_static(b"layer")))]);
    let chunked = http_body_util::BodyExt::boxed_unsync(http_body_util::StreamBody::new(frames));
    for (request, framing) in [
        (request("GET", &[], empty()), None),
        (request("DELETE", &[], empty()), None),
        (request("GET", &[("content-length", "5")], full("layer")), None),
        (request("PUT", &[("content-length", "5")], full("layer")), Some("content-length: 5")),
        (request("PUT", &[("content-length", "0")], empty()), Some("content-length: 0")),
        (request("PUT", &[("transfer-encoding", "chunked")], chunked), Some("transfer-encoding: chunked")),
    ] {
        let lines = seen(&legacy, request).await;
        let mut framings = lines.iter().filter(|line| line.starts_with("content-l") || line.starts_with("transfer-e"));
        assert_eq!(framings.next().map(String::as_str), framing);
        assert_eq!(framings.next(), None);
    }
}

#[tokio::test]
async fn the_answer_names_us_and_is_otherwise_as_it_was() {
    let head = "HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nContent-Length: 2\r\n\
        X-Docker-Endpoints: 127.0.0.1:5002, other\r\nX-Docker-Endpoints: third\r\nX-Docker-Token: Token signature=A\r\n\
        WWW-Authenticate: Token signature=A\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Docker-Size: 120\r\n\
        X-Docker-Checksum-Payload: sha256:61\r\nX-Odd: caf\u{e9}";
    let answer = answered(head, "{}").await;
    let mut lines: Vec<_> = answer
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    lines.sort();
    let expected = [
        "content-length: 2",
        "set-cookie: a=1",
        "set-cookie: b=2",
        "x-docker-checksum-payload: sha256:61",
        "x-docker-endpoints: gw.example:5000",
        "x-docker-size: 120",
        "x-odd: caf\u{e9}",
    ];
    assert_eq!(lines, expected);
    assert_eq!(text(answer.into_body()).await, "{}");
}

#[tokio::test]
async fn a_location_that_would_lead_around_us_leads_to_us() {
    let mut config = fake::legacy(&["127.0.0.1:5002".parse().unwrap()]);
    config.transport.peers[0].authority = "V1.example:80".to_owned();
    let legacy = Legacy::open(&config, &Metrics::new()).await.unwrap();
    for (location, expected) in [
        ("http://gw.example:5000/v1/users/", Some("https://gw.example:5000/v1/users/")),
        ("HTTP://GW.example:5000?a=1#b", Some("https://gw.example:5000?a=1#b")),
        ("http://v1.example/v1/", Some("https://gw.example:5000/v1/")),
        ("http://v1.example:80/v1/", Some("https://gw.example:5000/v1/")),
        ("https://v1.example/v1/", None),
        ("http://v1.example:8080/v1/", None),
        ("http://gw.example/v1/", None),
        ("http://gw.example:5000@evil.example/v1/", None),
        ("/v1/users/", None),
        ("//v1.example/v1/", None),
        ("ftp://v1.example:80/", None),
    ] {
        let value = HeaderValue::from_static(location);
        let got = legacy.location(&value, &forwarded());
        assert_eq!(got, expected.map(HeaderValue::from_static), "{location}");
    }
}

#[tokio::test]
async fn no_content_announces_none() {
    let answer = answered("HTTP/1.1 204 NO CONTENT\r\nContent-Length: 2", "").await;
    assert_eq!((answer.status(), answer.headers().get(header::CONTENT_LENGTH)), (StatusCode::NO_CONTENT, None));
    assert_eq!(text(answer.into_body()).await, "");
}

#[tokio::test]
async fn an_overstated_range_ends_where_the_layer_ends() {
    let part = "0123456789";
    for (range, announced, length) in
        [("90-100/100", 11, "10"), ("90-99/100", 10, "10"), ("bytes 90-99/100", 10, "10"), ("90-4000/100", 3911, "10")]
    {
        let head = format!("HTTP/1.1 206 PARTIAL\r\nContent-Length: {announced}\r\nContent-Range: {range}");
        let answer = answered(&head, part).await;
        assert_eq!(answer.headers()[header::CONTENT_LENGTH], length, "{range}");
        assert_eq!(answer.headers()[header::CONTENT_RANGE], range);
        assert_eq!(text(answer.into_body()).await, part, "{range}");
    }
}

#[tokio::test]
async fn a_range_that_breaks_off_is_an_error() {
    for (status, range, announced) in [
        ("206", "90-100/100", 11),
        ("206", "90-99/100", 10),
        ("206", "90-100/100", 12),
        ("206", "100-100/100", 1),
        ("206", "90-100/*", 11),
        ("200", "90-100/100", 11),
    ] {
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {announced}\r\nContent-Range: {range}");
        let answer = answered(&head, if announced == 1 { "" } else { "012345678" }).await;
        let error = answer.into_body().collect().await.expect_err("the body ended cleanly");
        assert!(matches!(*error.downcast::<BodyError>().unwrap(), BodyError::Broken(_)), "{status} {range}");
    }
}

#[tokio::test]
async fn whose_fault_it_was_is_told() {
    let gone = legacy(fake::nobody().await).await;
    let error = gone.forward(request("GET", &[], empty()), &forwarded(), None).await.unwrap_err();
    assert_eq!((error.fault(), error.retry()), (Fault::Upstream, true));
    let broken = Forwarded { host: "a\nb".to_owned(), ..forwarded() };
    let error = gone.forward(request("GET", &[], empty()), &broken, None).await.unwrap_err();
    assert_eq!((error.clone(), error.fault(), error.retry()), (LegacyError::Host, Fault::Caller, false));
}
