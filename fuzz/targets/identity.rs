//! What callers show, and the lines of an htpasswd file: read the same however often, and never printed.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dockgate::identity::{COSTS, Credentials, UserFile, UserFileError};
use libfuzzer_sys::fuzz_target;

static FILE: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("dockgate-fuzz-{}.htpasswd", std::process::id())));

fuzz_target!(|bytes: &[u8]| {
    match bytes.split_first() {
        Some((b'h', lines)) => htpasswd(lines),
        Some((b'b', text)) => basic(text),
        Some((_, header)) => authorization(header),
        None => {}
    }
});

fn authorization(header: &[u8]) {
    match Credentials::parse(Some(header)) {
        Ok(Credentials::Bearer(token)) => {
            let shown = format!("{:?}", Credentials::Bearer(token.clone()));
            assert_eq!(shown, "Bearer(…)");
            assert!(token.bytes().all(|b| b.is_ascii_graphic()));
        }
        Ok(Credentials::Basic { user, password }) => {
            assert!(!user.contains(':') && !user.contains(char::is_control));
            assert!(!password.expose().contains(char::is_control));
        }
        Ok(Credentials::Token(token)) => {
            assert_eq!(format!("{:?}", Credentials::Token(token)), "Token(…)");
        }
        Ok(Credentials::Other(scheme)) => assert!(!scheme.is_empty() && scheme != "basic" && scheme != "bearer"),
        Ok(Credentials::None) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A name and a password survive the way through a header, and the password is not in what is printed.
fn basic(text: &[u8]) {
    let header = format!("Basic {}", STANDARD.encode(text));
    match Credentials::parse(Some(header.as_bytes())) {
        Ok(Credentials::Basic { user, password }) => {
            assert_eq!(format!("{user}:{}", password.expose()).as_bytes(), text);
            let shown = format!("{:?}", Credentials::Basic { user: String::new(), password });
            assert_eq!(shown, r#"Basic { user: "", .. }"#);
        }
        Ok(Credentials::None) => assert_eq!(text, b":"),
        Ok(other) => panic!("Basic was read as {other:?}"),
        Err(_) => {
            let text = std::str::from_utf8(text);
            assert!(!text.is_ok_and(|text| text.contains(':') && !text.contains(char::is_control)));
        }
    }
}

fn htpasswd(lines: &[u8]) {
    std::fs::write(&*FILE, lines).expect("the temporary directory takes a file");
    match UserFile::new(&*FILE).list() {
        Ok(listing) => {
            for user in &listing.users {
                assert!(COSTS.contains(&user.cost) && user.line > 0);
                assert!(!user.name.is_empty() && !user.name.contains(':') && !user.name.contains(char::is_control));
            }
            for problem in &listing.bad_lines.problems {
                let text = problem.to_string();
                assert!(!text.contains(char::is_control), "{text:?}");
            }
        }
        Err(UserFileError::TooLarge) => {}
        Err(error) => panic!("{error}"),
    }
}
