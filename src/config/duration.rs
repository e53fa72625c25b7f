//! Durations as they are written: a whole number and a unit.

use std::time::Duration;

/// The units, the largest first, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// What is allowed, in words.
pub(super) const ALLOWED: &str = "a duration such as \"300ms\", \"10s\", \"5m\", \"24h\" or \"7d\"";

/// The duration that `text` says, if it is one.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, unit_ms) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(unit_ms).map(Duration::from_millis)
}

/// As it would be written, in the largest unit that divides it.
pub(super) fn format(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let divides = |(_, unit_ms): &(&str, u64)| milliseconds.is_multiple_of(u128::from(*unit_ms));
    match UNITS.into_iter().find(divides) {
        Some((unit, unit_ms)) if milliseconds > 0 => format!("{}{unit}", milliseconds / u128::from(unit_ms)),
        _ => "0s".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        for (text, milliseconds) in
            [("300ms", 300), ("10s", 10_000), ("5m", 300_000), ("24h", 86_400_000), ("7d", 604_800_000), ("0s", 0)]
        {
            assert_eq!(parse(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in ["", "10", "s", "10 s", "-1s", "+1s", "1.5s", "10S", "10sec", "1m30s", "99999999999999999999d", "é"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(parse(&format!("{}d", u64::MAX)), None, "overflows");
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_the_same(milliseconds in any::<u64>()) {
            let duration = Duration::from_millis(milliseconds);
            prop_assert_eq!(parse(&format(duration)), Some(duration));
        }

        #[test]
        fn any_text_is_survived(text in ".{0,20}") {
            let _ = parse(&text);
        }
    }
}
