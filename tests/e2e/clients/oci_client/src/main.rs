//! Pushes, pulls and lists with the crate oci-client: oci_client COMMAND REFERENCE [FILE…], with $OCI_USER, $OCI_PASSWORD and the
//! gateway's CA in $SSL_CERT_FILE. It has no word for deletion.

use std::env;
use std::error::Error;

use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, Config, ImageLayer};
use oci_client::manifest::{OciDescriptor, OciImageManifest};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};

const THING: &str = "application/vnd.example.thing";

#[tokio::main]
async fn main() {
    if let Err(error) = run().await {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    rustls::crypto::ring::default_provider().install_default().map_err(|_| "two providers of TLS")?;
    let mut arguments = env::args().skip(1);
    let command = arguments.next().ok_or("no command")?;
    let reference: Reference = arguments.next().ok_or("no reference")?.parse()?;
    let ca =
        Certificate { encoding: CertificateEncoding::Pem, data: tokio::fs::read(env::var("SSL_CERT_FILE")?).await? };
    let client = Client::try_from(ClientConfig {
        tls_certs_only: vec![ca],
        use_monolithic_push: command == "push-whole",
        ..ClientConfig::default()
    })?;
    let login = RegistryAuth::Basic(env::var("OCI_USER")?, env::var("OCI_PASSWORD")?);
    match command.as_str() {
        "push" | "push-whole" | "attach" => {
            let file = tokio::fs::read(arguments.next().ok_or("no file")?).await?;
            let layers = [ImageLayer::new(file, "application/octet-stream".to_owned(), None)];
            let config = Config::new(&b"{}"[..], THING.to_owned(), None);
            let mut manifest = OciImageManifest::build(&layers, &config, None);
            let mut target = reference.clone();
            if command == "attach" {
                let (body, digest) = client
                    .pull_manifest_raw(&reference, &login, &["application/vnd.oci.image.manifest.v1+json"])
                    .await?;
                manifest.artifact_type = Some(THING.to_owned());
                manifest.subject = Some(OciDescriptor {
                    media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
                    size: body.len().try_into()?,
                    digest,
                    ..OciDescriptor::default()
                });
                target = Reference::with_tag(
                    reference.registry().to_owned(),
                    reference.repository().to_owned(),
                    "attached".to_owned(),
                );
            }
            client.push(&target, &layers, config, &login, Some(manifest)).await?;
            println!("{}", client.fetch_manifest_digest(&target, &login).await?);
        }
        "pull" => {
            let pulled = client.pull(&reference, &login, vec!["application/octet-stream"]).await?;
            let layer = pulled.layers.first().ok_or("no layer")?;
            tokio::fs::write(arguments.next().ok_or("no file")?, &layer.data).await?;
            println!("{}", pulled.digest.ok_or("no digest")?);
        }
        "tags" => {
            let two = client.list_tags(&reference, &login, Some(2), None).await?.tags;
            let more = client.list_tags(&reference, &login, None, two.last().map(String::as_str)).await?.tags;
            println!("{}", [two, more].concat().join(" "));
        }
        "repositories" => println!("{}", client.catalog(&reference, &login, None, None).await?.repositories.join(" ")),
        "referrers" => {
            client.auth(&reference, &login, oci_client::RegistryOperation::Pull).await?;
            let digest = client.fetch_manifest_digest(&reference, &login).await?;
            for found in client.pull_referrers(&reference.clone_with_digest(digest), Some(THING)).await?.manifests {
                println!("{}", found.digest);
            }
        }
        _ => return Err(format!("no such command: {command}").into()),
    }
    Ok(())
}
