//! Upstreams behind TLS: who sees our certificate, and which HTTP is spoken.

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use http::Version;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::config::ClientCertificate;

/// An authority, a server's certificate and a client's, in files.
struct Papers {
    directory: TempDir,
    authority: CertificateDer<'static>,
}

/// What a server saw of each request: its version, and whether a certificate was shown.
type Seen = Arc<Mutex<Vec<(Version, bool)>>>;

impl Papers {
    fn make() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let papers = Self { directory: tempfile::tempdir().unwrap(), authority: issuer.der().clone() };
        std::fs::write(papers.file("ca.crt"), issuer.pem()).unwrap();
        for (name, host) in [("server", "127.0.0.1"), ("client", "gateway.example")] {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
            std::fs::write(papers.file(&format!("{name}.crt")), certificate.pem()).unwrap();
            std::fs::write(papers.file(&format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        papers
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A server that asks for a certificate, or `demands` one.
    fn server(&self, demands: bool) -> ServerConfig {
        let read = |path: &Path| CertificateDer::pem_file_iter(path).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(self.file("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let verifier = if demands { verifier } else { verifier.allow_unauthenticated() }.build().unwrap();
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let chain = read(&self.file("server.crt"));
        let mut config = builder.with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }

    /// An upstream at this address that is given our certificate, or none.
    fn remote(&self, server: &Fake, shows: bool) -> Remote {
        let mut remote = remote(&[server.address]);
        let transport = &mut remote.transport;
        (transport.ca, transport.peers[0].https, transport.retries) = (Some(self.file("ca.crt")), true, 0);
        let pair = ClientCertificate { certificate: self.file("client.crt"), key: self.file("client.key") };
        transport.client_certificate = shows.then_some(pair);
        remote.private_addresses = vec!["127.0.0.0/8".parse().unwrap()];
        remote
    }
}

/// A server that answers `location`, if there is one, or 200.
async fn serve(config: ServerConfig, location: Option<String>) -> (Fake, Seen) {
    let (acceptor, seen) = (TlsAcceptor::from(Arc::new(config)), Seen::default());
    let log = Arc::clone(&seen);
    let fake = Fake::accept(move |stream| {
        let (acceptor, location, log) = (acceptor.clone(), location.clone(), Arc::clone(&log));
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let is_known = stream.get_ref().1.peer_certificates().is_some();
            let service = service_fn(move |request: Request<Incoming>| {
                log.lock().unwrap().push((request.version(), is_known));
                let response = match &location {
                    Some(location) => answer(307, &[(LOCATION, location.clone())], ""),
                    None => answer(200, &[], "bytes"),
                };
                std::future::ready(Ok::<_, Infallible>(response))
            });
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        }
    })
    .await;
    (fake, seen)
}

#[tokio::test]
async fn an_upstream_that_demands_a_certificate_is_shown_the_one_of_its_file() {
    let papers = Papers::make();
    let (fake, seen) = serve(papers.server(true), None).await;
    let error = open(&papers.remote(&fake, false)).await.send(get("/v2/a")).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, SendError::Unreachable { .. } | SendError::Broken { .. }), "{error:?}");
    assert!(seen.lock().unwrap().is_empty());
    let answer = open(&papers.remote(&fake, true)).await.send(get("/v2/a")).await.unwrap();
    assert_eq!(text(answer.into_body()).await, "bytes");
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn where_an_upstream_leads_to_nobody_sees_our_certificate() {
    let papers = Papers::make();
    let (elsewhere, seen_there) = serve(papers.server(false), None).await;
    let location = format!("https://{}/blob?signature=x", elsewhere.address);
    let (fake, seen) = serve(papers.server(false), Some(location)).await;
    let answer = open(&papers.remote(&fake, true)).await.send(get("/v2/a")).await.unwrap();
    assert_eq!(text(answer.into_body()).await, "bytes");
    assert!(seen.lock().unwrap().iter().all(|(_, is_known)| *is_known));
    assert!(matches!(seen_there.lock().unwrap()[..], [(_, false)]), "{seen_there:?}");
}

#[tokio::test]
async fn http2_is_spoken_where_it_is_offered_and_wanted() {
    let papers = Papers::make();
    for (wanted, offered, version) in
        [(true, true, Version::HTTP_2), (false, true, Version::HTTP_11), (true, false, Version::HTTP_11)]
    {
        let mut config = papers.server(false);
        config.alpn_protocols.retain(|name| offered || name != b"h2");
        let (fake, seen) = serve(config, None).await;
        let mut remote = papers.remote(&fake, false);
        remote.transport.http2 = wanted;
        let answer = open(&remote).await.send(get("/v2/a")).await.unwrap();
        assert_eq!(text(answer.into_body()).await, "bytes");
        assert_eq!(seen.lock().unwrap()[..], [(version, false)], "wanted {wanted}, offered {offered}");
    }
}
