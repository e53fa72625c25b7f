//! Why nobody has a name.

use std::fmt;
use std::sync::Arc;

use crate::oci::{NameError, RepositoryName};

/// Why nobody has what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoName {
    /// No upstream has the prefix that stands before `/v2/`.
    Prefix(RepositoryName),
    /// No upstream has the namespace.
    Namespace(String),
    /// The path or the host states an upstream, and the namespace belongs to another.
    OtherNamespace {
        /// The namespace.
        namespace: String,
        /// The upstream that path or host stand for.
        upstream: Arc<str>,
    },
    /// The name is a prefix, and no repository follows.
    PrefixAlone(RepositoryName),
    /// The name that the repository would have here is below the prefix of another upstream.
    Claimed {
        /// That name.
        name: RepositoryName,
        /// The other upstream.
        upstream: Arc<str>,
    },
    /// The file of the upstream that has it is not good.
    Broken(Arc<str>),
    /// What prefix and name come to is no name: it is too long.
    Name(NameError),
}

impl fmt::Display for NoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(prefix) => write!(
                f,
                "no upstream here has the prefix \"{prefix}\"; use one that is configured, or ask the operator for a file in \
                 upstreams/ with prefix = \"{prefix}\""
            ),
            Self::Namespace(namespace) => write!(
                f,
                "no upstream here has the namespace {namespace:?}; ask the operator to add it to namespaces in a file of \
                 upstreams/ or in [registry], or take this registry out of the client's mirrors of {namespace:?}"
            ),
            Self::OtherNamespace { namespace, upstream } => write!(
                f,
                "the path or host asks for the upstream {upstream:?}, and ns={namespace:?} for another; the client's mirror \
                 of {namespace:?} must be this registry's address without the path, or with the right one"
            ),
            Self::PrefixAlone(prefix) => {
                write!(
                    f,
                    "\"{prefix}\" is the prefix of an upstream; the name of a repository must follow, {prefix}/NAME"
                )
            }
            Self::Claimed { name, upstream } => write!(
                f,
                "the name {name} belongs to the upstream {upstream:?}, whose prefix it begins with; ask the operator to \
                 change one of the two prefixes"
            ),
            Self::Broken(upstream) => write!(
                f,
                "the upstream {upstream:?} cannot be asked: there is a mistake in upstreams/{upstream}.toml; ask the operator \
                 to run `dockgate check`, to mend it, and to restart the gateway"
            ),
            Self::Name(error) => write!(f, "{error}, those of its prefix among them"),
        }
    }
}

impl std::error::Error for NoName {}
