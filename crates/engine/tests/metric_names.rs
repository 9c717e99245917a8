//! The names in a scrape; the server's tests read theirs with this file too.

use std::collections::{BTreeMap, BTreeSet};

/// Each metric of an OpenMetrics text with its type and, where it has series, the names of their labels: one a line, sorted.
pub fn names(scraped: &str) -> String {
    let mut found: BTreeMap<&str, (&str, BTreeSet<&str>)> = BTreeMap::new();
    let mut family = "";
    for line in scraped.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').expect("a name and a type");
            family = name;
            found.entry(name).or_insert((kind, BTreeSet::new()));
        } else if !line.starts_with('#') {
            assert!(line.starts_with(family), "{line} isn't of {family}");
            let labels = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |(all, _)| all);
            // In a value is neither `="` nor a comma before it, as far as tests choose values.
            let all = labels.split("\",").filter_map(|label| label.split_once("=\"")).map(|(name, _)| name);
            found.entry(family).or_default().1.extend(all.filter(|name| *name != "le"));
        }
    }
    let line = |(name, (kind, labels)): (&str, (&str, BTreeSet<&str>))| {
        let labels = labels.into_iter().collect::<Vec<_>>().join(", ");
        if labels.is_empty() { format!("{name}: {kind}\n") } else { format!("{name}{{{labels}}}: {kind}\n") }
    };
    found.into_iter().map(line).collect()
}
