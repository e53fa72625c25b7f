//! The log: lines on standard error, as text or as JSON.

use std::borrow::Cow;
use std::fmt::Debug;
use std::io::{self, Write};

use tracing::Metadata;
use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use super::sink::{Flush, Sink, Urgency};
use crate::config::{Format, Level, Log};

/// The target of access lines.
const ACCESS: &str = "access";

/// Begins the log. Called once, before anything is logged; a second call changes nothing.
pub fn init(settings: &Log) -> io::Result<Flush> {
    let (sink, flush) = Sink::start(io::stderr())?;
    let writer = Fields { prefix: prefix(settings), sink };
    let layer = match settings.format {
        Format::Text => {
            let fields = fmt::format::debug_fn(write_field).delimited(" ");
            fmt::layer().fmt_fields(fields).with_writer(writer).with_ansi(false).with_target(false).boxed()
        }
        Format::Json => fmt::layer().json().flatten_event(true).with_writer(writer).with_target(false).boxed(),
    };
    // Fails only where a log was begun already.
    let _ = tracing_subscriber::registry().with(layer.with_filter(targets(settings.level))).try_init();
    Ok(flush)
}

/// Access lines do not depend on the level: `log.access` alone says whether there are any. What libraries say is kept to
/// warnings: at their finest they print headers, and so credentials.
fn targets(level: Level) -> Targets {
    let level = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let libraries = level.min(LevelFilter::WARN);
    Targets::new().with_default(libraries).with_target("dockgate", level).with_target(ACCESS, LevelFilter::INFO)
}

/// `name=value`; the message stands alone.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> std::fmt::Result {
    let value = format!("{value:?}");
    match field.name() {
        "message" => writer.write_str(&value),
        name => write!(writer, "{name}={}", quoted(&value)),
    }
}

/// The value, in quotes where it could be taken for more than one, or for the next field.
fn quoted(value: &str) -> Cow<'_, str> {
    let parts_fields = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '=' | '"');
    if value.is_empty() || value.contains(parts_fields) && !is_quoted(value) {
        Cow::Owned(format!("{value:?}"))
    } else {
        Cow::Borrowed(value)
    }
}

/// Whether it stands in quotes as a whole, as `Debug` writes strings.
fn is_quoted(value: &str) -> bool {
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return false };
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        let is_fine = match character {
            '\\' => characters.next().is_some(),
            '"' => false,
            character => !character.is_control(),
        };
        if !is_fine {
            return false;
        }
    }
    true
}

/// What every line begins with: `log.fields`.
fn prefix(settings: &Log) -> String {
    let fields = settings.fields.iter();
    match settings.format {
        Format::Text => fields.map(|(key, value)| format!("{key}={} ", quoted(value))).collect(),
        Format::Json if settings.fields.is_empty() => String::new(),
        Format::Json => {
            let fields = fields.map(|(key, value)| format!("{}:{},", serde_json::json!(key), serde_json::json!(value)));
            format!("{{{}", fields.collect::<String>())
        }
    }
}

/// Where lines go, each with the fields that all of them have.
struct Fields {
    prefix: String,
    sink: Sink,
}

/// One line: tracing writes each whole.
struct Line<'a> {
    fields: &'a Fields,
    urgency: Urgency,
}

impl<'a> MakeWriter<'a> for Fields {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { fields: self, urgency: Urgency::News }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        let urgency = if metadata.target() == ACCESS { Urgency::Routine } else { Urgency::News };
        Line { fields: self, urgency }
    }
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Fields { prefix, sink } = self.fields;
        sink.push(&[prefix.as_bytes(), behind(prefix, line)], self.urgency);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What of `line` comes behind the prefix: an object that it began is gone on with.
fn behind<'a>(prefix: &str, line: &'a [u8]) -> &'a [u8] {
    if prefix.starts_with('{') { line.strip_prefix(b"{").unwrap_or(line) } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(format: Format) -> Log {
        let fields = [("service".to_owned(), "reg\"istry".to_owned())].into();
        Log { format, fields, ..crate::config::Config::default().log }
    }

    #[test]
    fn a_value_could_be_taken_for_another_field() {
        for (value, expected) in [
            ("-", "-"),
            ("ada", "ada"),
            ("", r#""""#),
            ("a b", r#""a b""#),
            ("a=b", r#""a=b""#),
            ("a\nb", r#""a\nb""#),
            (r#""a" user="b""#, r#""\"a\" user=\"b\"""#),
            (r#""a b""#, r#""a b""#),
            (r#""a \" b""#, r#""a \" b""#),
            (r#""a b\""#, r#""\"a b\\\"""#),
            (r#"""#, r#""\"""#),
        ] {
            assert_eq!(quoted(value), expected, "{value}");
        }
    }

    #[test]
    fn fields_stand_at_the_beginning_of_every_line() {
        assert_eq!(prefix(&settings(Format::Text)), r#"service="reg\"istry" "#);
        let prefix = prefix(&settings(Format::Json));
        let line = [prefix.as_bytes(), behind(&prefix, br#"{"level":"INFO"}"#)].concat();
        let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!((&line["service"], &line["level"]), (&"reg\"istry".into(), &"INFO".into()));
    }
}
