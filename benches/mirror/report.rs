//! Numbers as people read them.

use std::time::Duration;

/// The value that this share of all values does not exceed; `MAX` stands for what did not happen.
pub fn quantile(values: &mut [Duration], share: f64) -> Option<Duration> {
    values.sort_unstable();
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied()
}

/// `MAX` and nothing at all did not happen.
pub fn time(value: Option<Duration>) -> String {
    match value {
        None | Some(Duration::MAX) => "not in time".into(),
        Some(value) if value < Duration::from_millis(10) => format!("{:.1} ms", value.as_secs_f64() * 1e3),
        Some(value) if value < Duration::from_secs(1) => format!("{} ms", value.as_millis()),
        Some(value) => format!("{:.1} s", value.as_secs_f64()),
    }
}

/// For a CSV: seconds, or nothing.
pub fn seconds(value: Option<Duration>) -> String {
    match value {
        None | Some(Duration::MAX) => String::new(),
        Some(value) => format!("{:.6}", value.as_secs_f64()),
    }
}

pub fn bytes(value: u64) -> String {
    match value {
        0..1024 => format!("{value} B"),
        1024..0x10_0000 => format!("{:.0} KiB", value as f64 / 1024.0),
        0x10_0000..0x4000_0000 => format!("{:.0} MiB", value as f64 / f64::from(1 << 20)),
        _ => format!("{:.2} GiB", value as f64 / f64::from(1 << 30)),
    }
}

pub fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// A size as it is written in the configuration: `64MiB`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err("a size is written 4096, 64KiB, 64MiB or 1GiB".into()),
    };
    number.parse::<u64>().map(|number| number << shift).map_err(|error| error.to_string())
}

/// The head of a Markdown table.
pub fn head(columns: &[&str]) -> String {
    format!("| {} |\n|{}", columns.join(" | "), "---|".repeat(columns.len()))
}
