//! Secrets: given as `KEY`, or as `KEY_file`, the file that holds them.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::errors::Problem;
use super::reader::{Fallback, Section};
use super::tree::read_text;

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// From the text itself.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one who has to send it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

const ALLOWED: &str = "a string that is not empty";

impl Section<'_> {
    /// A secret: the value of `key`, or what stands in the file that `key_file` names, without the newline at its end.
    pub(super) fn secret(&mut self, key: &'static str, key_file: &'static str) -> Option<Secret> {
        let given = self.take(key, "secret", &Fallback::None);
        let file = self.take(key_file, "path", &Fallback::None);
        match (given, file) {
            (Some(_), Some(node)) => {
                let text = format!("{} is given too; keep one of the two", self.report.end(&self.join(key)));
                self.report.error(node.place, &self.join(key_file), Problem::Conflict(text));
                None
            }
            (Some(node), None) => {
                let secret = node.value.as_text().filter(|text| !text.is_empty()).map(Secret::new);
                if secret.is_none() {
                    // What was found may be the secret in the wrong quotes.
                    let found = "something else".to_owned();
                    let problem = Problem::Value { found, allowed: ALLOWED.into(), nearest: None };
                    self.report.error(node.place, &self.join(key), problem);
                }
                secret
            }
            (None, Some(node)) => {
                let Some(path) = node.value.as_text().filter(|text| !text.is_empty()) else {
                    self.refuse(&node, &self.join(key_file), "a path", None);
                    return None;
                };
                let path = self.report.resolve(&PathBuf::from(path));
                self.report.note_file(&path);
                match read_secret(&path) {
                    Ok(secret) => Some(secret),
                    Err(reason) => {
                        let problem = Problem::Unreadable { file: Some(path.into()), reason };
                        self.report.error(node.place, &self.join(key_file), problem);
                        None
                    }
                }
            }
            (None, None) => None,
        }
    }
}

fn read_secret(path: &std::path::Path) -> Result<Secret, String> {
    let text = read_text(path)?;
    let text = text.strip_suffix('\n').map_or(&*text, |text| text.strip_suffix('\r').unwrap_or(text));
    if text.is_empty() { Err("it is empty".into()) } else { Ok(Secret::new(text)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        assert_eq!(format!("{:?}", Some(Secret::new("hunter2"))), "Some(…)");
        assert_eq!(Secret::new("hunter2").expose(), "hunter2");
    }

    #[test]
    fn only_the_newline_at_the_end_of_the_file_is_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("password");
        for (text, expected) in [
            ("a", Ok("a")),
            ("a\n", Ok("a")),
            ("a\r\n", Ok("a")),
            (" a \n\n", Ok(" a \n")),
            ("\n", Err(())),
            ("", Err(())),
        ] {
            std::fs::write(&file, text).unwrap();
            let secret = read_secret(&file);
            assert_eq!(secret.as_ref().map(Secret::expose).map_err(|_| ()), expected, "{text:?}");
        }
    }
}
