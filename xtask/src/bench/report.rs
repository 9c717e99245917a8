//! What was measured, as JSON and as a table.

use super::Arguments;
use limosa_testkit::Error;
use serde_json::{Value, json};
use std::{fmt::Write, fs, path::Path};

/// Several measurements of one thing.
#[derive(Clone, Debug)]
pub(crate) struct Measured(pub Vec<f64>);

impl Measured {
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => sorted[n / 2],
            n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
        }
    }

    fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn max(&self) -> f64 {
        self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }
}

/// Whether a ratio or figure is what it should be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
}

pub(crate) struct Report {
    head: Value,
    rows: Vec<Value>,
}

impl Report {
    pub fn new(arguments: &Arguments) -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu =
            cpu.lines().find_map(|l| l.strip_prefix("model name")).map(|l| l.trim_start_matches([' ', '\t', ':']));
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').take(3).collect::<Vec<_>>().join(" ");
        let memory = memory.lines().next().map(|l| l.trim_start_matches("MemTotal:").trim().to_owned());
        Self {
            head: json!({
                "cpu": cpu, "cores": std::thread::available_parallelism().map_or(0, usize::from), "memory": memory,
                "load at the start": load,
                "mongod": limosa_testkit::DEFAULT_VERSION, "limosa": env!("CARGO_PKG_VERSION"),
                "gigabytes": arguments.gb, "shape": format!("{:?}", arguments.shape).to_lowercase(),
                "runs": arguments.runs, "updates": arguments.updates, "seed": arguments.seed, "cache": arguments.cache_gb, "with": arguments.with,
            }),
            rows: Vec::new(),
        }
    }

    /// A figure by itself.
    pub fn figure(&mut self, bench: &str, what: &str, unit: &str, measured: &Measured, target: Option<Target>) {
        self.row(bench, what, unit, measured, None, target);
    }

    /// A figure as the ratio to an anchor's.
    pub fn ratio(&mut self, bench: &str, what: &str, measured: &Measured, anchor: (&str, &Measured), target: Target) {
        let ratio = measured.median() / anchor.1.median();
        self.row(bench, what, "ratio", &Measured(vec![ratio]), Some(anchor.0), Some(target));
    }

    /// Something that could not be measured, and why.
    pub fn missing(&mut self, bench: &str, what: &str, why: &str) {
        println!("  {what}: {why}");
        self.rows.push(json!({"bench": bench, "what": what, "missing": why}));
    }

    fn row(&mut self, bench: &str, what: &str, unit: &str, m: &Measured, to: Option<&str>, target: Option<Target>) {
        let met = target.map(|target| match target {
            Target::AtMost(limit) => m.median() <= limit,
            Target::AtLeast(limit) => m.median() >= limit,
        });
        let wanted = target.map(|target| match target {
            Target::AtMost(limit) => format!("≤ {limit}"),
            Target::AtLeast(limit) => format!("≥ {limit}"),
        });
        let what = to.map_or_else(|| what.to_owned(), |to| format!("{what} / {to}"));
        println!("  {what}: {} {unit}{}", short(m.median()), if met == Some(false) { ", target missed" } else { "" });
        self.rows.push(json!({
            "bench": bench, "what": what, "unit": unit, "values": m.0, "median": m.median(), "min": m.min(),
            "max": m.max(), "target": wanted, "met": met,
        }));
    }

    pub fn write(&self, file: &Path) -> Result<(), Error> {
        if let Some(dir) = file.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(file, serde_json::to_vec_pretty(&json!({"environment": self.head, "rows": self.rows}))?)?;
        fs::write(file.with_extension("md"), format!("{}\n{}", self.circumstances(), self.table()))?;
        Ok(())
    }

    /// On what it was measured, in a sentence.
    fn circumstances(&self) -> String {
        let part = |name: &str| match &self.head[name] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        format!(
            "{} cores ({}), {}, load {} at the start; mongod {}, limosa {}; {} GB of the shape {}, {} updates, seed {}, \
             {} GB of cache a server, {} runs.\n",
            part("cores"),
            part("cpu"),
            part("memory"),
            part("load at the start"),
            part("mongod"),
            part("limosa"),
            part("gigabytes"),
            part("shape"),
            part("updates"),
            part("seed"),
            part("cache"),
            part("runs"),
        )
    }

    pub fn table(&self) -> String {
        let mut table = String::from(
            "| bench | what | median | min – max | unit | target | met |\n|---|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            let number = |name: &str| row[name].as_f64().map_or_else(String::new, short);
            let met = row["met"].as_bool().map_or("", |met| if met { "yes" } else { "no" });
            let (low, high) = (number("min"), number("max"));
            let spread = if low == high { String::new() } else { format!("{low} – {high}") };
            let median = if row["missing"].is_null() { number("median") } else { text("missing") };
            let _ = writeln!(
                table,
                "| {} | {} | {median} | {spread} | {} | {} | {met} |",
                text("bench"),
                text("what"),
                text("unit"),
                text("target")
            );
        }
        table
    }
}

/// Three digits that count.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => format!("{value:.0}"),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
