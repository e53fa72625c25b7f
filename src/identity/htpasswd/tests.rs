use super::*;
use proptest::prelude::*;

const HASH: &str = "$2y$04$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ34012";

fn hash(version: &str, cost: u32) -> String {
    format!("${version}${cost:02}${}", &HASH[7..])
}

fn problem(line: &[u8]) -> Option<Problem> {
    match Line::parse(line) {
        Line::Broken { problem, .. } => Some(problem),
        _ => None,
    }
}

#[test]
fn users_comments_and_blank_lines_are_read() {
    let file = format!(
        "\u{feff}alice:{}\r\n# bob:x\n\n  \t\n  # indented\nbob b:{}  \n\u{e9}:{}",
        hash("2a", 4),
        hash("2b", 14),
        hash("2y", 14)
    );
    let users = Users::parse(file.as_bytes());
    let mut names: Vec<_> = users.hashes.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["alice", "bob b", "\u{e9}"]);
    assert_eq!(users.hashes["bob b"].as_str(), hash("2b", 14));
    assert_eq!(users.costliest, 14);
    assert_eq!(Users::parse(b""), Users::none());
}

#[test]
fn lines_of_every_other_kind_are_named() {
    let long = "x".repeat(256) + ":" + HASH;
    for (line, expected) in [
        ("a:$apr1$salt$hash", Problem::NotBcrypt(Scheme::Apr1)),
        ("a:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", Problem::NotBcrypt(Scheme::Sha)),
        ("a:{SSHA}abc", Problem::NotBcrypt(Scheme::Sha)),
        ("a:$6$salt$hash", Problem::NotBcrypt(Scheme::ModularCrypt)),
        ("a:$1$salt$hash", Problem::NotBcrypt(Scheme::ModularCrypt)),
        (&format!("a:{}", hash("2x", 4)), Problem::NotBcrypt(Scheme::ModularCrypt)),
        ("a:rqXexS6ZhobKA", Problem::NotBcrypt(Scheme::Crypt)),
        ("a:secret", Problem::NotBcrypt(Scheme::Plain)),
        ("a:", Problem::NotBcrypt(Scheme::Plain)),
        ("secret", Problem::NoColon),
        (&format!(":{HASH}"), Problem::BadName(BadName::Empty)),
        (&format!("a\u{1}:{HASH}"), Problem::BadName(BadName::Character)),
        (&format!("a\u{85}:{HASH}"), Problem::BadName(BadName::Character)),
        (&format!(" a:{HASH}"), Problem::BadName(BadName::Character)),
        (&format!("a :{HASH}"), Problem::BadName(BadName::Character)),
        (&long, Problem::BadName(BadName::TooLong)),
        (&format!("a:{}", hash("2y", 3)), Problem::Cost { cost: 3 }),
        (&format!("a:{}", hash("2y", 15)), Problem::Cost { cost: 15 }),
        (&format!("a:{}", hash("2y", 31)), Problem::Cost { cost: 31 }),
        (&format!("a:{}", hash("2y", 99)), Problem::Cost { cost: 99 }),
        (&format!("a:{HASH}5"), Problem::MalformedHash),
        (&format!("a:{HASH}:more"), Problem::MalformedHash),
        (&format!("a:{}", &HASH[..59]), Problem::MalformedHash),
        (&format!("a:{}", HASH.replace("$04$", "$+4$")), Problem::MalformedHash),
        (&format!("a:{}", HASH.replace('Z', "!")), Problem::MalformedHash),
        ("a:$2y$", Problem::MalformedHash),
        ("a:$2y$1é", Problem::MalformedHash),
    ] {
        assert_eq!(problem(line.as_bytes()), Some(expected), "{line}");
    }
    assert_eq!(problem(b"\xff:x"), Some(Problem::NotUtf8));
}

#[test]
fn all_problems_are_told_with_their_lines_and_no_secret() {
    let file = format!("a:{HASH}\nb:canary\n#\ncanary\na:{HASH}\n\u{1b}[31m:x\n");
    let users = Users::parse(file.as_bytes());
    assert!(users.hashes.is_empty());
    let problems = users.bad_lines.problems;
    let told: Vec<_> = problems.iter().map(|p| (p.line, p.user.as_deref(), p.problem)).collect();
    assert_eq!(
        told,
        [
            (1, Some("a"), Problem::Duplicate { line: 5 }),
            (2, Some("b"), Problem::NotBcrypt(Scheme::Plain)),
            (4, None, Problem::NoColon),
            (5, Some("a"), Problem::Duplicate { line: 1 }),
            (6, Some("\u{1b}[31m"), Problem::BadName(BadName::Character)),
        ]
    );
    let text: String = problems.iter().map(ToString::to_string).collect();
    assert!(text.contains("line 2 (user \"b\")") && text.contains("dockgate user add"), "{text}");
    assert!(!text.contains("canary") && !text.contains('\u{1b}'), "{text}");
    assert!(!format!("{problems:?}").contains("canary"));
}

/// One line that was not right kept everybody out.
#[test]
fn a_bad_line_keeps_only_its_own_name_out() {
    for bad in ["bob:$apr1$x$y", "bob:plain", "bob:", "bob", " bob :x", ":x", "secret", "\u{feff}bob:x"] {
        let users = Users::parse(format!("ada:{HASH}\n{bad}\neve:{HASH}\n").as_bytes());
        let mut names: Vec<_> = users.hashes.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["ada", "eve"], "{bad}");
        assert_eq!(users.bad_lines.problems.iter().map(|problem| problem.line).collect::<Vec<_>>(), [2], "{bad}");
    }
    let users = Users::parse(&[b"ada:", HASH.as_bytes(), b"\nbob:\xff\n"].concat());
    assert_eq!((users.hashes.len(), users.bad_lines.problems.len()), (1, 1));
}

/// The password that was to be replaced lived on.
#[test]
fn a_name_that_stands_twice_is_out_whatever_the_lines_are() {
    let good = format!("ada:{HASH}");
    for other in [&*good, "ada:plain", "ada:", "ada", " ada:x", "\u{feff}ada:x"] {
        for file in [format!("{good}\n#\n{other}\neve:{HASH}"), format!("eve:{HASH}\n{other}\n{good}\n{other}")] {
            let users = Users::parse(file.as_bytes());
            assert_eq!(users.hashes.keys().collect::<Vec<_>>(), ["eve"], "{file}");
            assert_eq!(users.bad_lines.problems.len(), file.matches("ada").count(), "{file}");
        }
    }
    assert_eq!(Users::parse(format!("{good}\n#ada:{HASH}\nada2:{HASH}").as_bytes()).hashes.len(), 2);
}

#[test]
fn the_costliest_hash_is_known() {
    let file = format!("a:{}\nb:{}\nc:{}\n", hash("2y", 4), hash("2y", 5), hash("2y", 4));
    assert_eq!(Users::parse(file.as_bytes()).costliest, 5);
    assert_eq!(Users::none().costliest, 10);
    let out = format!("a:{}\nb:{}\nb:x", hash("2y", 4), hash("2y", 14));
    assert_eq!(Users::parse(out.as_bytes()).costliest, 4);
    assert_eq!(Users::parse(b"a:x").costliest, 10);
}

#[test]
fn a_hash_is_not_shown() {
    let users = Users::parse(format!("a:{HASH}").as_bytes());
    assert!(!format!("{users:?}").contains("abcdefgh"));
}

#[test]
fn lines_that_apaches_htpasswd_wrote_are_taken() {
    for line in [
        "alice:$2y$04$a2uFuywTDC8uJSEdCrCn5uS9OjmPOUHxr63S4M046qrR3VkE1a.l.",
        "alice:$2y$05$O.JTQ2.6/rC2tufSdxxrBuD/E2caTu90sIogCgUaJOxzWEOpF1mcO",
    ] {
        let users = Users::parse(line.as_bytes());
        assert!(bcrypt::verify("pa:ss \u{e9}", users.hashes["alice"].as_str()).unwrap(), "{line}");
        assert!(!bcrypt::verify("pa:ss e", users.hashes["alice"].as_str()).unwrap(), "{line}");
    }
}

#[test]
fn made_hashes_are_lines_that_parse() {
    let made = PasswordHash::make("secret", 4).unwrap();
    assert_eq!(PasswordHash::parse(made.as_str()), Ok(made.clone()));
    assert!(bcrypt::verify("secret", made.as_str()).unwrap());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(file: Vec<u8>) {
        let _ = Users::parse(&file);
    }

    #[test]
    fn anything_near_a_line_is_read_or_refused(file in "([a:\\$2yb#0-9 \r\n\u{e9}]|\\$2y\\$04\\$|[./A-Za-z0-9]{53}){0,40}") {
        let _ = Users::parse(file.as_bytes());
    }

    #[test]
    fn what_is_taken_can_be_sent_as_basic_and_verified(name in "\\PC{1,20}", tail in "[./A-Za-z0-9]{53}") {
        for (name, hash) in &Users::parse(format!("{name}:$2y$04${tail}").as_bytes()).hashes {
            prop_assert!(!name.contains(':') && check_name(name).is_ok());
            prop_assert!(bcrypt::verify("x", hash.as_str()).is_ok());
        }
    }
}
