//! From the name by which a repository is asked for to who has it: the registry inside, or an upstream. Only what is
//! configured is ever found: whatever a caller writes, nobody else is asked.

mod error;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::access::RepositoryPattern;
use crate::config::{Authorization, Broken, Remote, Upstream};
use crate::oci::RepositoryName;

pub use error::NoName;

/// How a repository is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The name by which the caller called us, with its port if one was written.
    pub host: &'a str,
    /// `PREFIX`, if the path is `/PREFIX/v2/…`.
    pub path_prefix: Option<&'a RepositoryName>,
    /// The value of `?ns=`.
    pub namespace: Option<&'a str>,
    /// The repository; none is named by the ping, the catalog and the token.
    pub name: Option<&'a RepositoryName>,
}

/// Who has what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Who is asked.
    pub candidates: Candidates,
    /// What the answer's `OCI-Namespace` says: the value of `?ns=`, where it decided who is asked.
    pub namespace: Option<String>,
}

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Candidates {
    /// The registry inside; then, if it has no such repository, the upstream that answers dockerd's `registry-mirrors`.
    Hosted {
        /// The repository by its one name here, if one was named.
        name: Option<RepositoryName>,
        /// What the names of all that was asked for begin with: the host that `?ns=` named, where `registry.namespaces` has `*`.
        below: Option<RepositoryName>,
        /// Who is asked for what is only pulled and is not there.
        else_mirror: Option<RemoteName>,
    },
    /// An upstream, and nobody else.
    Remote {
        /// The upstream's name.
        upstream: Arc<str>,
        /// The repository, if one was named.
        name: Option<RemoteName>,
    },
}

/// A repository of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteName {
    /// The upstream's name.
    pub upstream: Arc<str>,
    /// The one name by which rules, logs and Locations know it here, whatever way it was asked for: `PREFIX/remote`; for
    /// the upstream that is `registry.default` without the prefix. No two repositories have the same, and who asks for it
    /// in any way gets this repository.
    pub canonical: RepositoryName,
    /// Its name at the upstream.
    pub remote: RepositoryName,
}

/// All names that are configured.
#[derive(Debug)]
pub struct Names {
    remotes: Vec<Known>,
    by_prefix: HashMap<String, usize>,
    by_host: HashMap<String, usize>,
    by_namespace: HashMap<String, usize>,
    /// The namespaces of the registry inside.
    own: HashSet<String>,
    /// An upstream whose file is not good, if there is one.
    broken: Option<Arc<str>>,
    /// The most parts that a prefix has.
    prefix_parts: usize,
    /// The upstream that answers names which no prefix claims; the registry inside does, if there is none.
    default: Option<usize>,
}

#[derive(Debug)]
struct Known {
    upstream: Arc<str>,
    prefix: RepositoryName,
    official: Option<RepositoryName>,
    docker_mirror: Vec<RepositoryPattern>,
    forwards: bool,
    has_host: bool,
    /// Its file is not good: nobody is asked.
    is_broken: bool,
}

impl Names {
    /// The names of `upstreams`. `default` is `registry.default`: `hosted`, or one of them.
    pub fn new(upstreams: &BTreeMap<String, Upstream>, default: &str) -> Self {
        let mut names = Self {
            remotes: Vec::new(),
            by_prefix: HashMap::new(),
            by_host: HashMap::new(),
            by_namespace: HashMap::new(),
            own: HashSet::new(),
            prefix_parts: 0,
            broken: None,
            default: None,
        };
        for (name, upstream) in upstreams {
            if let Upstream::Remote(remote) = upstream {
                names.add(name, remote, default);
            }
        }
        names
    }

    /// `registry.namespaces`: what of other registries' names is the registry inside's.
    #[must_use]
    pub fn and_own(mut self, namespaces: &[String]) -> Self {
        self.own.extend(namespaces.iter().map(|namespace| namespace.to_ascii_lowercase()));
        self
    }

    fn add(&mut self, name: &str, remote: &Remote, default: &str) {
        let index = self.remotes.len();
        if name == default {
            self.default = Some(index);
        }
        let prefix = remote.prefix.as_str();
        self.prefix_parts = self.prefix_parts.max(prefix.split('/').count());
        self.by_prefix.insert(prefix.into(), index);
        self.by_host.extend(remote.hosts.iter().map(|host| (host_name(host).to_ascii_lowercase(), index)));
        self.by_namespace.extend(remote.namespaces.iter().map(|namespace| (namespace.to_ascii_lowercase(), index)));
        self.remotes.push(Known {
            upstream: name.into(),
            prefix: remote.prefix.clone(),
            official: remote.official.clone(),
            docker_mirror: remote.docker_mirror.clone(),
            forwards: remote.authorization == Authorization::Forward,
            has_host: !remote.hosts.is_empty(),
            is_broken: false,
        });
    }

    /// The names of upstreams whose files are not good are kept for them, as far as no other has them: they are nobody else's.
    #[must_use]
    pub fn and_broken(mut self, broken: &BTreeMap<String, Broken>) -> Self {
        self.broken = broken.keys().next().map(|name| name.as_str().into());
        for (name, broken) in broken {
            let Some(prefix) = broken.prefix.clone() else { continue };
            let index = self.remotes.len();
            self.prefix_parts = self.prefix_parts.max(prefix.as_str().split('/').count());
            self.by_prefix.entry(prefix.as_str().into()).or_insert(index);
            for host in &broken.hosts {
                self.by_host.entry(host_name(host).to_ascii_lowercase()).or_insert(index);
            }
            for namespace in &broken.namespaces {
                self.by_namespace.entry(namespace.to_ascii_lowercase()).or_insert(index);
            }
            self.remotes.push(Known {
                upstream: name.as_str().into(),
                prefix,
                official: None,
                docker_mirror: Vec::new(),
                forwards: false,
                has_host: false,
                is_broken: true,
            });
        }
        self
    }

    /// Finds who has what is asked for.
    ///
    /// # Errors
    ///
    /// Nobody has it; the reason says what to write.
    pub fn find(&self, asked: &Asked<'_>) -> Result<Found, NoName> {
        let claimed = asked.namespace.and_then(|namespace| self.claimed(namespace));
        // Our own name says nothing.
        let says = |namespace: &&str| claimed.is_some() || !is_same_host(namespace, asked.host);
        let asked = &Asked { namespace: asked.namespace.filter(says), ..*asked };
        let Some(index) = self.stated(asked, claimed)? else { return self.inside(asked) };
        let known = self.good(index)?;
        let namespace = asked.namespace.filter(|_| claimed == Some(index)).map(str::to_owned);
        if let Some((name, mirror)) = asked.name.zip(self.mirror_by_namespace(asked, index)) {
            let candidates = Candidates::Hosted { name: Some(name.clone()), below: None, else_mirror: Some(mirror) };
            return Ok(Found { candidates, namespace });
        }
        // BuildKit, and containerd with override_path, write the prefix into the path and send ns too; and a Location of ours
        // has the prefix, by whatever host it is followed.
        let remote = asked.name.map(|name| self.remote(index, rest(name, &known.prefix).unwrap_or(name.as_str())));
        let candidates = Candidates::Remote { upstream: Arc::clone(&known.upstream), name: remote.transpose()? };
        Ok(Found { candidates, namespace })
    }

    /// Whether a caller's password is sent on by who calls us `host`: at a name of an upstream that asks for it; and if one
    /// that asks for it has no name of its own, or is the default, at all names that are not an upstream's.
    pub fn forwards(&self, host: &str) -> bool {
        match self.by_host.get(&host_name(host).to_ascii_lowercase()) {
            Some(index) => self.remotes[*index].forwards,
            None => {
                let is_here = |(index, known): (usize, &Known)| !known.has_host || self.default == Some(index);
                self.remotes.iter().enumerate().any(|known| known.1.forwards && is_here(known))
            }
        }
    }

    /// The name that `remote`, a repository of `upstream`, has here; none, if it cannot be asked for.
    pub fn canonical(&self, upstream: &str, remote: &RepositoryName) -> Option<RepositoryName> {
        let index = self.remotes.iter().position(|known| *known.upstream == *upstream)?;
        self.remote(index, remote.as_str()).ok().filter(|name| name.remote == *remote).map(|name| name.canonical)
    }

    /// The upstream that `ns` means: by one of its namespaces, or by a name that it has here.
    fn claimed(&self, namespace: &str) -> Option<usize> {
        let namespace = namespace.to_ascii_lowercase();
        self.by_namespace.get(&namespace).or_else(|| self.by_host.get(host_name(&namespace))).copied()
    }

    /// The upstream that is stated beside the repository's name: by the path, the host or `?ns=`.
    fn stated(&self, asked: &Asked<'_>, claimed: Option<usize>) -> Result<Option<usize>, NoName> {
        let by_path = match asked.path_prefix {
            Some(prefix) => {
                let index = self.by_prefix.get(prefix.as_str());
                Some(*index.ok_or_else(|| NoName::Prefix(prefix.clone()))?)
            }
            None if self.by_host.is_empty() => None,
            None => self.by_host.get(&host_name(asked.host).to_ascii_lowercase()).copied(),
        };
        let Some(namespace) = asked.namespace else { return Ok(by_path) };
        let is_of_another = |index| claimed.map_or_else(|| self.is_own(namespace), |other| other != index);
        match by_path {
            // A client that sends all it pulls to one mirror would get one registry's image under another's name.
            Some(index) if is_of_another(index) => {
                let upstream = Arc::clone(&self.remotes[index].upstream);
                Err(NoName::OtherNamespace { namespace: namespace.into(), upstream })
            }
            _ => Ok(by_path.or(claimed)),
        }
    }

    /// Whether a namespace is listed as one of the registry inside.
    fn is_own(&self, namespace: &str) -> bool {
        self.own.contains(&namespace.to_ascii_lowercase())
    }

    /// No upstream is stated.
    fn inside(&self, asked: &Asked<'_>) -> Result<Found, NoName> {
        let Some(namespace) = asked.namespace else {
            return Ok(Found { candidates: self.by_name(asked.name)?, namespace: None });
        };
        let candidates = match self.is_own(namespace) {
            true => self.by_name(asked.name)?,
            false => self.below(namespace, asked.name)?,
        };
        Ok(match candidates {
            // What another registry has under this name is not what was asked for.
            Candidates::Hosted { name, below, .. } => Found {
                candidates: Candidates::Hosted { name, below, else_mirror: None },
                namespace: Some(namespace.into()),
            },
            candidates => Found { candidates, namespace: None },
        })
    }

    /// What the registry inside has of another host: no two hosts have the same names.
    fn below(&self, namespace: &str, name: Option<&RepositoryName>) -> Result<Candidates, NoName> {
        let unknown = || NoName::Namespace(namespace.into());
        let host = part_of(namespace).filter(|_| self.own.contains("*")).ok_or_else(unknown)?;
        // What it has may not be known: its namespaces are nobody else's.
        if let Some(broken) = &self.broken {
            return Err(NoName::Broken(Arc::clone(broken)));
        }
        // BuildKit writes the host into the path and sends ns too; and a Location of ours has it.
        let name = name.map(|name| join(&host, rest(name, &host).unwrap_or(name.as_str()))).transpose()?;
        // By that name it is an upstream's, which does not have the namespace.
        if name.as_ref().is_some_and(|name| self.prefix_of(name.as_str()).is_some()) {
            return Err(unknown());
        }
        Ok(Candidates::Hosted { name, below: Some(host), else_mirror: None })
    }

    /// Nothing but the name says who has it.
    fn by_name(&self, name: Option<&RepositoryName>) -> Result<Candidates, NoName> {
        let index = match name.map(|name| self.prefix_of(name.as_str())) {
            Some(Some((index, None))) => return Err(NoName::PrefixAlone(self.remotes[index].prefix.clone())),
            Some(Some((index, Some(rest)))) => return self.candidate(index, Some(rest)),
            Some(None) | None => self.default,
        };
        match index {
            Some(index) => self.candidate(index, name.map(RepositoryName::as_str)),
            None => {
                let else_mirror = name.and_then(|name| self.mirror(name));
                Ok(Candidates::Hosted { name: name.cloned(), below: None, else_mirror })
            }
        }
    }

    fn candidate(&self, index: usize, remote: Option<&str>) -> Result<Candidates, NoName> {
        let upstream = Arc::clone(&self.good(index)?.upstream);
        let name = remote.map(|remote| self.remote(index, remote)).transpose()?;
        Ok(Candidates::Remote { upstream, name })
    }

    fn good(&self, index: usize) -> Result<&Known, NoName> {
        let known = &self.remotes[index];
        if known.is_broken { Err(NoName::Broken(Arc::clone(&known.upstream))) } else { Ok(known) }
    }

    /// The longest prefix of `name` that is configured, and what follows it, if anything does.
    fn prefix_of<'a>(&self, name: &'a str) -> Option<(usize, Option<&'a str>)> {
        let ends = name.match_indices('/').map(|(at, _)| at).chain([name.len()]);
        let mut longest = None;
        for end in ends.take(self.prefix_parts) {
            if let Some(index) = self.by_prefix.get(&name[..end]) {
                longest = Some((*index, name.get(end + 1..)));
            }
        }
        longest
    }

    /// The upstream that answers dockerd's `registry-mirrors` for `name`. Whether it does is for the name as it was asked for.
    fn mirror(&self, name: &RepositoryName) -> Option<RemoteName> {
        let is_mirrored = |known: &Known| known.docker_mirror.iter().any(|pattern| pattern.matches(name));
        let index = self.remotes.iter().position(is_mirrored)?;
        self.remote(index, name.as_str()).ok()
    }

    /// The upstream that answers dockerd's `registry-mirrors` where `?ns=` alone states it: dockerd sends that from 29 on, and
    /// gets what it got before. The built-in registry goes first only where plain names are its own.
    fn mirror_by_namespace(&self, asked: &Asked<'_>, index: usize) -> Option<RemoteName> {
        let is_by_namespace = self.default.is_none()
            && asked.path_prefix.is_none()
            && asked.namespace.is_some()
            && !self.by_host.contains_key(&host_name(asked.host).to_ascii_lowercase());
        let name = asked.name.filter(|name| is_by_namespace && self.prefix_of(name.as_str()).is_none())?;
        self.mirror(name).filter(|mirror| mirror.upstream == self.remotes[index].upstream)
    }

    /// A repository of an upstream by the name that the upstream is asked for.
    fn remote(&self, index: usize, name: &str) -> Result<RemoteName, NoName> {
        let known = &self.remotes[index];
        let remote = match &known.official {
            Some(official) if !name.contains('/') => join(official, name)?,
            _ => parse(name)?,
        };
        let canonical = if self.default == Some(index) && self.prefix_of(remote.as_str()).is_none() {
            remote.clone()
        } else {
            join(&known.prefix, remote.as_str())?
        };
        match self.prefix_of(canonical.as_str()) {
            // "a/b" claims what is below "b" at the upstream with the prefix "a": a rule for the one is no rule for the other.
            Some((owner, _)) if owner != index => {
                Err(NoName::Claimed { name: canonical, upstream: Arc::clone(&self.remotes[owner].upstream) })
            }
            _ => Ok(RemoteName { upstream: Arc::clone(&known.upstream), canonical, remote }),
        }
    }
}

fn join(prefix: &RepositoryName, rest: &str) -> Result<RepositoryName, NoName> {
    parse(&format!("{prefix}/{rest}"))
}

/// Parts of names, joined, are a name unless they are too long.
fn parse(name: &str) -> Result<RepositoryName, NoName> {
    name.parse().map_err(NoName::Name)
}

/// What follows `prefix/`.
fn rest<'a>(name: &'a RepositoryName, prefix: &RepositoryName) -> Option<&'a str> {
    name.as_str().strip_prefix(prefix.as_str())?.strip_prefix('/')
}

/// The part of a name that stands for a host: the host itself, in lower case; with a port `HOST_PORT`. No two hosts have the
/// same, for a host with `_` has none; nor has an address of IPv6.
fn part_of(host: &str) -> Option<RepositoryName> {
    let host = host.to_ascii_lowercase();
    let name = host_name(&host);
    let port = host[name.len()..].strip_prefix(':');
    let part = port.map_or_else(|| name.to_owned(), |port| format!("{name}_{port}"));
    part.parse().ok().filter(|_| !name.contains('_'))
}

/// A host without its port.
fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

/// Whether both are one registry in the words of a client, who may leave out the port of HTTP or HTTPS. Another port is
/// another registry.
fn is_same_host(a: &str, b: &str) -> bool {
    let bare = |host: &str| [":443", ":80"].iter().find_map(|port| host.strip_suffix(port)).unwrap_or(host).len();
    a[..bare(a)].eq_ignore_ascii_case(&b[..bare(b)])
}

#[cfg(test)]
mod tests;
