use super::*;

#[tokio::test]
async fn a_server_without_connections_stops_at_once() {
    let server = start(listener(Protocol::Auto), generous()).await;
    server.stop.send(()).unwrap();
    assert_eq!(server.served.await.unwrap(), Drained { forced: 0 });
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn idle_connections_are_closed_and_running_requests_finished() {
    let mut server = start(listener(Protocol::Auto), generous()).await;
    let mut silent = server.connect().await;
    let mut idle = server.connect().await;
    get(&mut idle, "/").await;
    let mut idle_tls = server.connect_tls(&[]).await;
    get(&mut idle_tls, "/").await;
    let mut busy = server.connect_tls(&[]).await;
    for _ in 0..2 {
        server.told.begun.recv().await.unwrap();
    }
    busy.write_all(b"GET /hold HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    server.told.begun.recv().await.unwrap();

    server.stop.send(()).unwrap();
    assert_eq!(rest(&mut silent).await, "");
    assert_eq!(rest(&mut idle).await, "");
    assert_eq!(rest(&mut idle_tls).await, "");
    assert!(!server.served.is_finished());
    server.told.gate.add_permits(1);
    assert_eq!(answer(&mut busy).await, "HTTP/1.1 main 127.0.0.1 Tls None");
    assert_eq!(rest(&mut busy).await, "");
    assert_eq!(server.served.await.unwrap(), Drained { forced: 0 });
    for _ in 0..4 {
        assert_eq!(server.told.end().await, ConnectionEvent::Closed);
    }
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_off_and_counted() {
    let mut server = start(listener(Protocol::Auto), Limits { drain_timeout: SHORT, ..generous() }).await;
    let mut busy = server.connect().await;
    busy.write_all(b"GET /hold HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    server.told.begun.recv().await.unwrap();
    server.stop.send(()).unwrap();
    assert_eq!(server.served.await.unwrap(), Drained { forced: 1 });
    assert_eq!(rest(&mut busy).await, "");
    assert_eq!(server.told.end().await, ConnectionEvent::Forced);
}
