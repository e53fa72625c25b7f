use std::os::unix::fs::PermissionsExt as _;

use super::*;

const NOW: OffsetDateTime = time::macros::datetime!(2030-06-01 12:00 UTC);

fn names(names: &[&str], addresses: &[&str]) -> Vec<Name> {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
    wanted(&names, &addresses).unwrap()
}

fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect()
}

#[test]
fn the_first_start_makes_all_and_the_second_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let certs = directory.path().join("deep/certs");
    let made = ensure(&certs, &["Registry.Example".into()], &["192.0.2.7".parse().unwrap()]).unwrap();
    assert!(made.new_authority);
    assert_eq!(made.renewed, Some(Renewal::Missing));
    let before = contents(&certs);
    let files: Vec<_> = before.iter().map(|(file, _)| file.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(files, ["ca.crt", "ca.key", "server.crt", "server.key"]);
    for (file, _) in &before {
        let mode = fs::metadata(file).unwrap().permissions().mode() & 0o777;
        assert!(mode == if file.extension().unwrap() == "key" { 0o600 } else { 0o644 & mode }, "{file:?} {mode:o}");
    }
    let again = ensure(&certs, &["registry.example".into()], &["192.0.2.7".parse().unwrap()]).unwrap();
    assert_eq!((again.new_authority, again.renewed), (false, None));
    assert_eq!(contents(&certs), before);
}

#[test]
fn the_certificate_names_what_it_should_for_as_long_as_it_should() {
    let directory = tempfile::tempdir().unwrap();
    let wanted = names(&["build.example", "build"], &["192.0.2.7", "2001:db8::7", "127.0.0.1"]);
    let made = ensure_at(directory.path(), &wanted, NOW).unwrap();
    let read = |file: &Path| tls::read_certificates(file).unwrap();
    let (ca, server) = (read(&made.authority), read(&made.certificate));
    assert_eq!((ca.len(), server.len()), (1, 1), "a root is not sent");
    let (ca, server) = (X509Certificate::from_der(&ca[0]).unwrap().1, X509Certificate::from_der(&server[0]).unwrap().1);
    assert_eq!(names_of(&server), wanted);
    assert_eq!(wanted.len(), 7, "no name twice");
    let life = |certificate: &X509Certificate<'_>| {
        let (from, to) = (certificate.validity().not_before, certificate.validity().not_after);
        assert!(from.to_datetime() < NOW);
        (to.to_datetime() - from.to_datetime()).whole_days()
    };
    assert_eq!((life(&server), life(&ca)), (365, 3651));
    assert!(ca.is_ca() && !server.is_ca());
    server.verify_signature(Some(ca.public_key())).unwrap();
    ca.verify_signature(None).unwrap();
}

#[test]
fn a_certificate_is_renewed_when_it_is_time_and_the_authority_never() {
    let directory = tempfile::tempdir().unwrap();
    let certs = directory.path();
    let wanted = names(&["build"], &["192.0.2.7"]);
    ensure_at(certs, &wanted, NOW).unwrap();
    let authority = fs::read(certs.join("ca.crt")).unwrap();
    let renewed = |wanted: &[Name], now| ensure_at(certs, wanted, now).unwrap().renewed;

    assert_eq!(renewed(&wanted, NOW + CERTIFICATE_LIFETIME - RENEW_BEFORE), None);
    let later = NOW + CERTIFICATE_LIFETIME - RENEW_BEFORE + Duration::seconds(1);
    assert_eq!(renewed(&wanted, later), Some(Renewal::Ending));
    assert_eq!(renewed(&wanted, later), None);
    assert_eq!(renewed(&names(&["build"], &[]), later), None, "an address that went away");
    assert_eq!(renewed(&names(&["build"], &["192.0.2.8"]), later), Some(Renewal::NameMissing));
    assert_eq!(renewed(&names(&["built"], &["192.0.2.8"]), later), Some(Renewal::NameMissing));

    fs::copy(certs.join("ca.key"), certs.join("server.key")).unwrap();
    assert_eq!(renewed(&names(&[], &[]), later), Some(Renewal::Unusable));
    fs::write(certs.join("server.crt"), "").unwrap();
    assert_eq!(renewed(&names(&[], &[]), later), Some(Renewal::Unusable));
    fs::remove_file(certs.join("server.key")).unwrap();
    assert_eq!(renewed(&names(&[], &[]), later), Some(Renewal::Missing));
    let other = tempfile::tempdir().unwrap();
    ensure_at(other.path(), &wanted, NOW).unwrap();
    for file in ["server.crt", "server.key"] {
        fs::copy(other.path().join(file), certs.join(file)).unwrap();
    }
    assert_eq!(renewed(&wanted, NOW), Some(Renewal::OtherAuthority));
    assert_eq!(fs::read(certs.join("ca.crt")).unwrap(), authority);
}

#[test]
fn a_certificate_that_lives_longer_than_a_year_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let certs = directory.path();
    let wanted = names(&["build"], &[]);
    let made = ensure_at(certs, &wanted, NOW).unwrap();
    let authority = tls::read_certificates(&made.authority).unwrap();
    let signing = KeyPair::from_pem(&fs::read_to_string(certs.join("ca.key")).unwrap()).unwrap();
    let issuer = Issuer::from_ca_cert_der(&authority[0], signing).unwrap();
    let key = KeyPair::from_pem(&fs::read_to_string(&made.key).unwrap()).unwrap();
    for (days, renewed) in [(366, None), (367, Some(Renewal::TooLong))] {
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (NOW, NOW + Duration::days(days));
        params.subject_alt_names = wanted.iter().map(alternative_name).collect::<Result<_, _>>().unwrap();
        fs::write(&made.certificate, params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        assert_eq!(ensure_at(certs, &wanted, NOW).unwrap().renewed, renewed, "{days}");
    }
    assert_eq!(ensure_at(certs, &wanted, NOW).unwrap().renewed, None);
}

#[test]
fn an_authority_of_the_same_name_is_still_another() {
    let directory = tempfile::tempdir().unwrap();
    let certs = directory.path();
    let made = ensure_at(certs, &names(&[], &[]), NOW).unwrap();
    let old = tls::read_certificates(&made.authority).unwrap();
    let (_, old) = X509Certificate::from_der(&old[0]).unwrap();
    let name = old.subject().iter_common_name().next().unwrap().as_str().unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name = common_name(name.to_owned());
    fs::write(&made.authority, params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(certs.join("ca.key"), key.serialize_pem()).unwrap();
    assert_eq!(ensure_at(certs, &names(&[], &[]), NOW).unwrap().renewed, Some(Renewal::OtherAuthority));
}

#[test]
fn a_certificate_does_not_outlive_its_authority() {
    let directory = tempfile::tempdir().unwrap();
    let wanted = names(&[], &[]);
    let made = ensure_at(directory.path(), &wanted, NOW).unwrap();
    let late = NOW + AUTHORITY_LIFETIME - Duration::days(100);
    assert_eq!(ensure_at(directory.path(), &wanted, late).unwrap().renewed, Some(Renewal::Ending));
    assert_eq!(tls::expiry(&made.certificate).unwrap(), tls::expiry(&made.authority).unwrap());
    let too_late = NOW + AUTHORITY_LIFETIME - Duration::days(10);
    let ended = CertificateError::AuthorityEnded { certificate: made.authority };
    assert_eq!(ensure_at(directory.path(), &wanted, too_late), Err(ended));
}

#[test]
fn an_authority_that_cannot_sign_is_told_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let certs = directory.path();
    let (authority, key) = (certs.join("ca.crt"), certs.join("ca.key"));
    let (few, more) = (names(&[], &[]), names(&["build"], &[]));
    ensure_at(certs, &few, NOW).unwrap();
    let right = fs::read(&key).unwrap();

    fs::remove_file(&key).unwrap();
    assert_eq!(ensure_at(certs, &few, NOW).unwrap().renewed, None, "its key may be kept elsewhere");
    assert_eq!(ensure_at(certs, &more, NOW), Err(CertificateError::NoAuthorityKey { key: key.clone() }));
    fs::copy(certs.join("server.key"), &key).unwrap();
    let bad = CertificateError::BadAuthority { certificate: authority.clone() };
    assert_eq!(ensure_at(certs, &more, NOW), Err(bad.clone()));
    fs::write(&key, right).unwrap();
    assert_eq!(ensure_at(certs, &more, NOW).unwrap().renewed, Some(Renewal::NameMissing));
    fs::write(&authority, "nonsense").unwrap();
    assert_eq!(ensure_at(certs, &more, NOW), Err(bad));
    assert_eq!(fs::read(&authority).unwrap(), b"nonsense");
}

#[test]
fn a_crash_between_the_files_is_mended() {
    let directory = tempfile::tempdir().unwrap();
    let certs = directory.path();
    ensure_at(certs, &names(&[], &[]), NOW).unwrap();
    for file in ["ca.crt", "server.crt", "server.key"] {
        fs::remove_file(certs.join(file)).unwrap();
    }
    fs::write(certs.join("ca.new"), "half").unwrap();
    let key = fs::read(certs.join("ca.key")).unwrap();
    assert!(ensure_at(certs, &names(&[], &[]), NOW).unwrap().new_authority);
    assert_eq!(fs::read(certs.join("ca.key")).unwrap(), key);
    assert_eq!(contents(certs).len(), 4);
}

#[test]
fn many_at_once_agree() {
    let directory = tempfile::tempdir().unwrap();
    let made: Vec<_> = std::thread::scope(|scope| {
        let start = || scope.spawn(|| ensure(directory.path(), &[], &[]).unwrap());
        let threads: Vec<_> = (0..4).map(|_| start()).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(made.iter().filter(|made| made.new_authority).count(), 1);
    assert_eq!(made.iter().filter(|made| made.renewed.is_some()).count(), 1);
}

#[test]
fn names_that_are_none_are_refused_and_too_many_are_cut() {
    let bad = CertificateError::BadName { name: "not a name".into() };
    assert_eq!(wanted(&["not a name".into()], &[]), Err(bad));
    let addresses: Vec<IpAddr> = (0..1000).map(|n| Ipv4Addr::from_bits(0x0a00_0000 + n).into()).collect();
    let wanted = wanted(&["build".into()], &addresses).unwrap();
    assert_eq!(wanted.len(), NAMES_MAX);
    assert!(wanted.contains(&Name::Dns("build".into())));
}

#[test]
fn this_machine_can_be_named() {
    let (names, addresses) = local_names();
    assert!(addresses.contains(&Ipv4Addr::LOCALHOST.into()), "{addresses:?}");
    assert!(wanted(&names, &addresses).is_ok(), "{names:?}");
}
