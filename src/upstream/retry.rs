//! When an upstream is asked again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, StatusCode};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::time::Instant;

/// The pause before the first repetition; it doubles with each.
const BACKOFF: Duration = Duration::from_millis(100);
/// The longest pause.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// The longest that an upstream may keep everybody waiting.
const HOLD_MAX: Duration = Duration::from_secs(60 * 60);

/// How many refusals are remembered; of more, the one that is over first is forgotten.
const HOLDS_MAX: usize = 1_024;

/// What is limited by itself: Docker Hub counts who gets manifests, and not who asks for their heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// GET of a manifest.
    Manifest,
    /// HEAD of anything.
    Head,
    /// GET of a blob.
    Blob,
    /// Lists, and whatever changes something.
    Other,
}

impl Kind {
    /// Of a request.
    pub(super) fn of(method: &Method, path: &str) -> Self {
        match *method {
            Method::HEAD => Self::Head,
            Method::GET if path.contains("/manifests/") => Self::Manifest,
            Method::GET if path.contains("/blobs/") => Self::Blob,
            _ => Self::Other,
        }
    }
}

/// Whom an upstream refused, by whose credentials; `None` are those of its file.
type Who = Option<String>;

/// Until when an upstream wants to be left alone, and by whom.
#[derive(Debug, Default)]
pub(super) struct Holds(Mutex<HashMap<(Who, Option<Kind>), Hold>>);

/// One such refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hold {
    /// When it is over.
    pub(super) until: Instant,
    /// With which status it was said.
    pub(super) status: u16,
}

impl Holds {
    /// It said so to `who`, of requests of this kind; of all, where it was said at the login.
    pub(super) fn set(&self, who: Who, kind: Option<Kind>, status: u16, wait: Duration) {
        let now = Instant::now();
        let until = now + wait.min(HOLD_MAX);
        let mut holds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if holds.len() >= HOLDS_MAX {
            holds.retain(|_, hold| hold.until > now);
            let first = holds.iter().min_by_key(|(_, hold)| hold.until).map(|(key, _)| key.clone());
            if let Some(first) = first.filter(|_| holds.len() >= HOLDS_MAX) {
                holds.remove(&first);
            }
        }
        let hold = holds.entry((who, kind)).or_insert(Hold { until, status });
        if hold.until < until {
            *hold = Hold { until, status };
        }
    }

    /// The refusal that such a request of `who` would meet.
    pub(super) fn find(&self, who: &Who, kind: Kind) -> Option<Hold> {
        let holds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = [Some(kind), None].map(|kind| holds.get(&(who.clone(), kind)).copied());
        holds.into_iter().flatten().filter(|hold| hold.until > Instant::now()).max_by_key(|hold| hold.until)
    }
}

/// Whether an answer says that the same request may be answered later.
pub(super) fn is_passing(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
}

/// What `Retry-After` says (RFC 9110, section 10.2.3): seconds, or a date.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = OffsetDateTime::parse(&text.replace("GMT", "+0000"), &Rfc2822).ok()?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(date.unix_timestamp()).ok()?.checked_sub(now.as_secs()).map(Duration::from_secs)
}

/// The pause before the repetition of this number, from 0; some of it by chance, so that those who failed together do not
/// come back together.
pub(super) fn backoff(repetition: u32) -> Duration {
    let whole = BACKOFF.saturating_mul(1 << repetition.min(10)).min(BACKOFF_MAX);
    let chance = f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX);
    whole.mul_f64(0.5 + chance / 2.0)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let after =
            |text: &str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]));
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        let soon = OffsetDateTime::now_utc() + Duration::from_secs(100);
        let date = soon.format(&Rfc2822).unwrap().replace("+0000", "GMT");
        assert!(after(&date).is_some_and(|wait| (95..=100).contains(&wait.as_secs())), "{date}");
        for other in ["", "-1", "soon", "Wed, 21 Oct 2015 07:28:00 GMT"] {
            assert_eq!(after(other), None, "{other}");
        }
    }

    #[test]
    fn pauses_grow_and_end() {
        for repetition in 0..20 {
            let whole = BACKOFF.saturating_mul(1 << repetition.min(10)).min(BACKOFF_MAX);
            let pause = backoff(repetition);
            assert!(pause >= whole / 2 && pause <= whole, "{repetition} {pause:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_hold_counts_and_is_over_by_itself() {
        let holds = Holds::default();
        let until = |kind| holds.find(&None, kind).map(|hold| hold.until.duration_since(Instant::now()).as_secs());
        assert_eq!(until(Kind::Manifest), None);
        holds.set(None, Some(Kind::Manifest), 429, Duration::from_secs(10));
        holds.set(None, Some(Kind::Manifest), 503, Duration::from_secs(1));
        assert_eq!((until(Kind::Manifest), until(Kind::Head)), (Some(10), None));
        assert_eq!(holds.find(&Some("another".into()), Kind::Manifest), None);
        holds.set(None, None, 429, Duration::from_secs(5));
        assert_eq!((until(Kind::Manifest), until(Kind::Head)), (Some(10), Some(5)));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(until(Kind::Manifest), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bounded_number_of_refusals_is_remembered() {
        let holds = Holds::default();
        for number in 0..2 * HOLDS_MAX {
            holds.set(Some(number.to_string()), None, 429, Duration::from_secs(60 + number as u64));
        }
        assert_eq!(holds.0.lock().unwrap().len(), HOLDS_MAX);
    }
}
