use crate::identity::{Problem, Scheme};

use super::*;
use tempfile::TempDir;

fn password(text: &str) -> Password {
    Password::new(text.into())
}

fn file(content: &str) -> (TempDir, PathBuf, UserFile) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("htpasswd");
    std::fs::write(&path, content).unwrap();
    let file = UserFile::new(&path);
    (directory, path, file)
}

fn content(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn a_first_user_makes_a_file_for_its_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new/htpasswd");
    let file = UserFile::new(&path);
    assert_eq!(file.list().unwrap(), Listing { users: vec![], bad_lines: BadLines::default() });
    assert!(matches!(file.remove("alice"), Err(UserFileError::NoSuchUser)));
    assert!(!path.exists());
    assert_eq!(file.add("alice", &password("secret"), 4).unwrap(), Added::New);
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    assert!(file.verify("alice", &password("secret")).unwrap());
    assert!(!file.verify("alice", &password("Secret")).unwrap());
    assert!(matches!(file.verify("bob", &password("secret")), Err(UserFileError::NoSuchUser)));
}

#[test]
fn all_other_lines_stay_as_they_are() {
    let before = "\u{feff}# team\r\nalice:$apr1$x$y\r\n\nbob:plain \ncarol:x\nalice:again\nlast";
    let (_directory, path, file) = file(before);
    std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    assert_eq!(file.add("alice", &password("secret"), 4).unwrap(), Added::Replaced);
    let after = content(&path);
    let line = after.lines().nth(1).unwrap();
    assert!(line.starts_with("alice:$2y$04$"), "{line}");
    assert_eq!(after, format!("\u{feff}# team\r\n{line}\n\nbob:plain \ncarol:x\nlast"));
    assert_eq!(mode(&path), 0o640);

    assert_eq!(file.add("dave", &password("secret"), 4).unwrap(), Added::New);
    assert!(content(&path).starts_with(&format!("{after}\ndave:$2y$04$")));
    file.remove("dave").unwrap();
    file.remove("carol").unwrap();
    assert_eq!(content(&path), format!("\u{feff}# team\r\n{line}\n\nbob:plain \nlast\n"));
    assert!(matches!(file.remove("carol"), Err(UserFileError::NoSuchUser)));
    let left: Vec<_> = path.parent().unwrap().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["htpasswd"]);
}

#[test]
fn a_first_line_behind_a_byte_order_mark_is_found() {
    let (_directory, path, file) = file("\u{feff}alice:x\nbob:y\n");
    assert!(matches!(file.verify("alice", &password("x")), Err(UserFileError::Line(LineProblem { line: 1, .. }))));
    file.remove("alice").unwrap();
    assert_eq!(content(&path), "bob:y\n");
}

#[test]
fn a_listing_has_users_and_problems_and_no_secrets() {
    let (_directory, _path, file) = file("# x\nalice:canary\n");
    file.add("bob", &password("canary"), 5).unwrap();
    let listing = file.list().unwrap();
    assert_eq!(listing.users, [UserLine { name: "bob".into(), cost: 5, line: 3 }]);
    assert_eq!(listing.bad_lines.problems.len(), 1);
    assert_eq!(listing.bad_lines.problems[0].problem, Problem::NotBcrypt(Scheme::Plain));
    let error = file.verify("alice", &password("canary")).unwrap_err();
    assert!(!format!("{listing:?} {error} {error:?}").contains("canary"));
}

#[test]
fn a_name_that_stands_twice_has_no_password_until_it_is_set_again() {
    let (_directory, path, file) = file("");
    file.add("ada", &password("old"), 4).unwrap();
    let old = content(&path);
    for other in [&*old, "ada\n", "ada:\n", " ada :x\n"] {
        std::fs::write(&path, format!("{old}{other}# ada\n")).unwrap();
        assert!(file.list().unwrap().users.is_empty());
        let refused = file.verify("ada", &password("old")).unwrap_err();
        assert!(
            matches!(
                &refused,
                UserFileError::Line(LineProblem { line: 1, problem: Problem::Duplicate { line: 2 }, .. })
            ),
            "{other}: {refused}"
        );
        let registered = file.write("ada", &password("new"), 4, Overwrite::Never);
        assert!(matches!(registered, Err(UserFileError::Exists)), "{registered:?}");
        assert_eq!(file.add("ada", &password("new"), 4).unwrap(), Added::Replaced);
        assert!(file.verify("ada", &password("new")).unwrap());
        assert_eq!((content(&path).lines().count(), file.list().unwrap().users.len()), (2, 1));
    }
}

#[test]
fn what_could_not_log_in_is_not_written() {
    let (_directory, path, file) = file("");
    for (name, expected) in
        [("", BadName::Empty), ("a:b", BadName::Character), ("a\nb", BadName::Character), ("#a", BadName::Character)]
    {
        let error = file.add(name, &password("secret"), 4).unwrap_err();
        assert!(matches!(error, UserFileError::Name(bad) if bad == expected), "{name:?}");
    }
    assert!(file.add(&"x".repeat(256), &password("secret"), 4).is_err());
    assert!(matches!(file.add("a", &password(""), 4), Err(UserFileError::EmptyPassword)));
    let long = file.add("a", &password(&"x".repeat(73)), 4).unwrap_err();
    assert!(matches!(long, UserFileError::PasswordTooLong) && long.to_string().contains("72"));
    assert!(matches!(file.add("a", &password("x\n"), 4), Err(UserFileError::PasswordCharacter)));
    for cost in [3, 15] {
        assert!(matches!(file.add("a", &password("x"), cost), Err(UserFileError::Cost)));
    }
    assert_eq!(content(&path), "");
    assert!(file.add("a", &password(&"x".repeat(72)), 4).is_ok());
    assert!(file.verify("a", &password(&"x".repeat(72))).unwrap());
    assert!(!file.verify("a", &password(&"x".repeat(73))).unwrap());
}

#[test]
fn changes_at_the_same_time_are_all_kept() {
    let (_directory, _path, file) = file("");
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let file = &file;
            scope.spawn(move || {
                for user in 0..5 {
                    file.add(&format!("user-{thread}-{user}"), &password("x"), 4).unwrap();
                }
                file.remove(&format!("user-{thread}-0")).unwrap();
            });
        }
    });
    let listing = file.list().unwrap();
    assert_eq!((listing.users.len(), listing.bad_lines), (32, BadLines::default()));
}

#[test]
fn a_symbolic_link_stays_one() {
    let (directory, path, _) = file("# kept\n");
    let link = directory.path().join("link");
    std::os::unix::fs::symlink("htpasswd", &link).unwrap();
    UserFile::new(&link).add("alice", &password("secret"), 4).unwrap();
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(content(&path).starts_with("# kept\nalice:"));
}

#[test]
fn what_is_no_file_or_too_large_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let here = UserFile::new(directory.path());
    assert!(matches!(here.list(), Err(UserFileError::NotAFile)));
    assert!(matches!(here.add("a", &password("x"), 4), Err(UserFileError::NotAFile)));
    let (_directory, path, file) = file("");
    let line = "#".repeat(1023) + "\n";
    std::fs::write(&path, line.repeat(usize::try_from(HTPASSWD_BYTES_MAX).unwrap() / 1024)).unwrap();
    assert!(matches!(file.add("a", &password("x"), 4), Err(UserFileError::TooLarge)));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), HTPASSWD_BYTES_MAX);
}
