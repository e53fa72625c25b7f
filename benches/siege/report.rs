//! Figures, as people read them and as they are kept.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::Outcome;

/// Between these lines of the page the table stands.
const TABLE_BEGIN: &str = "<!-- the table: `make siege` writes it -->";
const TABLE_END: &str = "<!-- the end of the table -->";
/// Between the fields of a file of figures.
const FIELD: char = '\t';

/// One thing that was measured.
#[derive(Debug, Clone)]
pub struct Figure {
    pub siege: &'static str,
    pub name: &'static str,
    pub target: &'static str,
    pub value: String,
    pub verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Met,
    /// Not met, by a time that depends on the machine.
    Slow,
    /// Not met, whatever the machine.
    Broken,
}

/// By siege and name.
pub type Values = BTreeMap<(String, String), String>;

impl Figure {
    /// Must hold on every machine.
    pub fn rule(siege: &'static str, name: &'static str, target: &'static str, value: String, met: bool) -> Self {
        let verdict = if met { Verdict::Met } else { Verdict::Broken };
        Self { siege, name, target, value, verdict }
    }

    /// Depends on the machine and on what else it does.
    pub fn speed(siege: &'static str, name: &'static str, target: &'static str, value: String, met: bool) -> Self {
        let verdict = if met { Verdict::Met } else { Verdict::Slow };
        Self { siege, name, target, value, verdict }
    }

    pub fn line(&self) -> String {
        let mark = match self.verdict {
            Verdict::Met => "ok    ",
            Verdict::Slow => "slow  ",
            Verdict::Broken => "BROKEN",
        };
        format!("{mark} {}: {}: {} (target {})", self.siege, self.name, self.value, self.target)
    }
}

pub fn values(figures: &[Figure]) -> Values {
    figures.iter().map(|figure| ((figure.siege.into(), figure.name.into()), figure.value.clone())).collect()
}

/// A Markdown table; `today` is what the figures were before.
pub fn table(figures: &[Figure], today: &Values) -> String {
    let mut text = "| siege | figure | target | at a96346b | now | |\n|---|---|---|---|---|---|\n".to_owned();
    let mut last = "";
    for Figure { siege, name, target, value, verdict } in figures {
        let shown = if *siege == last { "" } else { siege };
        last = siege;
        let before = today.get(&((*siege).to_owned(), (*name).to_owned())).map_or("", String::as_str);
        let mark = if *verdict == Verdict::Met { "" } else { "not met" };
        let _ = writeln!(text, "| {shown} | {name} | {target} | {} | {} | {mark} |", cell(before), cell(value));
    }
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// Puts the table into the page, in place of the one that is there.
pub fn write_page(page: &Path, table: &str) -> Outcome {
    let text = fs::read_to_string(page).map_err(|error| format!("{}: {error}", page.display()))?;
    let parts = text.split_once(TABLE_BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(TABLE_END)?.1)));
    let (before, after) = parts.ok_or_else(|| format!("{}: no place for the table", page.display()))?;
    fs::write(page, format!("{before}{TABLE_BEGIN}\n\n{table}\n{TABLE_END}{after}"))?;
    Ok(())
}

/// Adds the figures to a file of figures, or puts them in the place of what it says of the same ones.
pub fn record(path: &Path, figures: &[Figure]) -> Outcome {
    let mut all = if path.exists() { recorded(path)? } else { Values::new() };
    all.extend(values(figures));
    let line = |((siege, name), value): (&(String, String), &String)| format!("{siege}{FIELD}{name}{FIELD}{value}\n");
    fs::write(path, all.iter().map(line).collect::<String>())?;
    Ok(())
}

pub fn recorded(path: &Path) -> Outcome<Values> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let line = |line: &str| {
        let mut fields = line.splitn(3, FIELD).map(str::to_owned);
        Some(((fields.next()?, fields.next()?), fields.next()?))
    };
    Ok(text.lines().filter_map(line).collect())
}

/// The value that this share of all values does not exceed.
pub fn quantile(values: &mut [Duration], share: f64) -> Option<Duration> {
    values.sort_unstable();
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied()
}

pub fn time(value: Option<Duration>) -> String {
    match value {
        None => "none".into(),
        Some(value) if value < Duration::from_millis(10) => format!("{:.1} ms", value.as_secs_f64() * 1e3),
        Some(value) if value < Duration::from_secs(1) => format!("{} ms", value.as_millis()),
        Some(value) => format!("{:.1} s", value.as_secs_f64()),
    }
}

pub fn bytes(value: u64) -> String {
    match value {
        0..0x10_0000 => format!("{:.0} KiB", value as f64 / 1024.0),
        0x10_0000..0x4000_0000 => format!("{:.0} MiB", value as f64 / f64::from(1 << 20)),
        _ => format!("{:.2} GiB", value as f64 / f64::from(1 << 30)),
    }
}
