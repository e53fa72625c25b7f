//! The paths of the v1 protocol, as docker-registry 0.9.1 has them: each with its own methods and one spelling. The server's
//! rule for a repository's root takes every other path for a repository's name, so what is not exactly one of these
//! must not reach it: the repository that it would change is not the one for which permission was checked.

use http::Method;

use crate::docker::ImageId;
use crate::gateway::query::Query;
use crate::oci::{ErrorCode, RepositoryName, Tag};

use super::{Route, RouteError, invalid, parse_name, read_only};

/// A request in the v1 protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LegacyRoute {
    /// `/v1/_ping`, `/_ping`
    Ping,
    /// `/v1/images/ID/…`
    Image(LegacyImage),
    /// `/v1/repositories/[NS/]R/…`
    Repository(LegacyRepository),
    /// `/v1/search`
    Search(SearchQuery),
    /// `/v1/users/`: the login of old clients.
    Users,
    /// `/v1/users/U/`
    User(String),
}

/// What is searched for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SearchQuery {
    /// A part of a name.
    pub term: String,
    /// At most how many results are on a page.
    pub limit: Option<usize>,
    /// Which page, from 1.
    pub page: Option<usize>,
}

/// One thing about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyImage {
    /// Which image.
    pub id: ImageId,
    /// What about it.
    pub part: ImagePart,
}

/// What there is about an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImagePart {
    /// `json`
    Json,
    /// `layer`
    Layer,
    /// `checksum`
    Checksum,
    /// `ancestry`
    Ancestry,
    /// `files`
    Files,
    /// `diff`
    Diff,
}

/// One thing about a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyRepository {
    /// Which repository; one without a namespace is in `library`.
    pub name: RepositoryName,
    /// What about it.
    pub part: RepositoryPart,
}

/// What there is about a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepositoryPart {
    /// The repository itself.
    Root,
    /// `tags`
    Tags,
    /// `tags/TAG`
    Tag(Tag),
    /// `tags/TAG/json`
    TagJson(Tag),
    /// `images`
    Images,
    /// `auth`
    Auth,
    /// `json`
    Json,
    /// `properties`
    Properties,
    /// `layer/ID/access`: what a registry asks its index about the image below another.
    LayerAccess(ImageId),
}

/// The words that may follow a repository's name.
const WORDS: [&str; 5] = ["tags", "images", "auth", "json", "properties"];

/// What is not a name of the v1 protocol, and may be one of v2.
const NAMES: &str =
    "the v1 protocol knows names of one or two parts only, such as team/app; use docker 1.10 or newer for longer ones";

/// What the server would read as a name, and its clients as a word.
const RESERVED: &str = "in the v1 protocol nothing can be called tags, images, auth, json or properties; use docker 1.10 or newer for such names";

/// What comes after `/v1/`. One slash at its end is as good as none; but about a repository it makes a name of all that is before
/// it, to clients and to the server.
pub(super) fn parse(method: &Method, path: &str, query: &Query) -> Result<Route, RouteError> {
    let (path, is_name) = path.strip_suffix('/').map_or((path, false), |path| (path, true));
    let parts: Vec<&str> = path.split('/').collect();
    let route = match parts.as_slice() {
        ["_ping"] => return read_only(method, Route::Legacy(LegacyRoute::Ping)),
        ["search"] => return read_only(method, Route::Legacy(LegacyRoute::Search(search(query)?))),
        ["users"] => LegacyRoute::Users,
        ["users", name] => LegacyRoute::User((*name).to_owned()),
        ["images", id, word] => {
            let part = ImagePart::parse(word).ok_or(RouteError::Unknown)?;
            LegacyRoute::Image(LegacyImage { id: id.parse().map_err(invalid(ErrorCode::NameInvalid))?, part })
        }
        ["repositories", rest @ ..] => LegacyRoute::Repository(repository(rest, is_name)?),
        _ => return Err(RouteError::Unknown),
    };
    let allow = route.allow();
    let allowed = allow.split(", ").any(|allowed| allowed == method.as_str());
    if allowed { Ok(Route::Legacy(route)) } else { Err(RouteError::MethodNotAllowed { allow }) }
}

fn search(query: &Query) -> Result<SearchQuery, RouteError> {
    let number = |key: &'static str| {
        let bad = |text: &str| {
            let detail = format!("{key} is {text:?}; it must be a number");
            RouteError::Invalid { code: ErrorCode::PaginationNumberInvalid, detail }
        };
        query.first(key).map(|text| text.parse().map_err(|_| bad(&text))).transpose()
    };
    Ok(SearchQuery { term: query.first("q").unwrap_or_default(), limit: number("n")?, page: number("page")? })
}

/// `[NS/]R[/WORD…]`. A word of the protocol is never read as a name: the server might read it the other way.
fn repository(parts: &[&str], is_name: bool) -> Result<LegacyRepository, RouteError> {
    if let [name @ .., "layer", id, "access"] = parts
        && !name.is_empty()
        && !is_name
    {
        let id = id.parse().map_err(invalid(ErrorCode::NameInvalid))?;
        return Ok(LegacyRepository { name: name_of(name)?, part: RepositoryPart::LayerAccess(id) });
    }
    let is_word = |part: &&str| WORDS.contains(part);
    let named = parts.iter().take_while(|part| !is_word(part)).count();
    let (name, words) = parts.split_at(named);
    let tag = |tag: &str| tag.parse::<Tag>().map_err(invalid(ErrorCode::TagInvalid));
    let part = match words {
        [] => RepositoryPart::Root,
        _ if is_name || named == 0 => return Err(reserved()),
        ["tags"] => RepositoryPart::Tags,
        ["tags", name] if !is_word(name) => RepositoryPart::Tag(tag(name)?),
        ["tags", name, "json"] if !is_word(name) => RepositoryPart::TagJson(tag(name)?),
        ["images"] => RepositoryPart::Images,
        ["auth"] => RepositoryPart::Auth,
        ["json"] => RepositoryPart::Json,
        ["properties"] => RepositoryPart::Properties,
        [_, rest @ ..] if rest.iter().any(is_word) => return Err(reserved()),
        _ => return Err(RouteError::Unknown),
    };
    Ok(LegacyRepository { name: name_of(name)?, part })
}

fn reserved() -> RouteError {
    RouteError::Invalid { code: ErrorCode::NameInvalid, detail: RESERVED.into() }
}

fn name_of(parts: &[&str]) -> Result<RepositoryName, RouteError> {
    match parts {
        [] | [""] => Err(RouteError::Unknown),
        [name] => parse_name(&format!("library/{name}")),
        [namespace, name] => parse_name(&format!("{namespace}/{name}")),
        _ => Err(RouteError::Invalid { code: ErrorCode::NameInvalid, detail: NAMES.into() }),
    }
}

impl LegacyRoute {
    /// The methods that the server has for this path, as for `Allow`.
    const fn allow(&self) -> &'static str {
        match self {
            Self::Ping | Self::Search(_) => "GET, HEAD",
            Self::Users => "GET, HEAD, POST",
            Self::User(_) => "PUT",
            Self::Image(image) => match image.part {
                ImagePart::Json | ImagePart::Layer => "GET, HEAD, PUT",
                ImagePart::Checksum => "PUT",
                ImagePart::Ancestry | ImagePart::Files | ImagePart::Diff => "GET, HEAD",
            },
            Self::Repository(repository) => match repository.part {
                RepositoryPart::Root => "PUT, DELETE",
                RepositoryPart::Tags => "GET, HEAD, DELETE",
                RepositoryPart::Tag(_) => "GET, HEAD, PUT, DELETE",
                RepositoryPart::TagJson(_) | RepositoryPart::Json | RepositoryPart::LayerAccess(_) => "GET, HEAD",
                RepositoryPart::Images => "GET, HEAD, PUT, DELETE",
                RepositoryPart::Properties => "GET, HEAD, PUT",
                RepositoryPart::Auth => "PUT",
            },
        }
    }

    /// The path as the server's own rules spell it, whatever the caller wrote.
    pub fn path(&self) -> String {
        match self {
            Self::Ping => "/v1/_ping".to_owned(),
            Self::Search(_) => "/v1/search".to_owned(),
            Self::Users => "/v1/users/".to_owned(),
            Self::User(name) => format!("/v1/users/{name}/"),
            Self::Image(LegacyImage { id, part }) => format!("/v1/images/{id}/{}", part.word()),
            Self::Repository(LegacyRepository { name, part }) => format!("/v1/repositories/{name}/{}", part.rest()),
        }
    }
}

impl ImagePart {
    fn parse(word: &str) -> Option<Self> {
        [Self::Json, Self::Layer, Self::Checksum, Self::Ancestry, Self::Files, Self::Diff]
            .into_iter()
            .find(|part| part.word() == word)
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Layer => "layer",
            Self::Checksum => "checksum",
            Self::Ancestry => "ancestry",
            Self::Files => "files",
            Self::Diff => "diff",
        }
    }
}

impl RepositoryPart {
    fn rest(&self) -> String {
        match self {
            Self::Root => String::new(),
            Self::Tags => "tags".to_owned(),
            Self::Tag(tag) => format!("tags/{tag}"),
            Self::TagJson(tag) => format!("tags/{tag}/json"),
            Self::Images => "images".to_owned(),
            Self::Auth => "auth".to_owned(),
            Self::Json => "json".to_owned(),
            Self::Properties => "properties".to_owned(),
            Self::LayerAccess(id) => format!("layer/{id}/access"),
        }
    }
}
