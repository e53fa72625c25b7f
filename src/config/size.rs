//! Sizes as they are written: a whole number and a unit, or bytes.

/// The units, the largest first, in bytes.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("", 1),
];

/// What is allowed, in words.
pub(super) const ALLOWED: &str = "a size such as \"4096\", \"32KiB\", \"512MiB\" or \"50GB\"";

/// The number of bytes that `text` says, if it is a size.
pub(super) fn parse(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, unit_bytes) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(unit_bytes)
}

/// As it would be written, in the largest unit that divides it.
pub(super) fn format(bytes: u64) -> String {
    match UNITS.into_iter().find(|(_, unit_bytes)| bytes.is_multiple_of(*unit_bytes)) {
        Some((unit, unit_bytes)) if bytes > 0 => format!("{}{unit}", bytes / unit_bytes),
        _ => "0".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_a_number_and_a_unit_of_1024_or_1000() {
        for (text, bytes) in [
            ("512MiB", 512 << 20),
            ("50GB", 50_000_000_000),
            ("32KiB", 32_768),
            ("1MB", 1_000_000),
            ("2TiB", 2 << 40),
            ("1024", 1024),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
        for bad in
            ["", "MiB", "1 MiB", "1M", "1mib", "1.5GiB", "-1", "+1", "0x10", "99999999999999999999", "99999999999GiB"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_the_same(bytes in any::<u64>()) {
            prop_assert_eq!(parse(&format(bytes)), Some(bytes));
        }

        #[test]
        fn any_text_is_survived(text in ".{0,20}") {
            let _ = parse(&text);
        }
    }
}
