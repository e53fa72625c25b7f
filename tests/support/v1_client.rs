//! A v1 client: what docker 1.5 asks a registry, in its order. What docker would not accept is a panic that says so.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dockgate::oci::Digest;
use futures_util::stream;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::v1_tls::handshake;

/// What docker 1.3 to 1.5 calls itself when it pings.
pub(crate) const PING_AGENT: &str = "Go 1.1 package http";
/// What docker 1.5.0 calls itself otherwise.
pub(crate) const AGENT: &str = "docker/1.5.0 go/go1.4.1 git-commit/a8a31ef kernel/3.16.0 os/linux arch/amd64";

/// What docker 1.3.0 calls itself.
const AGENT_1_3: &str = "docker/1.3.0 go/go1.3.3 git-commit/c78088f kernel/3.16.0 os/linux arch/amd64";

/// An empty user with an empty password.
const LOGGED_OUT: &str = "Basic Og==";
/// Longer than anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pieces in which a layer is sent.
const PIECE: usize = 16 * 1024;

pub(crate) type Body = BoxBody<Bytes, std::io::Error>;

/// One exchange as the client saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// What broke the body off, if it is not whole.
    pub(crate) broken: Option<String>,
}

/// An image to push: its id, its JSON, its layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) id: String,
    pub(crate) json: Bytes,
    pub(crate) layer: Bytes,
}

/// How to reach a registry, and as whom.
#[derive(Debug, Clone)]
pub(crate) struct V1Client {
    /// `host:port`, as in an image's name.
    host: String,
    /// The certificate authority to trust; none: plain HTTP.
    ca: Option<PathBuf>,
    basic: Option<String>,
    /// What a repository call gave us for the calls after it.
    token: Option<String>,
    /// Whether the registry said that it is its own index.
    standalone: bool,
    agent: &'static str,
    /// Whether it asks for a v2 registry before a v1 one.
    asks_v2: bool,
    seen: Vec<Seen>,
}

impl Image {
    /// An image as docker 1.5 made them: the id is any 64 hexadecimal digits; `parent` is the image below.
    pub(crate) fn new(seed: &str, parent: Option<&Image>, layer: impl Into<Bytes>) -> Self {
        let id = hex(&Digest::sha256(seed.as_bytes()));
        let parent = parent.map(|image| format!("\"parent\":\"{}\",", image.id)).unwrap_or_default();
        // Odd spacing and an unusual key order: the bytes are what is hashed.
        let json = format!(
            "{{\"id\":\"{id}\", {parent}\"created\":\"2015-02-10T19:10:00.0Z\",\"docker_version\":\"1.5.0\" ,\
             \"architecture\":\"amd64\",\"os\":\"linux\",\"Size\":1,\"comment\":\"{seed} caf\u{e9}\"}}"
        );
        Self { id, json: json.into(), layer: layer.into() }
    }

    /// sha256 of the raw JSON, a newline, and the layer as it was sent.
    pub(crate) fn payload_checksum(&self) -> String {
        format!("sha256:{}", hex(&Digest::sha256(&[&self.json[..], b"\n", &self.layer[..]].concat())))
    }
}

impl V1Client {
    /// Over plain HTTP.
    pub(crate) fn plain(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            ca: None,
            basic: None,
            token: None,
            standalone: true,
            agent: AGENT,
            asks_v2: true,
            seen: Vec::new(),
        }
    }

    /// Over TLS, trusting the authorities in the PEM file `ca`.
    pub(crate) fn tls(host: &str, ca: &Path) -> Self {
        Self { ca: Some(ca.to_owned()), ..Self::plain(host) }
    }

    /// With a user's name and password.
    #[must_use]
    pub(crate) fn with_basic(mut self, user: &str, password: &str) -> Self {
        self.basic = Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))));
        self
    }

    /// As docker 1.3, which knows nothing of v2.
    #[must_use]
    pub(crate) fn docker_1_3(self) -> Self {
        Self { agent: AGENT_1_3, asks_v2: false, ..self }
    }

    /// Everything that was asked and answered so far.
    pub(crate) fn seen(&self) -> &[Seen] {
        &self.seen
    }

    /// Asks who is there, as docker 1.5 does before everything else: a v2 registry first, then a v1 one.
    /// Panics when it would be taken for a v2 registry.
    pub(crate) async fn ping(&mut self) {
        if self.asks_v2 {
            self.ping_v2().await;
        }
        for _ in 0..if self.ca.is_some() { 2 } else { 1 } {
            let v1 = self.call(Method::GET, "/v1/_ping", PING_AGENT, &[], nothing()).await;
            // The status means nothing to docker; no header means that it is its own index.
            let standalone =
                v1.headers.get("x-docker-registry-standalone").map(|value| value.as_bytes().to_ascii_lowercase());
            self.standalone = standalone.is_none_or(|value| value == b"true" || value == b"1");
        }
    }

    async fn ping_v2(&mut self) {
        let v2 = self.call(Method::GET, "/v2/", PING_AGENT, &[], nothing()).await;
        assert!(
            v2.status != StatusCode::OK && v2.status != StatusCode::UNAUTHORIZED
                || !v2.headers.contains_key("docker-distribution-api-version"),
            "docker 1.5 would go on with v2: GET /v2/ gave {} with the version header",
            v2.status
        );
    }

    /// `docker login`: 201 makes an account; a 401, or a 400 with one exact text, makes it ask whether the password is right.
    pub(crate) async fn login(&mut self, user: &str, password: &str) -> StatusCode {
        self.ping().await;
        let body = format!(
            "{{\"username\":\"{user}\",\"password\":\"{password}\",\"email\":\"a@b.c\",\"serveraddress\":\"{}\"}}",
            self.host
        );
        let json = [(header::CONTENT_TYPE, "application/json; charset=utf-8".to_owned())];
        let made = self.call(Method::POST, "/v1/users/", PING_AGENT, &json, full(body)).await;
        let exists =
            made.status == StatusCode::BAD_REQUEST && &made.body[..] == b"\"Username or email already exists\"";
        if !exists && made.status != StatusCode::UNAUTHORIZED {
            return made.status;
        }
        let basic = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        self.call(Method::GET, "/v1/users/", self.agent, &[(header::AUTHORIZATION, basic)], nothing()).await.status
    }

    /// `docker push HOST/REPOSITORY:TAG`; the images base first.
    pub(crate) async fn push(&mut self, repository: &str, tag: &str, images: &[Image]) {
        self.ping().await;
        let list: Vec<_> =
            images.iter().map(|image| format!("{{\"id\":\"{}\",\"Tag\":\"{tag}\"}}", image.id)).collect();
        self.repository(Method::PUT, &format!("/v1/repositories/{repository}/"), &format!("[{}]", list.join(",")))
            .await;
        for image in images {
            let known = self.session(Method::GET, &format!("/v1/images/{}/json", image.id), &[], nothing()).await;
            if known.status != StatusCode::OK {
                self.push_image(image).await;
            }
        }
        let top = &images.last().expect("an image to push").id;
        let tagged = self
            .session(Method::PUT, &format!("/v1/repositories/{repository}/tags/{tag}"), &[], full(format!("\"{top}\"")))
            .await;
        tagged.expect(&[StatusCode::OK, StatusCode::CREATED]);
        let done = self.images_done(repository).await;
        done.expect(&[StatusCode::NO_CONTENT]);
    }

    async fn push_image(&mut self, image: &Image) {
        let path = format!("/v1/images/{}", image.id);
        let json = [(header::CONTENT_TYPE, "application/json".to_owned())];
        let put = self.session(Method::PUT, &format!("{path}/json"), &json, full(image.json.clone())).await;
        if put.status == StatusCode::CONFLICT || &put.body[..] == b"{\"error\": \"Image already exists\"}" {
            return;
        }
        put.expect(&[StatusCode::OK]);
        self.session(Method::PUT, &format!("{path}/layer"), &[], chunked(&image.layer)).await.expect(&[StatusCode::OK]);
        let sum = [(HeaderName::from_static("x-docker-checksum-payload"), image.payload_checksum())];
        self.session(Method::PUT, &format!("{path}/checksum"), &sum, nothing()).await.expect(&[StatusCode::OK]);
    }

    /// A tag for an image that is there: what `docker push` does of one.
    pub(crate) async fn tag(&mut self, repository: &str, tag: &str, id: &str) -> Seen {
        let path = format!("/v1/repositories/{repository}/tags/{tag}");
        self.session(Method::PUT, &path, &[], full(format!("\"{id}\""))).await
    }

    /// Deletes a repository, or a part of it.
    pub(crate) async fn delete(&mut self, repository: &str, part: &str) -> Seen {
        let path = format!("/v1/repositories/{repository}/{part}");
        self.call(Method::DELETE, &path, self.agent, &self.index_credentials(), nothing()).await
    }

    /// The call before a push, which says which images it is of, or before a pull; what it gives is said from then on.
    pub(crate) async fn open(&mut self, method: Method, repository: &str, ids: &[&str]) -> Seen {
        let mut headers = self.index_credentials();
        headers.push((header::CONTENT_TYPE, "application/json".to_owned()));
        let list: Vec<_> = ids.iter().map(|id| format!("{{\"id\":\"{id}\"}}")).collect();
        let put = method == Method::PUT;
        let body = if put { full(format!("[{}]", list.join(","))) } else { nothing() };
        let part = if put { "" } else { "images" };
        let answer =
            self.call(method, &format!("/v1/repositories/{repository}/{part}"), self.agent, &headers, body).await;
        let token = answer.headers.get("x-docker-token").map(|token| token.to_str().expect("a token").to_owned());
        self.token = token.or(self.token.take());
        answer
    }

    /// A call with the token that the last index call gave, or with the password where it is to be said each time.
    pub(crate) async fn ask(&mut self, method: Method, path: &str, body: impl Into<Bytes>) -> Seen {
        let json = [(header::CONTENT_TYPE, "application/json".to_owned())];
        self.session(method, path, &json, full(body)).await
    }

    async fn images_done(&mut self, repository: &str) -> Seen {
        let path = format!("/v1/repositories/{repository}/images");
        let mut headers = self.index_credentials();
        headers.push((HeaderName::from_static("x-docker-endpoints"), self.host.clone()));
        headers.push((header::CONTENT_TYPE, "application/json".to_owned()));
        self.call(Method::PUT, &path, self.agent, &headers, full("[]")).await
    }

    /// `docker pull HOST/REPOSITORY:TAG`: the images top first, as ancestry lists them.
    pub(crate) async fn pull(&mut self, repository: &str, tag: &str) -> Vec<Image> {
        self.ping().await;
        let list = self.repository(Method::GET, &format!("/v1/repositories/{repository}/images"), "").await;
        let listed: Vec<serde_json::Value> = list.json();
        let tags: serde_json::Value =
            self.session(Method::GET, &format!("/v1/repositories/{repository}/tags"), &[], nothing()).await.ok().json();
        let top =
            tags[tag].as_str().unwrap_or_else(|| panic!("tag {tag} is not among the tags of {repository}: {tags}"));
        assert!(listed.iter().any(|image| image["id"] == top), "image {top} is not among those of {repository}");
        let ancestry: Vec<String> =
            self.session(Method::GET, &format!("/v1/images/{top}/ancestry"), &[], nothing()).await.ok().json();
        assert_eq!(
            ancestry.first().map(String::as_str),
            Some(top),
            "the ancestry does not begin with the image itself"
        );
        let mut images = Vec::new();
        for id in ancestry {
            images.push(self.pull_image(&id).await);
        }
        images
    }

    async fn pull_image(&mut self, id: &str) -> Image {
        let json = self.session(Method::GET, &format!("/v1/images/{id}/json"), &[], nothing()).await.ok();
        let size = json.header("x-docker-size").parse::<usize>().expect("X-Docker-Size is not a number");
        let layer = self.session(Method::GET, &format!("/v1/images/{id}/layer"), &[], nothing()).await.ok().whole();
        assert_eq!(layer.body.len(), size, "the layer of {id} is not as long as X-Docker-Size says");
        let image = Image { id: id.to_owned(), json: json.body.clone(), layer: layer.body };
        assert_eq!(json.header("x-docker-checksum-payload"), image.payload_checksum(), "image {id} came back changed");
        image
    }

    /// Goes on with a layer of which `have` bytes arrived, as docker 1.5 does: `Range: bytes=HAVE-SIZE`, again while the
    /// connection breaks, until a clean end or a 416 with `Content-Length: 0`. Returns what was missing.
    pub(crate) async fn resume(&mut self, id: &str, have: usize, size: usize) -> Bytes {
        let path = format!("/v1/images/{id}/layer");
        let mut missing = Vec::new();
        for _attempt in 0..5 {
            let range = format!("bytes={}-{size}", have + missing.len());
            let part = self.session(Method::GET, &path, &[(header::RANGE, range)], nothing()).await;
            if part.status == StatusCode::RANGE_NOT_SATISFIABLE && have + missing.len() == size {
                assert_eq!(part.header("content-length"), "0", "docker 1.5 wants an empty 416 at the end of a layer");
                return missing.into();
            }
            assert_eq!(part.status, StatusCode::PARTIAL_CONTENT, "the server doesn't support byte ranges: {part:?}");
            missing.extend_from_slice(&part.body);
            if part.broken.is_none() {
                return missing.into();
            }
        }
        panic!("{path} broke off five times: {:?}", self.seen.last());
    }

    /// `docker search HOST/TERM`.
    pub(crate) async fn search(&mut self, term: &str) -> serde_json::Value {
        let headers = match (&self.basic, &self.ca) {
            (Some(basic), _) => vec![(header::AUTHORIZATION, basic.clone())],
            // Logged out, over https: an empty user with an empty password.
            (None, Some(_)) => vec![(header::AUTHORIZATION, LOGGED_OUT.to_owned())],
            (None, None) => Vec::new(),
        };
        self.call(Method::GET, &format!("/v1/search?q={term}"), self.agent, &headers, nothing()).await.ok().json()
    }

    /// A call to the index: with the password, and asking for a token.
    async fn repository(&mut self, method: Method, path: &str, body: &str) -> Seen {
        let mut headers = self.index_credentials();
        let body = if method == Method::GET {
            headers.retain(|(_, value)| self.says_basic_always() || value != LOGGED_OUT);
            nothing()
        } else {
            headers.push((header::CONTENT_TYPE, "application/json".to_owned()));
            full(body.to_owned())
        };
        let answer = self.call(method, path, self.agent, &headers, body).await;
        answer.expect(&[StatusCode::OK, StatusCode::CREATED]);
        self.token = Some(answer.header("x-docker-token").to_owned());
        let endpoints = answer.header("x-docker-endpoints");
        assert_eq!(endpoints, self.host, "docker 1.5 would go around {} from here on", self.host);
        answer
    }

    /// A call to the registry itself, with what the index call gave.
    async fn session(&mut self, method: Method, path: &str, headers: &[(HeaderName, String)], body: Body) -> Seen {
        let headers = [self.credentials().as_slice(), headers].concat();
        self.call(method, path, self.agent, &headers, body).await
    }

    /// The password, and the wish for a token. Docker 1.5 says an empty user's empty password where it has none.
    fn index_credentials(&self) -> Vec<(HeaderName, String)> {
        let basic = self.basic.clone().unwrap_or_else(|| LOGGED_OUT.to_owned());
        vec![(header::AUTHORIZATION, basic), (HeaderName::from_static("x-docker-token"), "true".to_owned())]
    }

    /// The password on every call over https with a registry that is its own index; else the token.
    fn credentials(&self) -> Vec<(HeaderName, String)> {
        let value = if self.says_basic_always() {
            Some(self.basic.clone().unwrap_or_else(|| LOGGED_OUT.to_owned()))
        } else {
            self.token.as_ref().map(|token| format!("Token {token}"))
        };
        value.map(|value| (header::AUTHORIZATION, value)).into_iter().collect()
    }

    const fn says_basic_always(&self) -> bool {
        self.ca.is_some() && self.standalone
    }

    /// One exchange, on a connection of its own, as docker 1.5 makes them all.
    pub(crate) async fn call(
        &mut self,
        method: Method,
        path: &str,
        agent: &str,
        headers: &[(HeaderName, String)],
        body: Body,
    ) -> Seen {
        let mut request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header(header::HOST, &self.host)
            .header(header::USER_AGENT, agent)
            .header(header::CONNECTION, "close");
        for (name, value) in headers {
            request = request.header(name, HeaderValue::from_str(value).expect("a header's value"));
        }
        let request = request.body(body).expect("a request");
        let exchange = async {
            let stream = TcpStream::connect(&self.host)
                .await
                .unwrap_or_else(|error| panic!("no connection to {}: {error}", self.host));
            stream.set_nodelay(true).expect("TCP_NODELAY");
            match &self.ca {
                None => send(stream, request).await,
                Some(ca) => send(handshake(stream, &self.host, ca).await, request).await,
            }
        };
        let exchange = tokio::time::timeout(PATIENCE, exchange).await;
        let (parts, body, broken) =
            exchange.unwrap_or_else(|_| panic!("{method} {path} took longer than {PATIENCE:?}"));
        let seen = Seen { method, path: path.to_owned(), status: parts.status, headers: parts.headers, body, broken };
        self.seen.push(seen.clone());
        seen
    }
}

impl Seen {
    /// A header's value, which docker cannot do without.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self
            .headers
            .get(name)
            .unwrap_or_else(|| panic!("no {name} in the answer to {} {}: {self:?}", self.method, self.path));
        value.to_str().unwrap_or_else(|_| panic!("{name} is no text in the answer to {} {}", self.method, self.path))
    }

    /// Panics unless the status is one of those that docker goes on with.
    pub(crate) fn expect(&self, statuses: &[StatusCode]) {
        assert!(
            statuses.contains(&self.status),
            "{} {} gave {}, docker 1.5 goes on only after {statuses:?}: {}",
            self.method,
            self.path,
            self.status,
            String::from_utf8_lossy(&self.body)
        );
    }

    fn ok(self) -> Self {
        self.expect(&[StatusCode::OK]);
        self
    }

    fn whole(self) -> Self {
        assert_eq!(self.broken, None, "{} {} broke off after {} bytes", self.method, self.path, self.body.len());
        self
    }

    fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("{} {} gave no such JSON ({error}): {:?}", self.method, self.path, self.body)
        })
    }
}

/// Sends over `stream` and reads the answer, up to where it breaks off.
async fn send<S>(stream: S, request: Request<Body>) -> (http::response::Parts, Bytes, Option<String>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let what = format!("{} {}", request.method(), request.uri());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("an HTTP/1.1 connection");
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.unwrap_or_else(|error| panic!("{what} was not answered: {error}"));
    let (parts, mut body) = answer.into_parts();
    let mut bytes = Vec::new();
    loop {
        match body.frame().await {
            None => return (parts, bytes.into(), None),
            Some(Ok(frame)) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Some(Err(error)) => return (parts, bytes.into(), Some(error.to_string())),
        }
    }
}

/// A request without a body.
pub(crate) fn nothing() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// A body of unknown length, in pieces: how docker sends layers.
fn chunked(bytes: &Bytes) -> Body {
    let pieces: Vec<_> = bytes.chunks(PIECE).map(|piece| Ok(Frame::data(bytes.slice_ref(piece)))).collect();
    BodyExt::boxed(StreamBody::new(stream::iter(pieces)))
}

fn hex(digest: &Digest) -> String {
    digest.to_string().trim_start_matches("sha256:").to_owned()
}
