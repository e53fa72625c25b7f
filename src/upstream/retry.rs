//! When an upstream is asked again.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::time::Instant;

/// The pause before the first repetition; it doubles with each.
const BACKOFF: Duration = Duration::from_millis(100);
/// The longest pause.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// The longest that an upstream may keep everybody waiting.
const HOLD_MAX: Duration = Duration::from_secs(60 * 60);

/// Until when an upstream wants to be left alone.
#[derive(Debug, Default)]
pub(super) struct Hold(Mutex<Option<Instant>>);

impl Hold {
    /// It said so.
    pub(super) fn set(&self, wait: Duration) {
        let until = Instant::now() + wait.min(HOLD_MAX);
        let mut hold = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *hold = Some(hold.map_or(until, |hold| hold.max(until)));
    }

    /// Until when, if it is not over.
    pub(super) fn until(&self) -> Option<Instant> {
        let hold = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hold.filter(|until| Instant::now() < *until)
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
        let hold = Hold::default();
        assert_eq!(hold.until(), None);
        hold.set(Duration::from_secs(10));
        hold.set(Duration::from_secs(1));
        assert!(hold.until().is_some_and(|until| until > Instant::now() + Duration::from_secs(9)));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(hold.until(), None);
    }
}
