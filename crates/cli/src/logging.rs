//! The program's log: lines or JSON, to stderr or to a file, and what of it a person should see.

use crate::{args::LogFormat, error::CliError, terminal};
use limosa_model::plain::one_line;
use std::{
    fmt,
    fs::OpenOptions,
    io::{self, IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};
use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    field::MakeExt,
    filter::LevelFilter,
    fmt::{
        FmtContext, FormatEvent, FormatFields, MakeWriter,
        format::{self, Writer},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

/// See [`is_json`].
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// How much a log's line has of one value, in characters.
const LOGGED: usize = 10_000;

fn filter() -> EnvFilter {
    EnvFilter::try_from_env("LIMOSA_LOG").unwrap_or_else(|_| EnvFilter::new("info"))
}

/// Values as a log of lines has them: on one line, without what a terminal would act on.
fn values() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    let value = format::debug_fn(|writer, field, value| {
        let value = one_line(&format!("{value:?}"), LOGGED);
        if field.name() == "message" { write!(writer, "{value}") } else { write!(writer, "{field}={value}") }
    });
    value.delimited(" ")
}

/// Lines of a log, to `writer`.
fn lines<W>(format: LogFormat, ansi: bool, writer: W) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(ansi);
    match format {
        LogFormat::Text => layer.fmt_fields(values()).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_span_list(false).boxed(),
    }
}

/// Whether all that stderr gets is JSON: then what a person would be told is logged.
pub(crate) fn is_json() -> bool {
    IS_JSON.load(Ordering::Relaxed)
}

/// Logs to stderr.
pub(crate) fn log(format: LogFormat) {
    IS_JSON.store(format == LogFormat::Json, Ordering::Relaxed);
    let layer = lines(format, io::stderr().is_terminal(), io::stderr);
    tracing_subscriber::registry().with(layer.with_filter(filter())).init();
}

/// Logs to a file, and what a person should know to stderr, unless the whole terminal is taken.
pub(crate) fn log_to(file: &Path, format: LogFormat) -> Result<(), CliError> {
    let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(file);
    let opened = opened.map_err(|e| CliError::File(file.to_owned(), e))?;
    let to_file = lines(format, false, Mutex::new(opened));
    tracing_subscriber::registry().with(to_file.with_filter(filter())).with(for_people(|| Beside)).init();
    Ok(())
}

/// What a person should know, as lines.
fn for_people<W: for<'a> MakeWriter<'a> + Send + Sync + 'static, S>(writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false).event_format(ForPeople);
    layer.fmt_fields(values()).with_filter(LevelFilter::WARN)
}

/// A line for a person who looks at one migration: how bad it is, and what; neither when nor of which migration.
struct ForPeople;

impl<S, N> FormatEvent<S, N> for ForPeople
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> fmt::Result {
        write!(line, "{:>5} ", event.metadata().level())?;
        ctx.format_fields(line.by_ref(), event)?;
        writeln!(line)
    }
}

/// Stderr, while it shows lines.
struct Beside;

impl Write for Beside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if terminal::is_taken() { Ok(bytes.len()) } else { io::stderr().write(bytes) }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("is whole").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_servers_message_writes_no_line_of_its_own_into_the_log() {
        let hostile = "refused\u{1b}[2J\n2026-01-01T00:00:00Z  INFO limosa: complete\r\u{202e}";
        let kept = Kept::default();
        let writer = kept.clone();
        let layer = lines(LogFormat::Text, false, move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::warn!(error = %hostile, reason = hostile, "told: {hostile}");
        });
        let text = String::from_utf8(kept.0.lock().expect("is whole").clone()).expect("is text");
        let told = text.strip_suffix('\n').expect("is a line");
        assert!(!told.chars().any(|c| c.is_control() || c == '\u{202e}'), "{text:?}");
        assert!(told.contains("told: refused\\u{1b}[2J\\n2026") && told.contains("error=refused"), "{text:?}");
    }

    #[test]
    fn a_person_is_shown_the_level_and_the_words_and_no_span() {
        let kept = Kept::default();
        let writer = kept.clone();
        tracing::subscriber::with_default(
            tracing_subscriber::registry().with(for_people(move || writer.clone())),
            || {
                let _span = tracing::info_span!("migration", id = 1).entered();
                tracing::warn!(reason = "a full disk", "it waits");
                tracing::info!("it continues");
            },
        );
        let text = String::from_utf8(kept.0.lock().expect("is whole").clone()).expect("is text");
        assert_eq!(text, " WARN it waits reason=\"a full disk\"\n");
    }
}
