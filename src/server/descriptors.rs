//! How many descriptors (sockets and files) the process may have, and how many of them connections may take.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::admin::DESCRIPTORS_MAX;

/// Kept back for what runs whoever connects: listeners, the database, the log, and the admin side.
const OWN: u64 = 128 + DESCRIPTORS_MAX as u64;
/// With fewer than this nothing can be served.
pub const LEAST: u64 = 64;

/// Raises the soft limit to the hard one, which any process may (setrlimit(2)); how many descriptors there may be then.
pub fn raise() -> u64 {
    let before = getrlimit(Resource::Nofile);
    // Where it is refused, the soft limit stays as it was.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: before.maximum, maximum: before.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many descriptors there may be once the soft limit is raised.
pub fn available() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// How many connections that is enough for: one descriptor in four is for files of blobs and for upstreams. Readers of one blob
/// share its file.
pub fn connections(descriptors: u64) -> usize {
    let own = OWN.min(descriptors / 2);
    usize::try_from((descriptors - own) / 4 * 3).unwrap_or(usize::MAX).max(1)
}

/// What to tell an operator whose system allows fewer than [`LEAST`].
pub fn too_few(descriptors: u64) -> String {
    format!(
        "the system lets the program open {descriptors} files, and it needs at least {LEAST}; raise that limit (LimitNOFILE= of \
         systemd, --ulimit nofile= of docker, ulimit -Hn)"
    )
}

/// What to tell an operator whose `limits.connections` is more than that.
pub fn shortage(connections: usize, descriptors: u64) -> Option<String> {
    let enough = self::connections(descriptors);
    (connections > enough).then(|| {
        format!(
            "limits.connections: {connections}, but the system lets the program open {descriptors} files, which is enough for \
             {enough} connections; no more are taken. Raise that limit (LimitNOFILE= of systemd, --ulimit nofile= of docker, \
             ulimit -Hn), or lower limits.connections"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_of_four_descriptors_are_for_connections() {
        assert_eq!(connections(1_024), 558);
        assert_eq!(connections(1_048_576), 786_222);
        assert_eq!(connections(64), 24);
        assert_eq!(connections(0), 1);
    }

    #[test]
    fn what_cannot_be_had_is_told_with_what_to_do() {
        assert_eq!(shortage(558, 1_024), None);
        let text = shortage(10_000, 1_024).unwrap();
        assert!(text.contains("558 connections") && text.contains("LimitNOFILE"), "{text}");
    }
}
