//! `Range` (RFC 9110, section 14) and the `Content-Range` of a chunked upload (distribution-spec 1.1, end-5).

use std::fmt;
use std::str::FromStr;

/// A part of some content, never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    start: u64,
    last: u64,
}

/// A `Range` header that asks for one range of bytes, before the content's size is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeSpec {
    /// `bytes=N-M` or `bytes=N-`.
    From {
        /// The first byte.
        start: u64,
        /// The last byte, if it was given.
        last: Option<u64>,
    },
    /// `bytes=-N`: the last N bytes.
    Suffix(u64),
}

/// A range cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeError {
    /// Not a range of bytes, or several; RFC 9110 says to ignore it and to send the whole.
    Ignored,
    /// Well formed, but outside the content: 416.
    Unsatisfiable,
}

impl ByteRange {
    /// From the first to the last byte, both inclusive; `None` if that is empty.
    pub const fn new(start: u64, last: u64) -> Option<Self> {
        if start <= last && last < u64::MAX { Some(Self { start, last }) } else { None }
    }

    /// The first byte.
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// The last byte, inclusive.
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// How many bytes; at least 1.
    pub const fn length(&self) -> u64 {
        self.last - self.start + 1
    }

    /// Reads the `Content-Range` of an upload's PATCH: `N-M`, with or without `bytes ` and `/TOTAL`.
    pub fn parse_content_range(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix("bytes").map_or(text, |rest| rest.trim_start_matches([' ', '=']));
        let text = text.split_once('/').map_or(text, |(range, _)| range);
        let (start, last) = text.split_once('-')?;
        Self::new(number(start)?, number(last)?)
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.last)
    }
}

impl RangeSpec {
    /// Which bytes of a content of `size` bytes are asked for.
    pub fn resolve(self, size: u64) -> Result<ByteRange, RangeError> {
        let end = size.checked_sub(1).ok_or(RangeError::Unsatisfiable)?;
        let range = match self {
            Self::From { start, last } => ByteRange::new(start, last.unwrap_or(end).min(end)),
            Self::Suffix(0) => None,
            Self::Suffix(length) => ByteRange::new(size.saturating_sub(length), end),
        };
        range.ok_or(RangeError::Unsatisfiable)
    }
}

impl FromStr for RangeSpec {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let (unit, set) = text.split_once('=').ok_or(RangeError::Ignored)?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return Err(RangeError::Ignored);
        }
        let (start, last) = set.trim().split_once('-').ok_or(RangeError::Ignored)?;
        match (start, last) {
            ("", length) => number(length).map(Self::Suffix),
            (start, "") => number(start).map(|start| Self::From { start, last: None }),
            (start, last) => number(start)
                .zip(number(last))
                .filter(|(start, last)| start <= last)
                .map(|(start, last)| Self::From { start, last: Some(last) }),
        }
        .ok_or(RangeError::Ignored)
    }
}

/// Digits only: `u64::from_str` would take a plus sign.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn resolve(text: &str, size: u64) -> Result<(u64, u64), RangeError> {
        let range = text.parse::<RangeSpec>()?.resolve(size)?;
        Ok((range.start(), range.last()))
    }

    #[test]
    fn ranges_resolve_as_rfc_9110_says() {
        assert_eq!(resolve("bytes=0-", 10), Ok((0, 9)));
        assert_eq!(resolve("bytes=2-4", 10), Ok((2, 4)));
        assert_eq!(resolve("bytes=2-400", 10), Ok((2, 9)));
        assert_eq!(resolve("bytes=-3", 10), Ok((7, 9)));
        assert_eq!(resolve("bytes=-30", 10), Ok((0, 9)));
        assert_eq!(resolve("BYTES=9-9", 10), Ok((9, 9)));
        for outside in ["bytes=10-", "bytes=10-12", "bytes=-0"] {
            assert_eq!(resolve(outside, 10), Err(RangeError::Unsatisfiable), "{outside}");
        }
        assert_eq!(resolve("bytes=0-", 0), Err(RangeError::Unsatisfiable));
        for ignored in
            ["", "bytes", "bytes=", "bytes=-", "bytes=4-2", "bytes=0-1,3-4", "items=0-1", "bytes=+1-", "bytes=a-b"]
        {
            assert_eq!(resolve(ignored, 10), Err(RangeError::Ignored), "{ignored}");
        }
    }

    #[test]
    fn content_ranges_are_taken_with_and_without_the_unit() {
        let range = ByteRange::new(5, 9);
        for text in ["5-9", "bytes 5-9/*", "bytes 5-9/10", "bytes=5-9"] {
            assert_eq!(ByteRange::parse_content_range(text), range, "{text}");
        }
        for bad in ["", "5", "9-5", "a-b", "-5", "5-", "0-18446744073709551615"] {
            assert_eq!(ByteRange::parse_content_range(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_resolves_lies_inside(text in "bytes=[0-9]{0,20}-[0-9]{0,20}", size: u64) {
            if let Ok((start, last)) = resolve(&text, size) {
                prop_assert!(start <= last && last < size);
            }
        }

        #[test]
        fn nothing_makes_it_panic(text: String, size: u64) {
            let _ = resolve(&text, size);
            let _ = ByteRange::parse_content_range(&text);
        }
    }
}
