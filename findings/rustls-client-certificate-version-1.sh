#!/usr/bin/env bash
# A client certificate made by `openssl x509 -req` without an extension file is of X.509 version 1. Servers that
# speak TLS by OpenSSL or by Go take it; rustls refuses it, and the client only sees a TLS alert. Who moves a registry with
# client certificates from nginx to a server on rustls finds its clients locked out.
#
# Seen with rustls 0.23.46 (rustls-webpki 0.103), OpenSSL 3.0 and Go 1.26:
#   openssl: client.crt: OK
#   go: accepted
#   rustls: version 1: invalid peer certificate: Other(OtherError(UnsupportedCertVersion))
#   rustls: version 3: accepted
# Needs openssl, cargo and go; makes everything in a temporary folder. Fails if what is seen changes.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
openssl req -x509 "${key[@]}" -keyout ca.key -out ca.crt -subj /CN=ca -days 2 2>/dev/null
openssl req "${key[@]}" -keyout client.key -out client.csr -subj /CN=runner 2>/dev/null
openssl x509 -req -in client.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out client.crt -days 2 2>/dev/null
printf 'extendedKeyUsage = clientAuth\n' >extensions
openssl x509 -req -in client.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out client3.crt -days 2 -extfile extensions 2>/dev/null

mkdir -p src
cat >Cargo.toml <<'TOML'
[package]
name = "look"
version = "0.0.0"
edition = "2021"
[dependencies]
rustls = { version = "=0.23.46", default-features = false, features = ["std", "ring"] }
TOML
cat >src/main.rs <<'RUST'
use rustls::pki_types::{pem::PemObject, CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use std::sync::Arc;

fn main() {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file("ca.crt").unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    for (version, file) in [(1, "client.crt"), (3, "client3.crt")] {
        let certificate = CertificateDer::from_pem_file(file).unwrap();
        match verifier.verify_client_cert(&certificate, &[], UnixTime::now()) {
            Ok(_) => println!("rustls: version {version}: accepted"),
            Err(error) => println!("rustls: version {version}: {error}"),
        }
    }
}
RUST
mkdir go
cat >go/main.go <<'GO'
package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
)

func read(file string) *x509.Certificate {
	text, err := os.ReadFile(file)
	if err != nil {
		panic(err)
	}
	block, _ := pem.Decode(text)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		panic(err)
	}
	return certificate
}

func main() {
	roots := x509.NewCertPool()
	roots.AddCert(read("ca.crt"))
	options := x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := read("client.crt").Verify(options); err != nil {
		fmt.Println("go:", err)
		return
	}
	fmt.Println("go: accepted")
}
GO

{
  printf 'openssl: %s\n' "$(openssl verify -CAfile ca.crt -purpose sslclient client.crt)"
  go run go/main.go
  cargo run --quiet
} | tee seen

diff - seen <<'SEEN'
openssl: client.crt: OK
go: accepted
rustls: version 1: invalid peer certificate: Other(OtherError(UnsupportedCertVersion))
rustls: version 3: accepted
SEEN
