//! `/v1/search`: what `docker search HOST/TERM` and `podman search` of any age ask, over the registry inside and the v1
//! registry together.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderName, Response, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use crate::access::CatalogPermit;
use crate::gateway::body::Body;
use crate::gateway::respond::Failure;
use crate::gateway::route::SearchQuery;
use crate::oci::RepositoryName;
use crate::registry::Index;

use super::index::json_answer;
use super::{Caller, Walk};

/// How many results are on a page at most. Where no size is asked for there is one page, as docker-registry has it.
const PAGE_MAX: usize = 100;

/// With this header a client says that it takes v1 credentials: whatever it has, it has shown.
const TOKEN: HeaderName = HeaderName::from_static("x-docker-token");

type Results = BTreeMap<String, Value>;

impl Walk<'_> {
    pub(super) async fn search(
        &self,
        index: Option<&Index>,
        query: &SearchQuery,
        caller: &Caller,
    ) -> Result<Response<Body>, Failure> {
        let permit = self.permit_search(caller)?;
        let legacy = self.legacy_results(index, query, caller, &permit).await;
        let hosted = self.rooms.hosted.search(permit, &query.term).await?;
        let mut results = match legacy {
            // Half of what there is is worth more than an error; that there is nothing would be a lie.
            Err(_) if !hosted.is_empty() => Results::new(),
            legacy => legacy?,
        };
        for name in hosted {
            results.entry(name.to_string()).or_insert_with(|| result(&name, &Map::new()));
        }
        Ok(json_answer(StatusCode::OK, &page(query, results)))
    }

    /// Leave to search: as for the list of repositories. podman never says here who it is, and asks for that list where it is
    /// refused; docker says it if it can, so what it may see without is what it is shown.
    fn permit_search(&self, caller: &Caller) -> Result<CatalogPermit, Failure> {
        let rules = &self.settings.rules;
        let shows_what_it_has = self.parts.headers.contains_key(&TOKEN) && rules.grant_anyone(caller.screened.client);
        if !shows_what_it_has {
            self.ask_who(caller, None)?;
        }
        rules.authorize_catalog(&caller.principal).map_err(|_| self.unauthorized(&caller.screened, None, None))
    }

    async fn legacy_results(
        &self,
        index: Option<&Index>,
        query: &SearchQuery,
        caller: &Caller,
        permit: &CatalogPermit,
    ) -> Result<Results, Failure> {
        let Some(index) = index else { return Ok(Results::new()) };
        let term = utf8_percent_encode(&query.term, NON_ALPHANUMERIC);
        let answer = index.ask(&format!("/v1/search?q={term}"), &self.visit(caller)).await;
        let answer = answer.inspect_err(|error| tracing::warn!(?error, "the v1 registry could not be searched"));
        if !index.registry().is_standalone() {
            // Searching is for the index; what the registry finds beside that was there before.
            let mut results = found_by_registry(answer.unwrap_or_default(), permit);
            for name in index.search(permit, &query.term).await? {
                results.entry(name.to_string()).or_insert_with(|| result(&name, &Map::new()));
            }
            return Ok(results);
        }
        Ok(found_by_registry(answer?, permit))
    }
}

fn found_by_registry(answer: Option<Bytes>, permit: &CatalogPermit) -> Results {
    // Without a search of its own it has nothing there.
    let found: Value = answer.map(|bytes| serde_json::from_slice(&bytes).unwrap_or_default()).unwrap_or_default();
    let found = found["results"].as_array().map(Vec::as_slice).unwrap_or_default().iter();
    let named = found.filter_map(|entry| {
        let fields = entry.as_object()?;
        let name: RepositoryName = fields.get("name")?.as_str()?.parse().ok()?;
        permit.shows(&name).then(|| (name.to_string(), result(&name, fields)))
    });
    named.collect()
}

/// What docker and podman read of a result.
fn result(name: &RepositoryName, fields: &Map<String, Value>) -> Value {
    let text = fields.get("description").and_then(Value::as_str).unwrap_or_default();
    let stars = fields.get("star_count").and_then(Value::as_u64).unwrap_or_default();
    let is = |key: &str| fields.get(key).and_then(Value::as_bool).unwrap_or_default();
    json!({
        "name": name.as_str(), "description": text, "star_count": stars,
        "is_official": is("is_official"), "is_automated": is("is_automated"), "is_trusted": is("is_trusted"),
    })
}

fn page(query: &SearchQuery, results: Results) -> Value {
    let (number, count) = (query.page.unwrap_or(1).max(1), results.len());
    let asked = query.limit.filter(|limit| *limit > 0);
    let size = asked.map_or(count.max(1), |limit| limit.min(PAGE_MAX));
    let shown: Vec<Value> = results.into_values().skip(size.saturating_mul(number - 1)).take(size).collect();
    json!({
        "query": query.term, "num_results": count, "num_pages": count.div_ceil(size),
        "page": number, "page_size": size, "results": shown,
    })
}
