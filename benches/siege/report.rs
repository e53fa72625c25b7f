//! Figures, as people read them and as they are kept.

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
const FIELDS: usize = 5;

/// One thing that was measured.
#[derive(Debug, Clone)]
pub struct Figure {
    pub siege: String,
    pub name: String,
    pub target: String,
    pub verdict: Verdict,
    pub value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Met,
    /// Not met, by a time that depends on the machine.
    Slow,
    /// Not met, whatever the machine.
    Broken,
}

impl Verdict {
    const fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Slow => "slow",
            Self::Broken => "broken",
        }
    }
}

impl Figure {
    /// Must hold on every machine.
    pub fn rule(siege: &str, name: &str, target: &str, value: String, met: bool) -> Self {
        Self::new(siege, name, target, value, if met { Verdict::Met } else { Verdict::Broken })
    }

    /// Depends on the machine and on what else it does.
    pub fn speed(siege: &str, name: &str, target: &str, value: String, met: bool) -> Self {
        Self::new(siege, name, target, value, if met { Verdict::Met } else { Verdict::Slow })
    }

    /// A reason for a failure may hold anything.
    fn new(siege: &str, name: &str, target: &str, value: String, verdict: Verdict) -> Self {
        let value = value.replace([FIELD, '\n', '\r'], " ");
        Self { siege: siege.into(), name: name.into(), target: target.into(), verdict, value }
    }

    pub fn line(&self) -> String {
        let target = if self.target.is_empty() { String::new() } else { format!(" (target {})", self.target) };
        format!("{:6} {}: {}: {}{target}", self.verdict.word(), self.siege, self.name, self.value)
    }

    fn is_of(&self, other: &Self) -> bool {
        (&self.siege, &self.name) == (&other.siege, &other.name)
    }

    fn read(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.splitn(FIELDS, FIELD).collect();
        let [siege, name, target, word, value] = fields[..] else { return None };
        let verdict =
            [Verdict::Met, Verdict::Slow, Verdict::Broken].into_iter().find(|verdict| verdict.word() == word)?;
        Some(Self::new(siege, name, target, value.into(), verdict))
    }
}

/// A Markdown table; `today` is what the figures were before.
pub fn table(figures: &[Figure], today: &[Figure]) -> String {
    let mut text = "| siege | figure | target | at a96346b | now | |\n|---|---|---|---|---|---|\n".to_owned();
    let mut last = "";
    for figure in figures {
        let Figure { siege, name, target, verdict, value } = figure;
        let shown = if siege == last { "" } else { siege.as_str() };
        last = siege;
        let before = today.iter().find(|other| other.is_of(figure)).map_or("", |other| other.value.as_str());
        let mark = if *verdict == Verdict::Met { "" } else { "not met" };
        let [before, value] = [before, value.as_str()].map(|text| text.replace('|', "\\|"));
        let _ = writeln!(text, "| {shown} | {name} | {target} | {before} | {value} | {mark} |");
    }
    text
}

/// Puts the table into the page, in place of the one that is there.
pub fn write_page(page: &Path, table: &str) -> Outcome {
    let text = read(page)?;
    let parts = text.split_once(TABLE_BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(TABLE_END)?.1)));
    let (before, after) = parts.ok_or_else(|| format!("{}: no place for the table", page.display()))?;
    fs::write(page, format!("{before}{TABLE_BEGIN}\n\n{table}\n{TABLE_END}{after}"))?;
    Ok(())
}

/// Adds figures to a file of figures, each in the place of what it said of the same. Returns all of it.
pub fn record(path: &Path, figures: &[Figure]) -> Outcome<Vec<Figure>> {
    let mut all = if path.exists() { recorded(path)? } else { Vec::new() };
    for figure in figures {
        match all.iter_mut().find(|other| other.is_of(figure)) {
            Some(other) => other.clone_from(figure),
            None => all.push(figure.clone()),
        }
    }
    let line = |Figure { siege, name, target, verdict, value }: &Figure| {
        format!("{siege}{FIELD}{name}{FIELD}{target}{FIELD}{}{FIELD}{value}\n", verdict.word())
    };
    fs::write(path, all.iter().map(line).collect::<String>())?;
    Ok(all)
}

pub fn recorded(path: &Path) -> Outcome<Vec<Figure>> {
    Ok(read(path)?.lines().filter_map(Figure::read).collect())
}

fn read(path: &Path) -> Outcome<String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()).into())
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
