//! What the upstream holds, and its answers while nothing goes wrong.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use serde_json::json;

use super::Asked;
use super::send::Reply;
use crate::support::content::digest;

/// All repositories.
#[derive(Default)]
pub(super) struct Content {
    repositories: BTreeMap<String, Repository>,
    uploads: BTreeMap<String, (String, Vec<u8>)>,
    begun: usize,
    /// Whether lists have pages; docker's registry 2.8 has none for tags.
    pub(super) has_pages: bool,
}

#[derive(Default)]
struct Repository {
    tags: BTreeMap<String, String>,
    /// The type and the bytes of each.
    manifests: BTreeMap<String, (String, Vec<u8>)>,
    blobs: BTreeMap<String, Vec<u8>>,
}

/// The repository that a path is about.
pub(super) fn repository(path: &str) -> Option<String> {
    let rest = path.strip_prefix("/v2/")?;
    let end = ["/blobs/", "/manifests/", "/tags/", "/referrers/"].iter().find_map(|word| rest.find(word))?;
    Some(rest[..end].to_owned())
}

impl Content {
    pub(super) fn blob(&mut self, repository: &str, bytes: &[u8]) -> String {
        self.repository(repository).blobs.insert(digest(bytes), bytes.to_vec());
        digest(bytes)
    }

    pub(super) fn manifest(&mut self, repository: &str, tag: Option<&str>, media_type: &str, bytes: &[u8]) -> String {
        let repository = self.repository(repository);
        repository.manifests.insert(digest(bytes), (media_type.to_owned(), bytes.to_vec()));
        if let Some(tag) = tag {
            repository.tags.insert(tag.to_owned(), digest(bytes));
        }
        digest(bytes)
    }

    pub(super) fn untag(&mut self, repository: &str, tag: &str) {
        self.repository(repository).tags.remove(tag);
    }

    pub(super) fn has_blob(&self, repository: &str, digest: &str) -> bool {
        self.repositories.get(repository).is_some_and(|repository| repository.blobs.contains_key(digest))
    }

    pub(super) fn uploads(&self) -> usize {
        self.uploads.len()
    }

    fn repository(&mut self, name: &str) -> &mut Repository {
        self.repositories.entry(name.to_owned()).or_default()
    }

    pub(super) fn answer(&mut self, asked: &Asked) -> Reply {
        if asked.path == "/v2/" {
            return Reply::new(200).header("Content-Type", "application/json").body(b"{}");
        }
        if asked.path == "/v2/_catalog" {
            let (names, link) = self.page(asked, self.repositories.keys().collect());
            return json_reply(&json!({ "repositories": names })).header("Link", &link);
        }
        let Some(name) = repository(&asked.path) else { return Reply::error(404, "NAME_UNKNOWN") };
        let rest = asked.path["/v2/".len() + name.len()..].to_owned();
        if let Some(rest) = rest.strip_prefix("/blobs/uploads/") {
            return self.upload(asked, &name, rest);
        }
        if let Some(digest) = rest.strip_prefix("/blobs/") {
            return self.get_blob(asked, &name, digest);
        }
        if let Some(reference) = rest.strip_prefix("/manifests/") {
            return self.on_manifest(asked, &name, reference);
        }
        let Some(repository) = self.repositories.get(&name) else { return Reply::error(404, "NAME_UNKNOWN") };
        match rest.as_str() {
            "/tags/list" => {
                let (tags, link) = self.page(asked, repository.tags.keys().collect());
                json_reply(&json!({ "name": name, "tags": tags })).header("Link", &link)
            }
            _ => self.referrers(asked, repository),
        }
    }

    /// What refers to a manifest; with pages, two of them on each, and the next by a token.
    fn referrers(&self, asked: &Asked, repository: &Repository) -> Reply {
        let subject = asked.path.rsplit('/').next().unwrap_or_default();
        let refers = |bytes: &[u8]| {
            let manifest: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
            manifest["subject"]["digest"] == subject
        };
        let all = repository.manifests.iter().filter(|(_, (_, bytes))| refers(bytes));
        let mut listed: Vec<_> = all
            .map(|(digest, (kind, bytes))| json!({ "mediaType": kind, "digest": digest, "size": bytes.len() }))
            .collect();
        let mut link = String::new();
        if self.has_pages {
            let from = asked.parameter("token").map_or(0, |token| token.parse().unwrap());
            let end = listed.len().min(from + 2);
            if end < listed.len() {
                link = format!("<?token={end}>; rel=\"next\"");
            }
            listed = listed[from..end].to_vec();
        }
        json_reply(&json!({ "schemaVersion": 2, "manifests": listed })).header("Link", &link)
    }

    /// The part of a list that was asked for, and what leads to the next; all of it, where there are no pages.
    fn page<'a>(&self, asked: &Asked, mut names: Vec<&'a String>) -> (Vec<&'a String>, String) {
        if !self.has_pages {
            return (names, String::new());
        }
        let parameter = |name| asked.parameter(name).map(|value| percent_decode_str(value).decode_utf8().unwrap());
        if let Some(last) = parameter("last") {
            names.retain(|name| name.as_str() > &*last);
        }
        let limit: usize = parameter("n").map_or(100, |n| n.parse().unwrap());
        let is_end = names.len() <= limit;
        names.truncate(limit);
        let next = |last: &&String| format!("<{}?last={last}&n={limit}>; rel=\"next\"", asked.path);
        let link = names.last().filter(|_| !is_end).map(next).unwrap_or_default();
        (names, link)
    }

    fn get_blob(&mut self, asked: &Asked, name: &str, digest: &str) -> Reply {
        let blobs = &mut self.repository(name).blobs;
        if asked.method == "DELETE" {
            let was_there = blobs.remove(digest).is_some();
            return if was_there { Reply::new(202) } else { Reply::error(404, "BLOB_UNKNOWN") };
        }
        let Some(bytes) = blobs.get(digest) else { return Reply::error(404, "BLOB_UNKNOWN") };
        let reply = Reply::new(200).header("Content-Type", "application/octet-stream").body(bytes);
        reply.header("Docker-Content-Digest", digest)
    }

    fn on_manifest(&mut self, asked: &Asked, name: &str, reference: &str) -> Reply {
        let repository = self.repository(name);
        let named = repository.tags.get(reference).cloned().unwrap_or_else(|| reference.to_owned());
        match asked.method.as_str() {
            "PUT" => {
                let tag = (!reference.contains(':')).then_some(reference);
                let media_type = asked.header("content-type").unwrap_or_default().to_owned();
                let digest = self.manifest(name, tag, &media_type, &asked.body);
                Reply::new(201).header("Docker-Content-Digest", &digest)
            }
            "DELETE" => {
                let was_there = match reference.contains(':') {
                    true => repository.manifests.remove(reference).is_some(),
                    false => repository.tags.remove(reference).is_some(),
                };
                if was_there { Reply::new(202) } else { Reply::error(404, "MANIFEST_UNKNOWN") }
            }
            _ => match repository.manifests.get(&named) {
                Some((media_type, bytes)) => {
                    let reply = Reply::new(200).header("Content-Type", media_type).body(bytes);
                    reply.header("Docker-Content-Digest", &named)
                }
                None => Reply::error(404, "MANIFEST_UNKNOWN"),
            },
        }
    }

    fn upload(&mut self, asked: &Asked, name: &str, id: &str) -> Reply {
        if asked.method == "POST" {
            if let Some(mounted) = self.mount(asked, name) {
                return mounted;
            }
            self.begun += 1;
            let id = format!("upload-{}", self.begun);
            self.uploads.insert(id.clone(), (name.to_owned(), vec![]));
            return accepted(name, &id, 0);
        }
        let Some((_, bytes)) = self.uploads.get_mut(id).filter(|(owner, _)| owner == name) else {
            return Reply::error(404, "BLOB_UPLOAD_UNKNOWN");
        };
        match asked.method.as_str() {
            "GET" => Reply { status: 204, ..accepted(name, id, bytes.len()) },
            "DELETE" => {
                self.uploads.remove(id);
                Reply::new(204)
            }
            _ if !asked.whole => Reply::error(400, "BLOB_UPLOAD_INVALID"),
            "PATCH" => {
                let first = asked.header("content-range").map(|range| range.split('-').next().unwrap().to_owned());
                if first.is_some_and(|first| first != bytes.len().to_string()) {
                    return Reply::error(416, "BLOB_UPLOAD_INVALID");
                }
                bytes.extend_from_slice(&asked.body);
                accepted(name, id, bytes.len())
            }
            _ => {
                let whole = [bytes.as_slice(), &asked.body].concat();
                if asked.parameter("digest") != Some(&digest(&whole)) {
                    return Reply::error(400, "DIGEST_INVALID");
                }
                self.uploads.remove(id);
                let digest = self.blob(name, &whole);
                Reply::new(201).header("Location", &format!("/v2/{name}/blobs/{digest}"))
            }
        }
    }

    fn mount(&mut self, asked: &Asked, name: &str) -> Option<Reply> {
        let (wanted, from) = (asked.parameter("mount")?, asked.parameter("from")?);
        let bytes = self.repositories.get(from)?.blobs.get(wanted)?.clone();
        let digest = self.blob(name, &bytes);
        Some(Reply::new(201).header("Location", &format!("/v2/{name}/blobs/{digest}")))
    }
}

fn accepted(name: &str, id: &str, length: usize) -> Reply {
    let reply = Reply::new(202).header("Location", &format!("/v2/{name}/blobs/uploads/{id}?state=of-{id}"));
    reply.header("Range", &format!("0-{}", length.saturating_sub(1))).header("Docker-Upload-UUID", id)
}

fn json_reply(value: &serde_json::Value) -> Reply {
    Reply::new(200).header("Content-Type", "application/json").body(value.to_string().as_bytes())
}
