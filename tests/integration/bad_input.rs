//! Everything that people get wrong: each has a message that says what to do, a status or exit code that fits, and loses
//! nothing.

mod disk;
mod requests;
mod start;

/// All of `words` must stand in the message.
#[track_caller]
fn says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
}
