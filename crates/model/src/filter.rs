//! Namespaces, and which of them a migration carries.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A database and a collection.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Namespace {
    /// The database.
    pub db: String,
    /// The collection or view.
    pub coll: String,
}

impl Namespace {
    /// `db.coll`.
    pub fn new(db: impl Into<String>, coll: impl Into<String>) -> Self {
        Self { db: db.into(), coll: coll.into() }
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.db, self.coll)
    }
}

impl From<Namespace> for String {
    fn from(ns: Namespace) -> Self {
        ns.to_string()
    }
}

impl TryFrom<String> for Namespace {
    type Error = InvalidPattern;
    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        match text.split_once('.') {
            Some((db, coll)) if !db.is_empty() && !coll.is_empty() => Ok(Self::new(db, coll)),
            _ => Err(InvalidPattern(text)),
        }
    }
}

/// A pattern was neither `db.*` nor `db.collection`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a namespace: write 'db.*' for a whole database or 'db.collection' for one collection")]
pub struct InvalidPattern(pub String);

/// `db.*` or `db.coll`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct NamespacePattern {
    db: String,
    coll: Option<String>,
}

impl NamespacePattern {
    /// What both match, if it is anything.
    fn meet(&self, other: &Self) -> Option<Self> {
        let narrower = if self.coll.is_some() { self } else { other };
        let meets = self.db == other.db && (self.coll.is_none() || other.coll.is_none() || self.coll == other.coll);
        meets.then(|| narrower.clone())
    }

    fn matches(&self, db: &str, coll: &str) -> bool {
        self.db == db && self.coll.as_deref().is_none_or(|own| own == coll || buckets_of(coll) == Some(own))
    }
}

fn buckets_of(coll: &str) -> Option<&str> {
    coll.strip_prefix("system.buckets.")
}

impl FromStr for NamespacePattern {
    type Err = InvalidPattern;
    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        match text.split_once('.') {
            Some((db, "*")) if !db.is_empty() && !db.contains('*') => Ok(Self { db: db.to_owned(), coll: None }),
            Some((db, coll)) if !db.is_empty() && !coll.is_empty() && !text.contains('*') => {
                Ok(Self { db: db.to_owned(), coll: Some(coll.to_owned()) })
            }
            _ => Err(InvalidPattern(text.to_owned())),
        }
    }
}

impl TryFrom<String> for NamespacePattern {
    type Error = InvalidPattern;
    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        text.parse()
    }
}

impl From<NamespacePattern> for String {
    fn from(pattern: NamespacePattern) -> Self {
        format!("{}.{}", pattern.db, pattern.coll.as_deref().unwrap_or("*"))
    }
}

/// What to carry: everything when `include` is empty; `exclude` wins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceFilter {
    /// Only these, if any.
    #[serde(default)]
    pub include: Vec<NamespacePattern>,
    /// Never these.
    #[serde(default)]
    pub exclude: Vec<NamespacePattern>,
}

impl NamespaceFilter {
    /// Whether the user's data in `db.coll` is to be carried. System databases, and the bookkeeping of this and of
    /// other migration tools, never are.
    pub fn admits(&self, db: &str, coll: &str) -> bool {
        !is_internal(db)
            && (!coll.starts_with("system.") || buckets_of(coll).is_some())
            && (self.include.is_empty() || self.include.iter().any(|p| p.matches(db, coll)))
            && !self.exclude.iter().any(|p| p.matches(db, coll))
    }

    /// Whether `db.coll` is chosen, be it something that is never carried or not.
    pub fn chooses(&self, db: &str, coll: &str) -> bool {
        (self.include.is_empty() || self.include.iter().any(|p| p.matches(db, coll)))
            && !self.exclude.iter().any(|p| p.matches(db, coll))
    }

    /// What both admit: this one's choice, within what `outer` leaves to choose from. `None` if that is nothing.
    pub fn within(&self, outer: &Self) -> Option<Self> {
        let include = match (self.include.as_slice(), outer.include.as_slice()) {
            ([], other) | (other, []) => other.to_vec(),
            (own, others) => {
                let pairs = own.iter().flat_map(|one| others.iter().filter_map(|other| one.meet(other)));
                let both: Vec<NamespacePattern> = pairs.fold(Vec::new(), |mut all, pattern| {
                    if !all.contains(&pattern) {
                        all.push(pattern);
                    }
                    all
                });
                if both.is_empty() {
                    return None;
                }
                both
            }
        };
        let more = self.exclude.iter().filter(|pattern| !outer.exclude.contains(pattern));
        Some(Self { include, exclude: outer.exclude.iter().chain(more).cloned().collect() })
    }

    /// Whether some namespace may be admitted by both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let Some(both) = self.within(other) else { return false };
        let is_left =
            |pattern: &NamespacePattern| !both.exclude.iter().any(|out| out.meet(pattern).as_ref() == Some(pattern));
        both.include.is_empty() || both.include.iter().any(is_left)
    }

    /// Whether some namespace of `db` may be admitted.
    pub fn admits_database(&self, db: &str) -> bool {
        !is_internal(db)
            && (self.include.is_empty() || self.include.iter().any(|p| p.db == db))
            && !self.exclude.iter().any(|p| p.db == db && p.coll.is_none())
    }
}

/// Limosa's own database.
pub const OWN_DATABASE: &str = "__limosa";

/// The databases in which other migration tools keep their state, with the tool.
const OF_TOOLS: &[(&str, &str)] = &[
    ("__mdb_internal_migration_verifier", "migration-verifier"),
    ("__mdb_internal_mongosync", "mongosync"),
    ("__mdb_internal_mongosync_verifier_dst", "mongosync"),
    ("__mdb_internal_mongosync_verifier_src", "mongosync"),
    ("migration_verification_metadata", "migration-verifier"),
    ("mongosync_reserved_for_internal_use", "mongosync"),
    ("mongosync_reserved_for_verification_dst_metadata", "mongosync"),
    ("mongosync_reserved_for_verification_src_metadata", "mongosync"),
    ("percona_clustersync_mongodb", "Percona ClusterSync for MongoDB"),
    ("percona_link_mongodb", "Percona Link for MongoDB"),
    ("percona_mongolink", "Percona MongoLink"),
];

/// The migration tool to which the database belongs. Whole names count: an application's own may begin alike.
pub fn tool_of(db: &str) -> Option<&'static str> {
    OF_TOOLS.iter().find(|(name, _)| *name == db).map(|(_, tool)| *tool)
}

/// Databases that belong to the server or to a migration tool.
pub fn is_internal(db: &str) -> bool {
    matches!(db, "admin" | "local" | "config" | OWN_DATABASE) || tool_of(db).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(include: &[&str], exclude: &[&str]) -> NamespaceFilter {
        let all = |texts: &[&str]| texts.iter().filter_map(|t| t.parse().ok()).collect::<Vec<_>>();
        NamespaceFilter { include: all(include), exclude: all(exclude) }
    }

    #[test]
    fn exclusion_wins_and_nothing_internal_is_carried() {
        let f = filter(&["shop.*", "log.a.b"], &["shop.carts"]);
        let cases = [
            ("shop", "orders", true),
            ("shop", "carts", false),
            ("log", "a.b", true),
            ("log", "a", false),
            ("x", "y", false),
        ];
        for (db, coll, expected) in cases {
            assert_eq!(f.admits(db, coll), expected, "{db}.{coll}");
        }
        let all = filter(&[], &["t.series"]);
        assert!(all.admits("t", "system.buckets.other") && !all.admits("t", "system.buckets.series"));
        assert!(!all.admits("t", "system.views") && !all.admits("admin", "x") && !all.admits("__limosa", "x"));
    }

    #[test]
    fn a_choice_within_another_is_what_both_admit() {
        let cases = [
            (filter(&[], &[]), filter(&["a.*"], &["a.x"]), Some(filter(&["a.*"], &["a.x"]))),
            (filter(&["a.*"], &["a.x"]), filter(&[], &[]), Some(filter(&["a.*"], &["a.x"]))),
            (filter(&["a.c", "b.*"], &[]), filter(&["a.*", "b.d"], &[]), Some(filter(&["a.c", "b.d"], &[]))),
            (filter(&["a.*", "a.c"], &[]), filter(&["a.c"], &[]), Some(filter(&["a.c"], &[]))),
            (filter(&[], &["a.x", "b.y"]), filter(&[], &["a.x"]), Some(filter(&[], &["a.x", "b.y"]))),
            (filter(&["a.*"], &[]), filter(&["b.*"], &[]), None),
            (filter(&["a.c"], &[]), filter(&["a.d"], &[]), None),
        ];
        for (inner, outer, expected) in cases {
            let both = inner.within(&outer);
            assert_eq!(both, expected, "{inner:?} within {outer:?}");
            for (db, coll) in [("a", "c"), ("a", "d"), ("a", "x"), ("b", "d"), ("b", "y"), ("c", "c")] {
                let admitted = both.as_ref().is_some_and(|both| both.admits(db, coll));
                assert_eq!(admitted, inner.admits(db, coll) && outer.admits(db, coll), "{db}.{coll}");
            }
        }
    }

    #[test]
    fn databases_of_tools_are_known_by_their_whole_names() {
        let all = NamespaceFilter::default();
        for db in ["percona_stats", "mongosync_notes", "__mdb_internal_x", "__limosa2"] {
            assert!(all.admits(db, "c") && tool_of(db).is_none(), "{db}");
        }
        for db in ["percona_mongolink", "mongosync_reserved_for_internal_use", "__mdb_internal_mongosync"] {
            assert!(!all.admits(db, "c") && tool_of(db).is_some(), "{db}");
        }
    }

    #[test]
    fn filters_overlap_unless_nothing_is_admitted_by_both() {
        let cases = [
            (filter(&[], &[]), filter(&["a.*"], &[]), true),
            (filter(&[], &["a.*"]), filter(&["a.*"], &[]), false),
            (filter(&["a.c"], &["a.*"]), filter(&[], &[]), false),
            (filter(&["a.*"], &["a.c"]), filter(&["a.c"], &[]), false),
            (filter(&["a.*"], &["a.d"]), filter(&["a.c"], &[]), true),
            (filter(&["a.*"], &["a.c"]), filter(&["a.*"], &[]), true),
            (filter(&["a.*"], &[]), filter(&["b.*"], &[]), false),
            (filter(&["a.c", "b.*"], &[]), filter(&["a.d", "b.x"], &[]), true),
        ];
        for (one, other, expected) in cases {
            assert_eq!(one.overlaps(&other), expected, "{one:?} and {other:?}");
            assert_eq!(other.overlaps(&one), expected, "{other:?} and {one:?}");
        }
    }

    #[test]
    fn malformed_patterns_are_refused() {
        for text in ["", "db", "db.", ".c", "*.*", "d*.c", "db.c*"] {
            assert!(text.parse::<NamespacePattern>().is_err(), "{text}");
        }
    }
}
