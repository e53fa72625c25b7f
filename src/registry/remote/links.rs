//! Where a list goes on: what the upstream itself says (RFC 8288; distribution-spec 1.1, "Listing Tags").

use http::header::LINK;
use http::uri::PathAndQuery;
use http::{HeaderMap, Uri};

use crate::upstream::{Step, resolve};

/// The next page after that at `asked`, if there is one.
pub(super) fn next(headers: &HeaderMap, asked: &Uri) -> Result<Option<Uri>, &'static str> {
    let texts = headers.get_all(LINK).iter().filter_map(|text| text.to_str().ok());
    let Some(target) = texts.flat_map(links).find(|(_, parameters)| is_next(parameters)).map(|(target, _)| target)
    else {
        return Ok(None);
    };
    let Step { url, is_elsewhere } = resolve(asked, target).ok_or("a Link that is no URL")?;
    let uri: Uri = url.as_str().parse().map_err(|_| "a Link that is no URL")?;
    let is_here = !is_elsewhere && uri.path_and_query() == asked.path_and_query();
    if is_here { Err("a Link that leads to the page that it is on") } else { Ok(Some(uri)) }
}

/// Whether the next page is the one after the entry `last`, asked for as the specification has it.
pub(super) fn goes_on_after(next: &PathAndQuery, last: &str) -> bool {
    let query = next.query().unwrap_or_default();
    url::form_urlencoded::parse(query.as_bytes()).any(|(name, value)| name == "last" && value == last)
}

/// The targets of a header, and their parameters.
fn links(text: &str) -> Vec<(&str, &str)> {
    let mut links = Vec::new();
    let mut rest = text;
    while let Some((target, after)) = rest.split_once('<').and_then(|(_, link)| link.split_once('>')) {
        let mut quoted = false;
        let end = after.find(|letter| {
            quoted ^= letter == '"';
            letter == ',' && !quoted
        });
        let (parameters, others) = after.split_at(end.unwrap_or(after.len()));
        links.push((target, parameters));
        rest = others;
    }
    links
}

fn is_next(parameters: &str) -> bool {
    let pairs = parameters.split(';').filter_map(|pair| pair.split_once('='));
    let mut kinds = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("rel"));
    kinds.any(|(_, kinds)| kinds.trim().trim_matches('"').split(' ').any(|kind| kind.eq_ignore_ascii_case("next")))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn read(link: &str) -> Result<Option<String>, &'static str> {
        let headers = HeaderMap::from_iter([(LINK, HeaderValue::from_str(link).unwrap())]);
        let asked = "https://own.example/x/v2/a/tags/list?n=2".parse().unwrap();
        next(&headers, &asked).map(|uri| uri.map(|uri| uri.to_string()))
    }

    #[test]
    fn whatever_the_upstream_says_is_where_it_goes_on() {
        for (link, url) in [
            (r#"</v2/a/tags/list?last=b&n=2>; rel="next""#, "https://own.example/v2/a/tags/list?last=b&n=2"),
            (r#"</x/v2/a/tags/list?last=b&n=2>; rel="next""#, "https://own.example/x/v2/a/tags/list?last=b&n=2"),
            ("<list?token=x%2Fy>;rel=next", "https://own.example/x/v2/a/tags/list?token=x%2Fy"),
            ("<?next_page=AB==>; REL = \"next\"", "https://own.example/x/v2/a/tags/list?next_page=AB=="),
            (r#"<https://elsewhere.example/v2/b?p=2>; rel="next""#, "https://elsewhere.example/v2/b?p=2"),
            (r#"</first>; rel="first"; title="a, <b>", </v2/x?p=3>; rel="last next""#, "https://own.example/v2/x?p=3"),
        ] {
            assert_eq!(read(link), Ok(Some(url.to_owned())), "{link}");
        }
        for link in ["", "</x>", r#"</x>; rel="prev""#, r#"/x; rel="next""#] {
            assert_eq!(read(link), Ok(None), "{link}");
        }
    }

    #[test]
    fn a_list_does_not_go_on_where_it_is() {
        for link in ["?n=2", "/x/v2/a/tags/list?n=2", "https://own.example:443/x/v2/a/tags/list?n=2"] {
            assert!(read(&format!("<{link}>; rel=next")).is_err(), "{link}");
        }
    }

    #[test]
    fn a_page_after_the_last_entry_is_as_the_specification_has_it() {
        let after = |path: &str, last: &str| goes_on_after(&path.parse().unwrap(), last);
        assert!(after("/v2/a/tags/list?n=2&last=v1%2B2", "v1+2"));
        assert!(!after("/v2/a/tags/list?n=2&last=v1", "v2"));
        assert!(!after("/v2/a/tags/list?token=v2", "v2"));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(link in "[ -~]{0,60}") {
            let _ = read(&link);
        }
    }
}
