//! A v2 registry elsewhere, against small servers in this process.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::config::{Authorization, BasicCredentials, Credentials, Remote, RemoteKind, Secret};
use crate::upstream::fake::{Fake, config as transport, empty, full, nobody, text};

use super::*;

const LONG: Duration = Duration::from_secs(30);

/// What a server was asked: method, path with query, Authorization.
type Asked = Arc<Mutex<Vec<(String, String, String)>>>;

fn remember(asked: &Asked, request: &Request<Incoming>) {
    let authorization = request.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    let line = (request.method().to_string(), request.uri().to_string(), authorization.unwrap_or_default());
    asked.lock().unwrap().push(line);
}

fn asked_for(asked: &Asked, path: &str) -> Vec<(String, String)> {
    let asked = asked.lock().unwrap();
    let found = asked.iter().filter(|(_, target, _)| target.starts_with(path));
    found.map(|(method, _, authorization)| (method.clone(), authorization.clone())).collect()
}

/// A server that answers by `answer`, which sees what came and how often the path was asked for.
async fn server<F>(answer: F) -> (Fake, Asked)
where
    F: Fn(&Request<Incoming>, usize) -> Response<Body> + Clone + Send + Sync + 'static,
{
    let asked = Asked::default();
    let log = Arc::clone(&asked);
    let fake = Fake::start(move |request| {
        remember(&log, &request);
        let times = asked_for(&log, request.uri().path()).len();
        std::future::ready(answer(&request, times))
    })
    .await;
    (fake, asked)
}

fn remote(peers: &[SocketAddr]) -> Remote {
    Remote {
        kind: RemoteKind::Mirror,
        transport: transport(peers),
        prefix: "old".parse().unwrap(),
        namespaces: vec![],
        hosts: vec![],
        docker_mirror: vec![],
        official: None,
        credentials: None,
        authorization: Authorization::Gateway,
        realms: vec![],
        private_addresses: vec![],
        tag_ttl: LONG,
        stale: LONG,
        stale_when_refused: false,
        negative_ttl: LONG,
        revalidate_timeout: LONG,
        deadline: LONG,
        forward_ttl: LONG,
        abandoned_fills: 1,
    }
}

fn with_user(remote: Remote, username: &str) -> Remote {
    let basic = BasicCredentials { username: username.to_owned(), password: Secret::new("secret") };
    Remote { credentials: Some(Credentials::Basic(basic)), ..remote }
}

async fn open(remote: &Remote) -> Origin {
    Origin::open(remote, "dockgate-test", Duration::from_secs(2), &Metrics::new()).await.unwrap()
}

fn get(path: &str) -> Ask {
    Ask {
        method: Method::GET,
        path: path.parse().unwrap(),
        headers: HeaderMap::new(),
        body: empty(),
        scope: "repository:a:pull".to_owned(),
        caller: None,
        follow: true,
        peer: None,
        deadline: Instant::now() + LONG,
    }
}

fn answer(status: u16, headers: &[(http::HeaderName, String)], body: &str) -> Response<Body> {
    let mut response = Response::new(full(body.to_owned()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        response.headers_mut().insert(name.clone(), value.parse().unwrap());
    }
    response
}

fn basic(user: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:secret")))
}

/// A registry whose token service is at `/token`, and gives each time another token.
async fn with_tokens() -> (Fake, Asked) {
    server(|request, times| {
        let host = request.headers()[http::header::HOST].to_str().unwrap().to_owned();
        let shown = request.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
        match (request.uri().path(), shown.as_deref()) {
            ("/token", _) => answer(200, &[], &format!(r#"{{"token":"t{times}","expires_in":300}}"#)),
            (_, Some("Bearer t1" | "Bearer t2")) if request.uri().path() != "/expired" => answer(200, &[], "yes"),
            ("/expired", Some("Bearer t2")) => answer(200, &[], "yes"),
            _ => {
                let challenge = format!(r#"Bearer realm="http://{host}/token",service="registry""#);
                answer(401, &[(WWW_AUTHENTICATE, challenge)], "")
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_token_is_fetched_once_and_shown_from_then_on() {
    let (fake, asked) = with_tokens().await;
    let origin = open(&with_user(remote(&[fake.address]), "ada")).await;
    for _ in 0..3 {
        let answer = origin.send(get("/v2/a")).await.unwrap();
        assert_eq!((answer.status(), text(answer.into_body()).await.as_str()), (StatusCode::OK, "yes"));
    }
    assert_eq!(asked_for(&asked, "/token"), [("GET".to_owned(), basic("ada"))]);
    let shown: Vec<String> = asked_for(&asked, "/v2/a").into_iter().map(|(_, shown)| shown).collect();
    assert_eq!(shown, ["", "Bearer t1", "Bearer t1", "Bearer t1"]);
    let line = asked.lock().unwrap().iter().find(|(_, target, _)| target.starts_with("/token")).unwrap().1.clone();
    assert_eq!(line, "/token?service=registry&scope=repository%3Aa%3Apull&account=ada");
}

#[tokio::test]
async fn a_token_beside_an_empty_one_and_a_time_that_is_none_was_not_taken() {
    let bodies = [
        r#"{"token":"","access_token":"good","expires_in":-1}"#,
        r#"{"token":"good","access_token":"","expires_in":0}"#,
        r#"{"access_token":"good","expires_in":"3600"}"#,
        r#"{"token":"good","access_token":null,"expires_in":null}"#,
    ];
    for body in bodies {
        let (fake, _) = server(move |request, _| {
            let host = request.headers()[http::header::HOST].to_str().unwrap().to_owned();
            let shown = request.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
            match (request.uri().path(), shown.as_deref()) {
                ("/token", _) => answer(200, &[], body),
                (_, Some("Bearer good")) => answer(200, &[], "yes"),
                _ => answer(401, &[(WWW_AUTHENTICATE, format!("bearer  Realm=http://{host}/token"))], ""),
            }
        })
        .await;
        let origin = open(&with_user(remote(&[fake.address]), "ada")).await;
        let answer = origin.send(get("/v2/a")).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{body}");
    }
}

#[tokio::test]
async fn many_who_need_a_token_wait_for_one() {
    let (fake, asked) = with_tokens().await;
    let origin = open(&remote(&[fake.address])).await;
    let answers = futures_util::future::join_all((0..20).map(|_| origin.send(get("/v2/a")))).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().status() == StatusCode::OK));
    assert_eq!(asked_for(&asked, "/token").len(), 1);
}

#[tokio::test]
async fn a_failed_login_was_tried_again_by_each_who_waited_for_it() {
    for (status, retries, expected) in [(401, 2, 1), (500, 0, 1), (500, 2, 3)] {
        let (fake, asked) = server(move |request, _| match request.uri().path() {
            "/token" => answer(status, &[], "{}"),
            _ => {
                let host = request.headers()[http::header::HOST].to_str().unwrap().to_owned();
                answer(401, &[(WWW_AUTHENTICATE, format!(r#"Bearer realm="http://{host}/token""#))], "")
            }
        })
        .await;
        let mut config = with_user(remote(&[fake.address]), "ada");
        config.transport.retries = retries;
        let origin = open(&config).await;
        let answers = futures_util::future::join_all((0..50).map(|_| origin.send(get("/v2/a")))).await;
        assert!(answers.into_iter().all(|answer| answer.is_err()));
        assert_eq!(asked_for(&asked, "/token").len(), expected, "{status}, {retries} retries");
        // A moment later it is asked again.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        assert!(origin.send(get("/v2/a")).await.is_err());
        assert_eq!(asked_for(&asked, "/token").len(), 2 * expected, "{status}, {retries} retries");
    }
}

#[tokio::test]
async fn a_token_that_is_not_taken_any_more_is_fetched_anew_once() {
    let (fake, asked) = with_tokens().await;
    let origin = open(&remote(&[fake.address])).await;
    assert_eq!(origin.send(get("/v2/a")).await.unwrap().status(), StatusCode::OK);
    assert_eq!(origin.send(get("/expired")).await.unwrap().status(), StatusCode::OK);
    assert_eq!(asked_for(&asked, "/token").len(), 2);
    let (fake, asked) = server(|request, _| match request.uri().path() {
        "/token" => answer(200, &[], r#"{"access_token":"same"}"#),
        _ => {
            let host = request.headers()[http::header::HOST].to_str().unwrap().to_owned();
            answer(401, &[(WWW_AUTHENTICATE, format!(r#"Bearer realm="http://{host}/token""#))], "")
        }
    })
    .await;
    let refused = open(&remote(&[fake.address])).await.send(get("/v2/a")).await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(asked_for(&asked, "/v2/a").len(), 2, "once without and once with a token");
}

#[tokio::test]
async fn basic_is_shown_where_it_is_asked_for_and_the_callers_own_where_they_go_on() {
    let (fake, asked) = server(|request, _| match request.headers().get(AUTHORIZATION) {
        Some(_) => answer(200, &[], ""),
        None => answer(401, &[(WWW_AUTHENTICATE, "Basic realm=\"x\"".to_owned())], ""),
    })
    .await;
    let origin = open(&with_user(remote(&[fake.address]), "ours")).await;
    assert_eq!(origin.send(get("/v2/a")).await.unwrap().status(), StatusCode::OK);
    let theirs = Ask { caller: Some(CallerCredentials::new("theirs", "secret")), ..get("/v2/b") };
    assert_eq!(origin.send(theirs).await.unwrap().status(), StatusCode::OK);
    let nobody = Ask { caller: Some(CallerCredentials::anonymous()), ..get("/v2/c") };
    assert_eq!(origin.send(nobody).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(asked_for(&asked, "/v2/a").last().unwrap().1, basic("ours"));
    assert_eq!(asked_for(&asked, "/v2/b").last().unwrap().1, basic("theirs"));
    assert!(asked_for(&asked, "/v2/c").iter().all(|(_, shown)| shown.is_empty()));
}

#[tokio::test]
async fn a_strange_token_service_gets_nothing() {
    let (stranger, seen) = server(|_, _| answer(200, &[], r#"{"token":"x"}"#)).await;
    let realm = format!("http://localhost:{}/token", stranger.address.port());
    let (fake, _) =
        server(move |_, _| answer(401, &[(WWW_AUTHENTICATE, format!("Bearer realm=\"{realm}\""))], "")).await;
    let origin = open(&with_user(remote(&[fake.address]), "ada")).await;
    let error = origin.send(get("/v2/a")).await.map(|_| ()).unwrap_err();
    let realm = format!("localhost:{}", stranger.address.port());
    assert_eq!(error, SendError::Realm { upstream: "old".to_owned(), realm });
    assert!(seen.lock().unwrap().is_empty());
    // Listed it may be asked, but not at an address that is not public.
    let listed = Remote { realms: vec!["localhost".to_owned()], ..with_user(remote(&[fake.address]), "ada") };
    let error = open(&listed).await.send(get("/v2/a")).await.map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("private_addresses"), "{error}");
    assert!(seen.lock().unwrap().is_empty());
    let private =
        Remote { private_addresses: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()], ..listed };
    assert_eq!(open(&private).await.send(get("/v2/a")).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_throttled_or_refused_login_is_an_error_of_its_own() {
    for (status, expected) in [
        (429, "lets us ask no more"),
        (503, "answered 503"),
        (401, "mend username and password_file"),
        (200, "without a token"),
    ] {
        let (fake, _) = server(move |request, _| match request.uri().path() {
            "/token" => answer(status, &[], "{}"),
            _ => {
                let host = request.headers()[http::header::HOST].to_str().unwrap().to_owned();
                answer(401, &[(WWW_AUTHENTICATE, format!(r#"Bearer realm="http://{host}/token""#))], "")
            }
        })
        .await;
        let mut config = with_user(remote(&[fake.address]), "ada");
        config.transport.retries = 0;
        let error = open(&config).await.send(get("/v2/a")).await.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("secret"), "{status}: {error}");
    }
}

#[tokio::test]
async fn a_refresh_token_and_a_service_that_knows_only_the_form() {
    for (user, kind) in [("<token>", "refresh_token"), ("ada", "password")] {
        let (fake, asked) = server(|request, _| match (request.uri().path(), request.method().as_str()) {
            ("/token", "POST") => answer(200, &[], r#"{"access_token":"posted"}"#),
            ("/token", _) => answer(404, &[], ""),
            _ if request.headers().get(AUTHORIZATION).is_some_and(|shown| shown == "Bearer posted") => {
                answer(200, &[], "")
            }
            _ => {
                let host = request.headers()[http::header::HOST].to_str().unwrap().to_owned();
                answer(401, &[(WWW_AUTHENTICATE, format!(r#"Bearer realm="http://{host}/token""#))], "")
            }
        })
        .await;
        let origin = open(&with_user(remote(&[fake.address]), user)).await;
        assert_eq!(origin.send(get("/v2/a")).await.unwrap().status(), StatusCode::OK, "{kind}");
        assert!(asked_for(&asked, "/token").iter().any(|(method, _)| method == "POST"), "{kind}");
    }
}

#[tokio::test]
async fn redirects_are_followed_without_credentials_and_come_to_an_end() {
    let (cdn, seen) = server(|_, _| answer(200, &[], "bytes")).await;
    let to = format!("http://127.0.0.1:{}/blob?signature=x", cdn.address.port());
    let (fake, asked) = server(move |request, _| match (request.uri().path(), request.headers().get(AUTHORIZATION)) {
        (_, None) => answer(401, &[(WWW_AUTHENTICATE, "Basic".to_owned())], ""),
        ("/away", _) => answer(307, &[(LOCATION, to.clone())], ""),
        ("/round", _) => answer(302, &[(LOCATION, "/round".to_owned())], ""),
        ("/here", _) => answer(301, &[(LOCATION, "/there".to_owned())], ""),
        _ => answer(200, &[], "there"),
    })
    .await;
    let mut config = with_user(remote(&[fake.address]), "ada");
    config.private_addresses = vec!["127.0.0.0/8".parse().unwrap()];
    let origin = open(&config).await;
    let answer = origin.send(get("/away")).await.unwrap();
    assert_eq!(text(answer.into_body()).await, "bytes");
    assert_eq!(seen.lock().unwrap().as_slice(), [("GET".to_owned(), "/blob?signature=x".to_owned(), String::new())]);
    assert_eq!(text(origin.send(get("/here")).await.unwrap().into_body()).await, "there");
    assert_eq!(asked_for(&asked, "/there"), [("GET".to_owned(), basic("ada"))], "it is the same host");
    let error = origin.send(get("/round")).await.map(|_| ()).unwrap_err();
    assert_eq!(error, SendError::Redirect { upstream: "old".to_owned(), reason: "more than 5 times".to_owned() });
    let unfollowed = origin.send(Ask { follow: false, ..get("/away") }).await.unwrap();
    assert_eq!(unfollowed.status(), StatusCode::TEMPORARY_REDIRECT);
    // Without leave, an address inside is not gone to.
    let strict = open(&with_user(remote(&[fake.address]), "ada")).await;
    let error = strict.send(get("/away")).await.map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("private_addresses"), "{error}");
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn what_fails_is_tried_again_elsewhere_and_then_told() {
    let (sick, asked) = server(|_, _| answer(503, &[], "")).await;
    let (well, _) = server(|_, _| answer(200, &[], "well")).await;
    let mut config = remote(&[sick.address, well.address, nobody().await]);
    config.transport.retries = 3;
    let origin = open(&config).await;
    for _ in 0..4 {
        assert_eq!(text(origin.send(get("/v2/a")).await.unwrap().into_body()).await, "well");
    }
    let mut config = remote(&[sick.address]);
    config.transport.retries = 2;
    asked.lock().unwrap().clear();
    let error = open(&config).await.send(get("/v2/b")).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, SendError::Failing { status: 503, retry_after: None, .. }), "{error:?}");
    assert_eq!(asked_for(&asked, "/v2/b").len(), 3);
}

#[tokio::test]
async fn retry_after_is_waited_for_by_all_who_can_and_told_to_those_who_cannot() {
    let (fake, asked) = server(|_, times| match times {
        1 => answer(429, &[(RETRY_AFTER, "1".to_owned())], ""),
        _ => answer(200, &[], ""),
    })
    .await;
    let origin = open(&remote(&[fake.address])).await;
    let began = Instant::now();
    assert_eq!(origin.send(get("/v2/a")).await.unwrap().status(), StatusCode::OK);
    assert!(began.elapsed() >= Duration::from_secs(1));
    let (fake, asked_long) = server(|_, _| answer(429, &[(RETRY_AFTER, "3600".to_owned())], "")).await;
    let mut config = remote(&[fake.address]);
    config.transport.retries = 5;
    let origin = open(&config).await;
    for _ in 0..3 {
        let error = origin.send(get("/v2/a")).await.map(|_| ()).unwrap_err();
        assert!(error.retry_after().is_some_and(|after| after > Duration::from_secs(3000)), "{error:?}");
    }
    assert_eq!(asked_for(&asked_long, "/v2/a").len(), 1, "it is not asked while it wants to be left alone");
    assert_eq!(asked_for(&asked, "/v2/a").len(), 2);
}

#[tokio::test]
async fn a_refusal_did_not_say_how_much_is_left() {
    let (fake, _) = server(|request, _| {
        let limit = |left: &str| {
            let named =
                [("ratelimit-limit", "100;w=21600".to_owned()), ("ratelimit-remaining", format!("{left};w=21600"))];
            named.map(|(name, value)| (http::HeaderName::from_static(name), value))
        };
        match request.uri().path() {
            "/v2/none" => answer(429, &limit("0"), ""),
            _ => answer(200, &limit("97"), ""),
        }
    })
    .await;
    let mut config = remote(&[fake.address]);
    config.transport.retries = 0;
    let metrics = Metrics::new();
    let origin = Origin::open(&config, "dockgate-test", Duration::from_secs(2), &metrics).await.unwrap();
    for (path, is_answered, left) in [("/v2/a", true, 97), ("/v2/none", false, 0)] {
        assert_eq!(origin.send(get(path)).await.is_ok(), is_answered);
        let page = metrics.encode().unwrap();
        for line in [
            "dockgate_upstream_rate_limit{upstream=\"old\"} 100".to_owned(),
            format!("dockgate_upstream_rate_limit_remaining{{upstream=\"old\"}} {left}"),
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in {page}");
        }
    }
}

#[tokio::test]
async fn there_is_an_answer_or_an_error_by_the_deadline() {
    let hung = Fake::raw("", true).await;
    let origin = open(&remote(&[hung.address])).await;
    let began = Instant::now();
    let soon = Ask { deadline: began + Duration::from_millis(200), ..get("/v2/a") };
    let error = origin.send(soon).await.map(|_| ()).unwrap_err();
    assert_eq!(error, SendError::Deadline { upstream: "old".to_owned() });
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_single_peer_that_is_gone_cost_every_request_all_tries() {
    let mut config = remote(&[nobody().await]);
    config.transport.retries = 2;
    let metrics = Metrics::new();
    let origin = Origin::open(&config, "dockgate-test", Duration::from_secs(2), &metrics).await.unwrap();
    let failed = || {
        let page = metrics.encode().unwrap();
        let is_it = |line: &&str| line.starts_with("dockgate_upstream_requests_total{") && line.contains("failed");
        page.lines()
            .find(is_it)
            .and_then(|line| line.rsplit(' ').next())
            .map_or(0, |count| count.parse::<u64>().unwrap())
    };
    for expected in [3, 4, 5] {
        assert!(matches!(origin.send(get("/v2/a")).await, Err(SendError::Unreachable { .. })));
        assert_eq!(failed(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_is_taken_for_gone_for_a_moment_and_only_if_there_is_no_other() {
    let (one, two) = ("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
    let (alone, several) = (open(&remote(&[one])).await, open(&remote(&[one, two])).await);
    let only = Some(several.peers().all()[0].authority().clone());
    for origin in [&alone, &several] {
        assert!(!origin.peers.is_gone(None));
        origin.peers.all()[0].set_aside(true);
    }
    assert!(alone.peers.is_gone(None) && !several.peers.is_gone(None) && several.peers.is_gone(only.as_ref()));
    tokio::time::advance(Duration::from_secs(5)).await;
    assert!(!alone.peers.is_gone(None) && !several.peers.is_gone(only.as_ref()), "it may be back");
    alone.peers.all()[0].set_aside(true);
    alone.peers.all()[0].set_aside(false);
    assert!(!alone.peers.is_gone(None), "it is back");
}

#[tokio::test]
async fn an_upload_stays_with_its_peer_and_says_who_we_are() {
    let (one, _) = server(|_, _| answer(202, &[], "")).await;
    let (two, asked) = server(|request, _| {
        let said = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(said("via").as_deref(), Some("1.1 dockgate-test"));
        assert!(said("user-agent").is_some_and(|agent| agent.starts_with("dockgate/")));
        answer(202, &[], "")
    })
    .await;
    let origin = open(&remote(&[one.address, two.address])).await;
    for _ in 0..4 {
        let peer = Some(two.address.to_string().parse().unwrap());
        let patch = Ask { method: Method::PATCH, body: full("x"), peer, follow: false, ..get("/v2/u") };
        assert_eq!(origin.send(patch).await.unwrap().status(), StatusCode::ACCEPTED);
    }
    assert_eq!(asked_for(&asked, "/v2/u").len(), 4);
}

mod bodies;
mod tls;
