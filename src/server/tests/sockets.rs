use std::net::{IpAddr, Ipv4Addr};

use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use rustls_pki_types::PrivateKeyDer;

use super::*;

#[tokio::test]
async fn one_port_speaks_tls_and_plain() {
    let server = start(listener(Protocol::Auto), generous()).await;
    let mut plain = server.connect().await;
    assert_eq!(get(&mut plain, "/").await, "HTTP/1.1 main 127.0.0.1 Plain None");
    assert_eq!(get(&mut plain, "/").await, "HTTP/1.1 main 127.0.0.1 Plain None", "kept alive");
    let mut tls = server.connect_tls(&[]).await;
    assert_eq!(get(&mut tls, "/").await, "HTTP/1.1 main 127.0.0.1 Tls None");
    let mut tls = server.connect_tls(&["http/1.1"]).await;
    assert_eq!(get(&mut tls, "/").await, "HTTP/1.1 main 127.0.0.1 Tls None");
}

#[tokio::test]
async fn http_2_is_agreed_on_in_the_handshake_or_known_before() {
    let server = start(listener(Protocol::Auto), generous()).await;
    async fn ask(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Bytes {
        let (mut requests, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get("https://localhost/").body(Empty::<Bytes>::new()).unwrap();
        let response = requests.send_request(request).await.unwrap();
        response.into_body().collect().await.unwrap().to_bytes()
    }
    let tls = server.connect_tls(&["h2", "http/1.1"]).await;
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(ask(tls).await, "HTTP/2.0 main 127.0.0.1 Tls None");
    assert_eq!(ask(server.connect().await).await, "HTTP/2.0 main 127.0.0.1 Plain None");
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_told_so() {
    let mut server = start(listener(Protocol::Tls), generous()).await;
    let mut plain = server.connect().await;
    plain.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let body = answer(&mut plain).await;
    let error: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(error["errors"][0]["code"], "UNSUPPORTED");
    assert!(error["errors"][0]["message"].as_str().unwrap().starts_with("this port speaks HTTPS only"), "{body}");
    assert_eq!(rest(&mut plain).await, "");
    drop(plain);
    assert_eq!(server.told.end().await, ConnectionEvent::WrongProtocol);
    assert_eq!(get(&mut server.connect_tls(&[]).await, "/").await, "HTTP/1.1 main 127.0.0.1 Tls None");
}

#[tokio::test]
async fn what_a_listener_does_not_speak_is_closed() {
    for (protocol, bytes) in [
        (Protocol::Plain, &b"\x16\x03\x01\x02\x00\x01\x00"[..]),
        (Protocol::Auto, &b"\x00\x01\x02"[..]),
        (Protocol::Auto, &b"\x80garbage"[..]),
        (Protocol::Tls, &b"\xffgarbage"[..]),
    ] {
        let mut server = start(listener(protocol), generous()).await;
        let mut client = server.connect().await;
        client.write_all(bytes).await.unwrap();
        assert_eq!(rest(&mut client).await, "");
        assert_eq!(server.told.end().await, ConnectionEvent::WrongProtocol, "{protocol:?} {bytes:?}");
    }
}

#[tokio::test]
async fn a_handshake_that_fails_or_stops_is_ended() {
    let limits = Limits { tls_handshake_timeout: SHORT, ..generous() };
    let mut server = start(listener(Protocol::Auto), limits).await;
    for start in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01"] {
        let mut client = server.connect().await;
        client.write_all(start).await.unwrap();
        assert_eq!(rest(&mut client).await, "");
        assert_eq!(server.told.end().await, ConnectionEvent::HandshakeTimedOut, "{start:?}");
    }
    server.limits.store(Arc::new(generous()));
    let mut client = server.connect().await;
    client.write_all(b"\x16\x03\x01\x00\x04nope").await.unwrap();
    client.read_to_end(&mut Vec::new()).await.unwrap();
    assert_eq!(server.told.end().await, ConnectionEvent::HandshakeFailed(HandshakeFault::Malformed));
}

#[tokio::test]
async fn there_are_no_more_connections_than_the_budget_has() {
    let mut server = start(listener(Protocol::Auto), Limits { connections: 2, ..generous() }).await;
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    for busy in [&mut first, &mut second] {
        busy.write_all(b"GET /hold HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        server.told.began().await;
    }
    assert_eq!(rest(&mut server.connect().await).await, "");
    assert_eq!(server.told.end().await, ConnectionEvent::OverConnections);
    drop(first);
    assert_eq!(server.told.end().await, ConnectionEvent::Broken);
    get(&mut server.connect().await, "/").await;
}

#[tokio::test]
async fn who_says_nothing_makes_room_for_others() {
    let mut server = start(listener(Protocol::Auto), Limits { connections: 2, ..generous() }).await;
    let (silent, mut idle) = (server.connect().await, server.connect().await);
    get(&mut idle, "/").await;
    get(&mut server.connect().await, "/").await;
    assert_eq!(server.told.end().await, ConnectionEvent::MadeRoom);
    get(&mut idle, "/").await;
    drop(silent);
}

#[tokio::test]
async fn one_client_has_no_more_than_its_share() {
    let mut server = start(listener(Protocol::Auto), Limits { connections_per_client: 1, ..generous() }).await;
    let mut first = server.connect().await;
    get(&mut first, "/").await;
    assert_eq!(rest(&mut server.connect().await).await, "");
    assert_eq!(server.told.end().await, ConnectionEvent::OverConnectionsPerClient);
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(server.address).await.unwrap();
    assert_eq!(get(&mut other, "/").await, "HTTP/1.1 main 127.0.0.2 Plain None");
    server.limits.store(Arc::new(generous()));
    get(&mut server.connect().await, "/").await;
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections_and_drops_none() {
    let mut server = start(listener(Protocol::Auto), generous()).await;
    let mut before = server.connect_tls(&[]).await;
    get(&mut before, "/").await;
    let certificate = |stream: &TlsStream<TcpStream>| stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    let old = certificate(&before);

    let new = Certs::make();
    server.tls.store(tls::load(&new.settings).unwrap());
    server.certs = new;
    let mut after = server.connect_tls(&[]).await;
    get(&mut after, "/").await;
    assert_ne!(certificate(&after), old);
    assert_eq!(get(&mut before, "/").await, "HTTP/1.1 main 127.0.0.1 Tls None");
}

#[tokio::test]
async fn a_client_certificate_names_its_holder() {
    let mut server = start(listener(Protocol::Auto), generous()).await;
    let ca_file = server.certs.authority.clone();
    let ca_key = std::fs::read_to_string(ca_file.with_extension("key")).unwrap();
    let ca = CertificateDer::from_pem_file(&ca_file).unwrap();
    let issuer = Issuer::from_ca_cert_der(&ca, KeyPair::from_pem(&ca_key).unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "runner-1");
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    server.certs.settings.client_ca = Some(ca_file);
    server.tls.store(tls::load(&server.certs.settings).unwrap());

    let mut roots = RootCertStore::empty();
    roots.add(ca.clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap();
    let config = Arc::new(config);
    for visit in ["first", "resumed"] {
        let name = ServerName::IpAddress(IpAddr::from(Ipv4Addr::LOCALHOST).into());
        let connector = TlsConnector::from(Arc::clone(&config));
        let mut known = connector.connect(name, server.connect().await).await.unwrap();
        assert_eq!(get(&mut known, "/").await, r#"HTTP/1.1 main 127.0.0.1 Tls Some("runner-1")"#, "{visit}");
    }
    let mut unknown = server.connect_tls(&[]).await;
    assert_eq!(get(&mut unknown, "/").await, "HTTP/1.1 main 127.0.0.1 Tls None");
}

#[tokio::test]
async fn a_trusted_proxy_says_who_it_speaks_for() {
    let mut listener = listener(Protocol::Auto);
    listener.proxy_protocol = true;
    listener.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    let mut server = start(listener, Limits { connections_per_client: 1, ..generous() }).await;
    let announce = async |client: &str| {
        let mut stream = server.connect().await;
        stream.write_all(format!("PROXY TCP4 {client} 127.0.0.1 4711 443\r\n").as_bytes()).await.unwrap();
        stream
    };
    let mut first = announce("192.0.2.1").await;
    assert_eq!(get(&mut first, "/").await, "HTTP/1.1 main 192.0.2.1 Plain None");
    let mut second = announce("192.0.2.2").await;
    assert_eq!(get(&mut second, "/").await, "HTTP/1.1 main 192.0.2.2 Plain None");
    assert_eq!(rest(&mut announce("192.0.2.1").await).await, "");
    assert_eq!(server.told.end().await, ConnectionEvent::OverConnectionsPerClient);

    let mut silent = server.connect().await;
    silent.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    assert_eq!(rest(&mut silent).await, "");
    assert_eq!(server.told.end().await, ConnectionEvent::BadProxyHeader);

    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(server.address).await.unwrap();
    assert_eq!(get(&mut other, "/").await, "HTTP/1.1 main 127.0.0.2 Plain None", "not a proxy");
}

#[tokio::test]
async fn a_bad_head_is_handed_over_as_such_and_is_the_last() {
    let server = start(listener(Protocol::Auto), Limits { header_bytes: 4096, headers: 10, ..generous() }).await;
    for (head, reason) in [
        (format!("X: {}\r\n", "x".repeat(5000)), "TooLarge"),
        ("X: x\r\n".repeat(11), "TooLarge"),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n".into(), "Length"),
        ("Folded: x\r\n y\r\n".into(), "Field"),
    ] {
        let (good, smuggled) = ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        let requests = format!("{good}GET /bad HTTP/1.1\r\nHost: a\r\n{head}\r\n{smuggled}");
        let mut plain = server.connect().await;
        let mut tls = server.connect_tls(&[]).await;
        for stream in [&mut plain as &mut (dyn AsyncReadWrite + Unpin), &mut tls] {
            stream.write_all(requests.as_bytes()).await.unwrap();
            assert!(answer(stream).await.starts_with("HTTP/1.1 main"));
            let last = rest(stream).await;
            assert!(last.to_ascii_lowercase().contains("\r\nconnection: close\r\n"), "{last}");
            assert!(last.ends_with(&format!("\r\n\r\n{reason}")), "{last}");
            assert_eq!(last.matches("HTTP/1.1 ").count(), 1, "{last}");
        }
    }
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let mut server = start(listener(Protocol::Auto), generous()).await;
    let head = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4194304\r\n\r\n";
    let body = vec![b'x'; 4 << 20];
    for _ in 0..10 {
        let mut plain = server.connect().await;
        let mut tls = server.connect_tls(&[]).await;
        for stream in [&mut plain as &mut (dyn AsyncReadWrite + Unpin), &mut tls] {
            stream.write_all(head.as_bytes()).await.unwrap();
            // It was answered before anything of its body came.
            server.told.begun.recv().await.unwrap();
            stream.write_all(&body).await.unwrap();
            stream.flush().await.unwrap();
            assert!(answer(stream).await.starts_with("HTTP/1.1 main"));
            assert_eq!(rest(stream).await, "");
        }
        drop((plain, tls));
        assert_eq!(server.told.end().await, ConnectionEvent::Closed);
        assert_eq!(server.told.end().await, ConnectionEvent::Closed);
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_had_is_explained() {
    let taken = Listeners::bind(&[listener(Protocol::Auto)]).unwrap();
    let mut listener = listener(Protocol::Auto);
    listener.address = taken.addresses().next().unwrap().1;
    let error = Listeners::bind(&[listener.clone()]).unwrap_err();
    assert_eq!((error.kind, error.address), (io::ErrorKind::AddrInUse, listener.address));
    assert!(error.to_string().contains("another program listens there"), "{error}");
    listener.address = "192.0.2.1:0".parse().unwrap();
    let error = Listeners::bind(&[listener]).unwrap_err();
    assert_eq!(error.kind, io::ErrorKind::AddrNotAvailable);
    assert!(error.to_string().contains("listen.main.address"), "{error}");
}
