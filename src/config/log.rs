//! `[log]`: what is written about what happens.

use std::collections::BTreeMap;

use super::errors::Problem;
use super::reader::Section;

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// From which level on.
    pub level: Level,
    /// How a line looks.
    pub format: Format,
    /// Whether there is a line for each request.
    pub access: bool,
    /// Fields that every line carries.
    pub fields: BTreeMap<String, String>,
}

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Something is broken.
    Error,
    /// Something may break.
    Warn,
    /// What an operator wants to know.
    Info,
    /// What a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

const LEVELS: [(&str, Level); 5] = [
    ("error", Level::Error),
    ("warn", Level::Warn),
    ("info", Level::Info),
    ("debug", Level::Debug),
    ("trace", Level::Trace),
];
const FORMATS: [(&str, Format); 2] = [("text", Format::Text), ("json", Format::Json)];

const FIELDS_MAX: usize = 64;
const FIELD_NAME: &str = "names made of letters, digits, . _ and -, at most 64 of them";

/// What lines have of their own: a second field of the same name would hide it from whoever reads them.
const RESERVED_NAMES: [&str; 18] = [
    "timestamp",
    "level",
    "message",
    "request_id",
    "client",
    "user",
    "method",
    "target",
    "status",
    "complete",
    "received",
    "sent",
    "milliseconds",
    "route",
    "backend",
    "tier",
    "user_agent",
    "error",
];

/// Reads `[log]`.
pub(super) fn read_log(section: &mut Section<'_>) -> Log {
    let default = Log::default();
    Log {
        level: section.choice("level", default.level, &LEVELS),
        format: section.choice("format", default.format, &FORMATS),
        access: section.boolean("access", default.access),
        fields: read_fields(section),
    }
}

fn read_fields(section: &mut Section<'_>) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    for (name, node) in section.entries("fields", "table of strings") {
        if !is_field_name(&name) {
            section.refuse_name(&node.place, "fields", &name, FIELD_NAME);
            continue;
        }
        if RESERVED_NAMES.contains(&name.as_str()) {
            let allowed = format!("names that lines do not have of their own, which are {}", RESERVED_NAMES.join(", "));
            section.refuse_name(&node.place, "fields", &name, &allowed);
            continue;
        }
        match node.value.as_text() {
            Some(text) => drop(fields.insert(name, text.to_owned())),
            None => section.refuse(&node, &format!("{}.{name}", section.join("fields")), "a string", None),
        }
    }
    if fields.len() > FIELDS_MAX {
        let path = section.join("fields");
        let place = section.report.place(&path).unwrap_or_else(|| section.report.file());
        let found = format!("{} fields", fields.len());
        let problem = Problem::Value { found, allowed: format!("at most {FIELDS_MAX}"), nearest: None };
        section.report.error(place, &path, problem);
    }
    fields
}

fn is_field_name(text: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=64).contains(&text.len()) && text.bytes().all(known)
}
