use crate::identity::PROBLEMS_TOLD_MAX;

use super::*;
use std::os::unix::fs::FileTypeExt;

const LINE: &str = "a:$2y$04$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ34012\n";

fn later() -> SystemTime {
    SystemTime::now() + SETTLED_AFTER * 10
}

fn users(look: Result<Option<Users>, OpenError>) -> usize {
    look.unwrap().unwrap().hashes.len()
}

#[test]
fn a_change_that_leaves_the_stamp_alone_is_seen_while_the_file_is_new() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("htpasswd");
    std::fs::write(&path, LINE).unwrap();
    let mut source = Source::new(path.clone());
    assert_eq!(users(source.look(SystemTime::now())), 1);
    assert_eq!(source.look(SystemTime::now()), Ok(None));
    // The same size, the same file, and what the stamp says of the time made equal.
    std::fs::write(&path, LINE.replacen("a:", "b:", 1)).unwrap();
    let stamp = Stamp::of(&std::fs::metadata(&path).unwrap());
    source.seen.as_mut().unwrap().stamp = Ok(Some(stamp));
    assert!(source.look(SystemTime::now()).unwrap().unwrap().hashes.contains_key("b"));
    // Read once more when it has settled, then no more.
    assert_eq!(source.look(later()), Ok(None));
    assert!(source.seen.as_ref().unwrap().settled);
    assert_eq!(source.look(later()), Ok(None));
}

#[test]
fn another_file_in_its_place_is_seen_when_it_has_settled() {
    let directory = tempfile::tempdir().unwrap();
    let (path, new) = (directory.path().join("htpasswd"), directory.path().join("new"));
    std::fs::write(&path, LINE).unwrap();
    let mut source = Source::new(path.clone());
    assert_eq!(users(source.look(later())), 1);
    assert_eq!(source.look(later()), Ok(None));
    std::fs::write(&new, LINE.replacen("a:", "b:", 1)).unwrap();
    std::fs::rename(&new, &path).unwrap();
    assert!(source.look(later()).unwrap().unwrap().hashes.contains_key("b"));
}

#[test]
fn no_file_is_no_users_until_there_is_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("htpasswd");
    let mut source = Source::new(path.clone());
    assert_eq!(users(source.look(later())), 0);
    assert_eq!(source.look(later()), Ok(None));
    std::fs::write(&path, LINE).unwrap();
    assert_eq!(users(source.look(later())), 1);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(users(source.look(later())), 0);
}

#[test]
fn what_is_not_a_file_or_too_large_is_told_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(std::fs::metadata(&path).unwrap().file_type().is_fifo());
    let mut source = Source::new(path.clone());
    assert_eq!(source.look(later()), Err(OpenError::NotAFile { path: path.clone() }));
    assert_eq!(source.look(later()), Ok(None));
    std::fs::remove_file(&path).unwrap();
    let large = File::create(&path).unwrap();
    large.set_len(HTPASSWD_BYTES_MAX + 1).unwrap();
    assert_eq!(source.look(later()), Err(OpenError::TooLarge { path: path.clone() }));
    assert_eq!(source.look(later()), Ok(None));
    std::fs::write(&path, LINE).unwrap();
    assert_eq!(users(source.look(later())), 1);
}

#[test]
fn many_bad_lines_are_told_in_part() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("htpasswd");
    std::fs::write(&path, "x\n".repeat(PROBLEMS_TOLD_MAX + 5)).unwrap();
    let mut source = Source::new(path.clone());
    let told = source.look(SystemTime::now()).unwrap().unwrap().bad_lines.told(&path);
    assert_eq!(told.len(), PROBLEMS_TOLD_MAX + 1);
    assert!(told[0].contains("/htpasswd:1: it has no colon") && told[PROBLEMS_TOLD_MAX].ends_with("and 5 more"));
    assert_eq!(source.look(SystemTime::now()), Ok(None));
    std::fs::write(&path, "x\n".repeat(PROBLEMS_TOLD_MAX + 5)).unwrap();
    assert_eq!(source.look(SystemTime::now()), Ok(None), "the same content");
}
