//! Lists of names from elsewhere: always asked for anew, a page at a time; to their end, where only the upstream knows how to go on.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap};
use http::uri::{Authority, PathAndQuery};
use http::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use crate::access::{CatalogPermit, Leave as _, Permit, Pull};
use crate::oci::RepositoryName;
use crate::registry::{Page, RegistryError};
use crate::upstream::{Ask, CallerCredentials, Peer};

use super::error::number;
use super::manifests::is_web_page;
use super::{Reach, Remote, RemoteError, Target, empty, links, too_late};

/// How many pages of a catalog are asked for one answer, where the caller may see nothing of them.
const CATALOG_PAGES_MAX: usize = 100;
/// How many repositories are asked for at least, once a page had nothing to show: docker's registry lists as many to who
/// says no number, so that nobody refuses it.
const CATALOG_PAGE_MIN: usize = 100;

/// How many pages are gathered for one answer, where the upstream alone knows how they go on.
const GATHERED_PAGES_MAX: usize = 100;

/// What came of a list.
pub(super) struct Gathered<E> {
    pub(super) entries: Vec<E>,
    /// The one page, as it came, where there is no other.
    pub(super) page: Option<Bytes>,
    /// Whether more follow.
    pub(super) more: bool,
}

/// Where a page is: the path, and the only peer that has it, if it is no other's.
struct Place {
    path: PathAndQuery,
    peer: Option<Authority>,
}

#[derive(Deserialize)]
struct Tags {
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Catalog {
    repositories: Option<Vec<String>>,
}

impl Remote {
    /// The tags of a repository after `last`.
    pub async fn tags(
        self: &Arc<Self>,
        target: Target<Permit<Pull>>,
        last: Option<&str>,
        limit: usize,
    ) -> Result<Page<String>, RegistryError> {
        let name = target.permit.repository().clone();
        let reach = self.reach(&target);
        let path = format!("/tags/list?{}", page_query(last, limit));
        let listed = async {
            let names = |bytes: &[u8]| {
                let tags: Result<Tags, _> = serde_json::from_slice(bytes);
                tags.map(|tags| tags.tags.unwrap_or_default()).map_err(|_| self.answer("a list of tags that is none"))
            };
            self.names(&reach, self.read(Method::GET, &reach, &path)?, names, last, limit).await
        };
        listed.await.map_err(|error| list_error(error, &name))
    }

    /// The repositories after `last` that the permit shows, by their names there; `prefix` is what their names here begin
    /// with. What is not shown is not the caller's to go on from either, so pages without anything to show are passed over.
    pub async fn catalog(
        self: &Arc<Self>,
        permit: CatalogPermit,
        caller: Option<CallerCredentials>,
        prefix: Option<&RepositoryName>,
        last: Option<&str>,
        limit: usize,
    ) -> Result<Page<RepositoryName>, RegistryError> {
        let deadline = Instant::now() + self.config.deadline;
        let reach = Reach { repository: self.config.prefix.clone(), caller, deadline };
        let here = |name: &RepositoryName| match prefix {
            Some(prefix) => format!("{prefix}/{name}").parse().ok(),
            None => Some(name.clone()),
        };
        let (mut last, mut size) = (last.map(str::to_owned), limit);
        for _ in 0..CATALOG_PAGES_MAX {
            let listed = self.repositories(&reach, last.as_deref(), size).await.map_err(remote)?;
            let names = listed.entries.iter().filter_map(|name| name.parse::<RepositoryName>().ok());
            let shown = names.filter(|name| here(name).is_some_and(|here| permit.shows(&here)));
            let mut shown: Vec<RepositoryName> = shown.collect();
            last = listed.entries.into_iter().next_back();
            if !shown.is_empty() || !listed.more || last.is_none() || limit == 0 {
                let more = listed.more || shown.len() > limit;
                shown.truncate(limit);
                return Ok(Page { entries: shown, more });
            }
            size = limit.max(CATALOG_PAGE_MIN);
        }
        let reason = format!("{CATALOG_PAGES_MAX} pages of repositories in a row that the caller may not see");
        Err(remote(self.answer(reason)))
    }

    /// A page of the upstream's repositories, whoever may see them.
    async fn repositories(&self, reach: &Reach, last: Option<&str>, size: usize) -> Result<Page<String>, RemoteError> {
        let ask = Ask {
            method: Method::GET,
            path: self.path(&format!("/v2/_catalog?{}", page_query(last, size)))?,
            headers: HeaderMap::new(),
            body: empty(),
            scope: "registry:catalog:*".to_owned(),
            caller: reach.caller.clone(),
            follow: false,
            peer: None,
            deadline: reach.deadline,
        };
        let names = |bytes: &[u8]| {
            let catalog: Result<Catalog, _> = serde_json::from_slice(bytes);
            let names = catalog.map(|catalog| catalog.repositories.unwrap_or_default());
            names.map_err(|_| self.answer("a list of repositories that is none"))
        };
        self.names(reach, ask, names, last, size).await
    }

    /// A page of a list of names. Where the upstream goes on in a way of its own (a token, a number), there is no page that we
    /// could ask for by the name before it, so all of the list is taken.
    async fn names(
        &self,
        reach: &Reach,
        ask: Ask,
        names: impl Fn(&[u8]) -> Result<Vec<String>, RemoteError>,
        last: Option<&str>,
        limit: usize,
    ) -> Result<Page<String>, RemoteError> {
        let is_usual = |entries: &[String], next: &PathAndQuery| {
            entries.last().is_some_and(|last| links::goes_on_after(next, last))
        };
        let Gathered { entries, more, .. } = self.gather(reach, ask, names, is_usual).await?;
        page(entries, last, limit, more).map_err(|reason| self.answer(reason))
    }

    /// All pages of a list, or the first of them where that is `enough`: which entries it has, and where the next one is.
    pub(super) async fn gather<E>(
        &self,
        reach: &Reach,
        ask: Ask,
        read: impl Fn(&[u8]) -> Result<Vec<E>, RemoteError>,
        enough: impl Fn(&[E], &PathAndQuery) -> bool,
    ) -> Result<Gathered<E>, RemoteError> {
        let mut place = Place { path: ask.path.clone(), peer: ask.peer.clone() };
        let (mut entries, mut bytes_left) = (Vec::new(), self.limits.manifest_bytes);
        for number in 0..GATHERED_PAGES_MAX {
            let (bytes, next) = self.page_at(reach, again(&ask, place)).await?;
            bytes_left = bytes_left.checked_sub(bytes.len() as u64).ok_or_else(|| {
                self.answer(format!("a list of more than limits.manifest_bytes, {}", self.limits.manifest_bytes))
            })?;
            entries.extend(read(&bytes)?);
            match next {
                None => return Ok(Gathered { entries, page: (number == 0).then_some(bytes), more: false }),
                Some(next) if number == 0 && enough(&entries, &next.path) => {
                    return Ok(Gathered { entries, page: None, more: true });
                }
                Some(next) => place = next,
            }
        }
        Err(self.answer(format!("a list of more than {GATHERED_PAGES_MAX} pages that go on in a way of their own")))
    }

    /// One page, and where the next one is.
    async fn page_at(&self, reach: &Reach, ask: Ask) -> Result<(Bytes, Option<Place>), RemoteError> {
        let (path, is_named) = (ask.path.clone(), ask.peer.is_some());
        let answer = self.origin.send(ask).await?;
        if answer.status() != StatusCode::OK {
            return Err(self.unexpected(reach, answer.status()));
        }
        let (parts, body) = answer.into_parts();
        if is_web_page(&parts.headers) {
            return Err(self.answer("a web page where a list belongs"));
        }
        // A list that drips may be fast enough byte by byte, and never end.
        let whole = timeout_at(reach.deadline, self.whole(body, number(&parts.headers, CONTENT_LENGTH)));
        let bytes = whole.await.map_err(|_| too_late(self.name()))??;
        let peer = parts.extensions.get::<Arc<Peer>>().ok_or_else(|| self.answer("an answer of nobody"))?;
        let next = links::next(&parts.headers, &peer.asked(&path, is_named)).map_err(|reason| self.answer(reason))?;
        // Nowhere else is a list gone on with, since what is said there would be taken for the upstream's.
        let elsewhere = || self.answer("a Link that leads to another host");
        let next = next.map(|uri| self.origin.place(&uri).ok_or_else(elsewhere)).transpose()?;
        Ok((bytes, next.map(|(path, peer)| Place { path, peer })))
    }
}

/// A question asked again at another place of the list.
fn again(ask: &Ask, Place { path, peer }: Place) -> Ask {
    Ask {
        method: ask.method.clone(),
        path,
        peer,
        headers: ask.headers.clone(),
        body: empty(),
        scope: ask.scope.clone(),
        caller: ask.caller.clone(),
        follow: ask.follow,
        deadline: ask.deadline,
    }
}

fn page_query(last: Option<&str>, limit: usize) -> String {
    let last = last.map(|last| format!("last={}&", utf8_percent_encode(last, NON_ALPHANUMERIC)));
    format!("{}n={limit}", last.unwrap_or_default())
}

/// The part of what the upstream listed that was asked for, and whether more follows.
///
/// docker's registry up to 2.8 knows no pages of tags: whatever part is asked for, it lists all of them and has no Link. That
/// shows by there being more than were asked for, or `last` itself among them. That some are before `last` shows nothing:
/// other registries sort otherwise than by bytes.
fn page(
    mut entries: Vec<String>,
    last: Option<&str>,
    limit: usize,
    has_link: bool,
) -> Result<Page<String>, &'static str> {
    let is_last = |entry: &String| Some(entry.as_str()) == last;
    // Who went on from there would come there again, for ever.
    if has_link && entries.last().is_some_and(is_last) {
        return Err("pages that do not go on after the last entry of the one before");
    }
    if !has_link && (entries.len() > limit || entries.iter().any(is_last)) {
        entries.sort_unstable();
        entries.retain(|entry| last.is_none_or(|last| entry.as_str() > last));
    }
    let more = has_link || entries.len() > limit;
    entries.truncate(limit);
    Ok(Page { entries, more })
}

pub(super) fn remote(error: RemoteError) -> RegistryError {
    RegistryError::Remote(Box::new(error))
}

fn list_error(error: RemoteError, name: &RepositoryName) -> RegistryError {
    match error {
        RemoteError::Missing => RegistryError::NameUnknown(name.clone()),
        error => remote(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(entries: &[&str], last: Option<&str>, limit: usize, has_link: bool) -> (Vec<String>, bool) {
        let entries = entries.iter().map(|entry| (*entry).to_owned()).collect();
        let page = page(entries, last, limit, has_link).unwrap();
        (page.entries, page.more)
    }

    /// docker's registry 2.8 sent all tags for every page, so the second page was the first again.
    #[test]
    fn a_list_without_pages_is_cut_into_them() {
        let all = ["b", "C", "a", "A"];
        let (mut seen, mut last): (Vec<String>, Option<String>) = (Vec::new(), None);
        loop {
            let (entries, more) = listed(&all, last.as_deref(), 2, false);
            assert!(seen.len() < all.len(), "{seen:?} does not end");
            seen.extend(entries);
            last = seen.last().cloned();
            if !more {
                break;
            }
        }
        assert_eq!(seen, ["A", "C", "a", "b"]);
        assert_eq!(listed(&all, Some("b"), 100, false), (vec![], false));
        assert_eq!(listed(&all, None, 0, false).0, [""; 0]);
    }

    #[test]
    fn pages_are_taken_as_they_come() {
        let own = |entries: &[&str]| entries.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>();
        assert_eq!(listed(&["b", "a"], None, 2, true), (own(&["b", "a"]), true));
        assert_eq!(listed(&["b", "a"], None, 2, false), (own(&["b", "a"]), false));
        // The last page of a registry that sorts "C" after "b".
        assert_eq!(listed(&["C"], Some("b"), 2, false), (own(&["C"]), false));
    }

    #[test]
    fn pages_that_do_not_go_on_are_told() {
        let entries = || vec!["a".to_owned(), "b".to_owned()];
        assert!(page(entries(), Some("b"), 2, true).is_err());
        assert!(page(entries(), None, 2, true).is_ok());
    }
}
