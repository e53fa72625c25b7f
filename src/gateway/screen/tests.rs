use super::*;
use http::{Request, Version};

fn listener(plain: PlainPolicy) -> Listener {
    Listener { plain, trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()], ..Listener::default() }
}

fn arrival(peer: &str, transport: Transport) -> Arrival {
    let local = "127.0.0.1:5000".parse().unwrap();
    Arrival {
        peer: peer.parse().unwrap(),
        local,
        listener: "main".into(),
        transport,
        certificate: None,
        bad_head: None,
    }
}

fn parts(target: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn over_tls(target: &str, headers: &[(&str, &str)]) -> Result<Screened, Refusal> {
    screen(&arrival("192.0.2.1:999", Transport::Tls), &listener(PlainPolicy::Loopback), &parts(target, headers))
}

#[test]
fn an_ordinary_request_passes() {
    let screened = over_tls("/v2/a/blobs/sha256:00", &[("host", "registry.example:5000"), ("content-length", "3")]);
    let client = "192.0.2.1".parse().unwrap();
    assert_eq!(screened, Ok(Screened { host: "registry.example:5000".into(), https: true, client }));
    assert!(over_tls("/v2/", &[("host", "[::1]:5000"), ("transfer-encoding", "chunked")]).is_ok());
}

#[test]
fn a_bad_head_is_refused_whatever_else_is_there() {
    let arrival = Arrival { bad_head: Some(BadHead::Length), ..arrival("127.0.0.1:999", Transport::Tls) };
    let screened = screen(&arrival, &listener(PlainPolicy::Anyone), &parts("/v2/", &[("host", "a")]));
    assert_eq!(screened, Err(Refusal::Head(BadHead::Length)));
}

#[test]
fn hosts_that_are_missing_doubled_or_strange_are_refused() {
    assert_eq!(over_tls("/v2/", &[]), Err(Refusal::Host));
    assert_eq!(over_tls("/v2/", &[("host", "a"), ("host", "a")]), Err(Refusal::Host));
    for host in ["", "a/x?y#z", "user@a", "a b", "a:port", "a:", "a:99999", "[::1", "[x]", "a\"b", "a,b", "*"] {
        assert_eq!(over_tls("/v2/", &[("host", host)]), Err(Refusal::Host), "{host}");
    }
    assert_eq!(over_tls("http://b/v2/", &[("host", "a")]), Err(Refusal::HostMismatch));
    assert!(over_tls("http://A/v2/", &[("host", "a")]).is_ok());
}

#[test]
fn http_2_names_the_host_in_its_target() {
    let mut request = parts("https://a:5000/v2/", &[]);
    request.version = Version::HTTP_2;
    let screened = screen(&arrival("192.0.2.1:999", Transport::Tls), &listener(PlainPolicy::Loopback), &request);
    assert_eq!(screened.map(|screened| screened.host), Ok("a:5000".into()));
}

#[test]
fn targets_of_another_scheme_are_refused() {
    let plain = |peer: &str, target: &str, headers: &[(&str, &str)]| {
        let headers = [&[("host", "a")], headers].concat();
        screen(&arrival(peer, Transport::Plain), &listener(PlainPolicy::Anyone), &parts(target, &headers)).map(|_| ())
    };
    for scheme in ["ftp", "ws", "file", "httpx"] {
        let target = format!("{scheme}://a/v2/");
        assert_eq!(over_tls(&target, &[("host", "a")]), Err(Refusal::Scheme), "{target}");
        assert_eq!(plain("192.0.2.1:9", &target, &[]), Err(Refusal::Scheme), "{target}");
    }
    for target in ["http://a/v2/", "https://a/v2/", "HTTPS://a/v2/"] {
        assert!(over_tls(target, &[("host", "a")]).is_ok(), "{target}");
    }
    assert_eq!(plain("192.0.2.1:9", "http://a/v2/", &[]), Ok(()));
    assert_eq!(plain("192.0.2.1:9", "https://a/v2/", &[]), Err(Refusal::Scheme));
    assert_eq!(plain("10.1.2.3:9", "https://a/v2/", &[]), Ok(()), "a trusted proxy passes on what it was asked");
    assert_eq!(plain("192.0.2.1:9", "https://a/v2/", &[("x-forwarded-proto", "https")]), Err(Refusal::Scheme));
}

#[test]
fn lengths_that_read_two_ways_are_refused() {
    let host = ("host", "a");
    for (headers, refusal) in [
        (vec![host, ("content-length", "3"), ("transfer-encoding", "chunked")], Refusal::Length),
        (vec![host, ("content-length", "3"), ("content-length", "3")], Refusal::Length),
        (vec![host, ("transfer-encoding", "identity, chunked")], Refusal::TransferCoding),
        (vec![host, ("transfer-encoding", "gzip")], Refusal::TransferCoding),
        (vec![host, ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], Refusal::TransferCoding),
    ] {
        assert_eq!(over_tls("/v2/", &headers), Err(refusal), "{headers:?}");
    }
}

#[test]
fn paths_that_read_two_ways_are_refused() {
    for path in [
        "//v2/",
        "/v2//a",
        "/v2/%2e%2e/a",
        "/v2/a%2fb/manifests/x",
        "/v2/a;x/tags/list",
        "/v2/../v1/",
        "/v2/./a",
        "/v2/a%00",
        "/v2/a%5cb",
        "/v2/é",
        "*",
    ] {
        let Ok(uri) = path.parse::<http::Uri>() else { continue };
        assert_eq!(over_tls(&uri.to_string(), &[("host", "a")]), Err(Refusal::Path), "{path}");
    }
    let long = format!("/v2/?{}", "x".repeat(TARGET_BYTES_MAX));
    assert_eq!(over_tls(&long, &[("host", "a")]), Err(Refusal::TargetTooLong));
}

#[test]
fn methods_that_are_none_of_ours_are_refused() {
    for method in ["CONNECT", "TRACE", "PROPFIND"] {
        assert_eq!(check_method(&method.parse().unwrap()), Err(Refusal::Method), "{method}");
    }
}

#[test]
fn plain_http_is_served_to_loopback_only() {
    let plain = |peer: &str, policy: PlainPolicy| {
        screen(&arrival(peer, Transport::Plain), &listener(policy), &parts("/v2/", &[("host", "a")])).map(|_| ())
    };
    assert_eq!(plain("127.0.0.1:9", PlainPolicy::Loopback), Ok(()));
    assert_eq!(plain("[::ffff:127.0.0.1]:9", PlainPolicy::Loopback), Ok(()));
    assert_eq!(plain("192.0.2.1:9", PlainPolicy::Loopback), Err(Refusal::PlainText));
    assert_eq!(plain("192.0.2.1:9", PlainPolicy::Anyone), Ok(()));
    assert_eq!(plain("127.0.0.1:9", PlainPolicy::Nobody), Err(Refusal::PlainText));
}

#[test]
fn plain_http_through_a_proxy_on_this_machine_passed_for_local() {
    let plain = |peer: &str, policy: PlainPolicy, headers: &[(&str, &str)]| {
        let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
        let listener = Listener { trusted_proxies, ..listener(policy) };
        let headers = [&[("host", "a")], headers].concat();
        screen(&arrival(peer, Transport::Plain), &listener, &parts("/v2/", &headers)).map(|_| ())
    };
    let (near, far) = ([("x-forwarded-for", "127.0.0.1")], [("x-forwarded-for", "198.51.100.7")]);
    let encrypted = [far[0], ("x-forwarded-proto", "https")];
    assert_eq!(plain("127.0.0.1:9", PlainPolicy::Loopback, &far), Err(Refusal::PlainText));
    assert_eq!(plain("127.0.0.1:9", PlainPolicy::Loopback, &near), Ok(()));
    assert_eq!(plain("127.0.0.1:9", PlainPolicy::Loopback, &[]), Ok(()));
    assert_eq!(plain("127.0.0.1:9", PlainPolicy::Loopback, &encrypted), Ok(()));
    assert_eq!(plain("127.0.0.1:9", PlainPolicy::Anyone, &far), Ok(()));
    // Who is local to a proxy elsewhere still reaches us over a network.
    assert_eq!(plain("10.0.0.1:9", PlainPolicy::Loopback, &near), Err(Refusal::PlainText));
}

#[test]
fn forwarded_headers_are_believed_only_from_trusted_proxies() {
    let headers =
        [("host", "a"), ("x-forwarded-for", "198.51.100.7"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "b")];
    let from = |peer: &str| {
        screen(&arrival(peer, Transport::Plain), &listener(PlainPolicy::Anyone), &parts("/v2/", &headers)).unwrap()
    };
    let believed = Screened { host: "b".into(), https: true, client: "198.51.100.7".parse().unwrap() };
    assert_eq!(from("10.1.2.3:9"), believed);
    let ignored = Screened { host: "a".into(), https: false, client: "192.0.2.1".parse().unwrap() };
    assert_eq!(from("192.0.2.1:9"), ignored);
}
