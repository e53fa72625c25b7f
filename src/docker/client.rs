//! What a `User-Agent` says about a client, as far as it decides which protocol the client speaks.

/// A registry client, as it calls itself. It opens no door: anyone can write any `User-Agent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Client {
    /// `docker/1.5.0 go/go1.4.1 …`
    Docker(Version),
    /// `Go 1.1 package http`: the ping of docker up to 1.5, built with Go before 1.5.
    OldGo,
    /// The `docker-registry-client-async` of Python.
    RegistryClientAsync,
    /// Everything else, and nothing at all.
    Other,
}

/// A docker engine's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
    /// Whether it ends in `-dev`: built between two releases.
    pub development: bool,
}

/// Which registry protocol a client expects under `/v2/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Generation {
    /// Only v1: it must find nothing under `/v2/`, so that it goes on to `/v1/`.
    V1,
    /// v2.
    V2,
}

/// Which docker engines a v1 registry is there for: they find nothing under `/v2/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LegacyClients {
    /// Docker 1.3 to 1.5, which knows v2 pings but not v2 registries as they became. Older ones never ask `/v2/`.
    #[default]
    Before1_6,
    /// Docker up to 1.9, too, whose manifests are all of schema 1.
    Before1_10,
}

impl Client {
    /// Reads a `User-Agent`. Never fails: what is not understood is [`Client::Other`].
    pub fn parse(user_agent: &[u8]) -> Self {
        if user_agent.starts_with(b"Go ") {
            return Self::OldGo;
        }
        if user_agent.starts_with(b"docker-registry-client-async/") {
            return Self::RegistryClientAsync;
        }
        let version = user_agent.strip_prefix(b"docker/").and_then(Version::parse);
        version.map_or(Self::Other, Self::Docker)
    }

    /// Whether it goes where a `Location` says only if that names scheme and host: docker's first v2 client, up to 1.7.
    /// And docker-registry-client-async does (seen with 1.0.3).
    pub const fn needs_absolute_location(self) -> bool {
        matches!(self, Self::Docker(Version { major: 1, minor: 5..=7, .. }) | Self::RegistryClientAsync)
    }

    /// What it expects under `/v2/`, where `legacy` are sent to a v1 registry.
    pub const fn generation(self, legacy: LegacyClients) -> Generation {
        match (self, legacy) {
            (Self::OldGo, _) => Generation::V1,
            (Self::Docker(Version { major: 1, minor: 3 | 4, .. }), _) => Generation::V1,
            (Self::Docker(Version { major: 1, minor: 5, development: false }), _) => Generation::V1,
            (Self::Docker(Version { major: 1, minor: 5..=9, .. }), LegacyClients::Before1_10) => Generation::V1,
            (Self::Docker(_) | Self::RegistryClientAsync | Self::Other, _) => Generation::V2,
        }
    }
}

impl Version {
    /// Reads `MAJOR.MINOR` and what follows, up to the first space.
    fn parse(text: &[u8]) -> Option<Self> {
        let word = text.split(|b| *b == b' ').next()?;
        let (major, rest) = number(word)?;
        let (minor, rest) = number(rest.strip_prefix(b".")?)?;
        match rest.first() {
            None | Some(b'.' | b'-' | b'+') => Some(Self { major, minor, development: rest.ends_with(b"-dev") }),
            Some(_) => None,
        }
    }
}

/// The number that `text` begins with, and what follows it.
fn number(text: &[u8]) -> Option<(u32, &[u8])> {
    let end = text.iter().take_while(|b| b.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(end);
    let value = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn generation(user_agent: &str) -> Generation {
        Client::parse(user_agent.as_bytes()).generation(LegacyClients::default())
    }

    #[test]
    fn old_clients_are_sent_to_v1() {
        for old in [
            "Go 1.1 package http",
            "docker/1.3.0 go/go1.3.3 git-commit/c78088f kernel/3.16.0 os/linux arch/amd64",
            "docker/1.3.2-dev",
            "docker/1.4.1 go/go1.3.3",
            "docker/1.5.0 go/go1.4.1 git-commit/a8a31ef kernel/3.16.0 os/linux arch/amd64",
            "docker/1.5",
        ] {
            assert_eq!(generation(old), Generation::V1, "{old}");
        }
    }

    #[test]
    fn all_others_go_on() {
        for new in [
            "",
            "docker",
            "docker/",
            "docker/1",
            "docker/1.2.0",
            "docker/1.5.0-dev",
            "docker/1.5.1-dev go/go1.4.1",
            "docker/1.6.0 go/go1.4.2",
            "docker/1.30.0",
            "docker/1.35",
            "docker/11.5.0",
            "docker/28.2.2 go/go1.24 UpstreamClient(Docker-Client/28.2.2 \\(linux\\))",
            "docker/99999999999999999999.3",
            "Go-http-client/1.1",
            "containerd/1.6.20~ds1",
            "containers/5.23.1 (github.com/containers/image)",
            "skopeo/1.9.3",
            "Mozilla/5.0 docker/1.5.0",
        ] {
            assert_eq!(generation(new), Generation::V2, "{new}");
        }
    }

    #[test]
    fn those_of_schema_1_can_be_sent_to_v1_too() {
        let generation = |text: &str| Client::parse(text.as_bytes()).generation(LegacyClients::Before1_10);
        for old in
            ["Go 1.1 package http", "docker/1.3.0", "docker/1.5.0-dev", "docker/1.6.2 go/go1.4.2", "docker/1.9.1"]
        {
            assert_eq!(generation(old), Generation::V1, "{old}");
        }
        for new in ["", "docker/1.10.0", "docker/1.90.0", "docker/17.6.0", "docker/28.2.2", "Go-http-client/1.1"] {
            assert_eq!(generation(new), Generation::V2, "{new}");
        }
    }

    #[test]
    fn the_first_v2_clients_need_a_whole_url() {
        let needs = |user_agent: &str| Client::parse(user_agent.as_bytes()).needs_absolute_location();
        for old in [
            "docker/1.6.0 go/go1.4.2",
            "docker/1.6.2",
            "docker/1.7.1 go/go1.4.2",
            "docker/1.5.0-dev",
            "docker-registry-client-async/1.0.3",
        ] {
            assert!(needs(old), "{old}");
        }
        for new in
            ["", "docker/1.8.0 go/go1.4.2", "docker/1.60.0", "docker/28.2.2", "docker/6.7.0", "containers/5.23.1"]
        {
            assert!(!needs(new), "{new}");
        }
    }

    proptest! {
        #[test]
        fn only_three_minors_are_old(major in 0u32..40, minor in 0u32..40, patch in 0u32..20, tail in "( .*)?") {
            let old = major == 1 && (3..=5).contains(&minor);
            let expected = if old { Generation::V1 } else { Generation::V2 };
            prop_assert_eq!(generation(&format!("docker/{major}.{minor}.{patch}{tail}")), expected);
        }

        #[test]
        fn nothing_makes_it_panic(bytes: Vec<u8>) {
            let _ = Client::parse(&bytes).generation(LegacyClients::Before1_10);
        }
    }
}
