//! Whether an update event's delta says exactly what changed, and the update that it becomes.
//!
//! Only deltas of top-level fields count as exact here unless the server marks ambiguous paths: before 6.1 a literal
//! field `p.q` looks just like a nested path. Everything else is read again from the source.

use crate::{
    destination::document_shape::Fields,
    mongo::{
        raw_builder::{RawArrayBuilder, RawDocBuilder},
        raw_value::{self, Value},
    },
};
use bson::{RawBsonRef, RawDocument};

/// Changes of one document's fields, in the order in which the source has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Delta {
    set: Vec<(String, Stored)>,
    unset: Vec<String>,
    truncate: Vec<(String, i32)>,
}

/// A value's type and bytes, as the source has them. The library's own types would sort a regular expression's options.
#[derive(Clone, Debug, PartialEq)]
struct Stored {
    kind: u8,
    bytes: Vec<u8>,
}

impl Delta {
    /// The delta of an `updateDescription`; `None` if it isn't exact.
    pub fn exact(description: &RawDocument) -> Option<Self> {
        let marked = description.get_document("disambiguatedPaths").ok();
        let plain = |path: &str| {
            let parts_are_names = path
                .split('.')
                .all(|part| !part.is_empty() && !part.starts_with('$') && !part.bytes().all(|b| b.is_ascii_digit()));
            let unambiguous = match marked {
                Some(marked) => marked.get(path).ok().flatten().is_none(),
                None => !path.contains('.'),
            };
            parts_are_names && unambiguous
        };
        let mut delta = Self::default();
        let updated = description.get_document("updatedFields").ok()?.as_bytes();
        for (name, Value { kind, bytes }) in raw_value::elements(updated) {
            let path = std::str::from_utf8(name).ok().filter(|path| plain(path))?;
            if delta.set.iter().any(|(other, _)| other == path) {
                return None;
            }
            delta.set.push((path.to_owned(), Stored { kind, bytes: bytes.to_vec() }));
        }
        if let Ok(removed) = description.get_array("removedFields") {
            for path in removed {
                let path = path.ok()?.as_str()?;
                if !plain(path) {
                    return None;
                }
                delta.unset.push(path.to_owned());
            }
        }
        if let Ok(truncated) = description.get_array("truncatedArrays") {
            for entry in truncated {
                let entry = entry.ok()?.as_document()?;
                let path = entry.get_str("field").ok()?;
                let touched = |other: &String| {
                    other == path || other.starts_with(&format!("{path}.")) || path.starts_with(&format!("{other}."))
                };
                if !plain(path) || delta.set.iter().any(|(other, _)| touched(other)) || delta.unset.iter().any(touched)
                {
                    return None;
                }
                delta.truncate.push((path.to_owned(), entry.get_i32("newSize").ok()?));
            }
        }
        let ordered = delta.is_sorted();
        let nested =
            delta.set.iter().any(|(path, _)| path.contains('.')) || delta.unset.iter().any(|p| p.contains('.'));
        if !ordered && (nested || !delta.truncate.is_empty()) {
            return None;
        }
        Some(delta)
    }

    /// `$set` creates fields sorted by name; in any other order it would place them differently from the source.
    fn is_sorted(&self) -> bool {
        self.set.windows(2).all(|pair| pair[0].0 < pair[1].0)
    }

    /// This delta followed by `later`, as one; `None` when only both in turn give the same.
    pub fn then(&self, later: &Self) -> Option<Self> {
        let nested = |d: &Self| d.set.iter().any(|(p, _)| p.contains('.')) || d.unset.iter().any(|p| p.contains('.'));
        let created_again = later.set.iter().any(|(path, _)| self.unset.contains(path));
        if created_again || nested(self) || nested(later) || !self.truncate.is_empty() || !later.truncate.is_empty() {
            return None;
        }
        let mut merged = self.clone();
        for (path, value) in &later.set {
            match merged.set.iter_mut().find(|(own, _)| own == path) {
                Some((_, own)) => *own = value.clone(),
                None => merged.set.push((path.clone(), value.clone())),
            }
        }
        for path in &later.unset {
            merged.set.retain(|(own, _)| own != path);
            if !merged.unset.contains(path) {
                merged.unset.push(path.clone());
            }
        }
        Some(merged)
    }

    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        self.set.iter().map(|(path, value)| path.len() + value.bytes.len() + 16).sum::<usize>()
            + self.unset.iter().map(|p| p.len() + 16).sum::<usize>()
            + 64
    }

    /// The updates that carry it out, one after the other: a new one wherever a field doesn't come in the order of names,
    /// in which one update creates all of its fields.
    pub fn updates(&self) -> Vec<Vec<u8>> {
        let mut runs: Vec<&[(String, Stored)]> = self.set.chunk_by(|(a, _), (b, _)| a < b).collect();
        let last = runs.pop().unwrap_or_default();
        let mut updates: Vec<Vec<u8>> =
            runs.into_iter().map(|run| RawDocBuilder::new().document("$set", &fields(run)).into_bytes()).collect();
        let mut update = RawDocBuilder::new();
        if !last.is_empty() {
            update = update.document("$set", &fields(last));
        }
        if !self.unset.is_empty() {
            let empty = RawBsonRef::String("");
            let unset = self.unset.iter().fold(RawDocBuilder::new(), |d, path| d.value(path, empty));
            update = update.document("$unset", &unset.into_bytes());
        }
        if !self.truncate.is_empty() {
            let push = self.truncate.iter().fold(RawDocBuilder::new(), |d, (path, size)| {
                let slice = RawDocBuilder::new()
                    .array("$each", RawArrayBuilder::with_capacity(0))
                    .value("$slice", RawBsonRef::Int32(*size));
                d.document(path, &slice.into_bytes())
            });
            update = update.document("$push", &push.into_bytes());
        }
        if !self.is_empty() {
            updates.push(update.into_bytes());
        }
        updates
    }

    /// Takes fields away.
    pub fn removes(&self) -> bool {
        !self.unset.is_empty()
    }

    /// Changes nothing: a statement must not be made of it.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.unset.is_empty() && self.truncate.is_empty()
    }
}

fn fields(run: &[(String, Stored)]) -> Vec<u8> {
    let mut set = Fields::default();
    run.iter().for_each(|(path, value)| set.push(path.as_bytes(), Value { kind: value.kind, bytes: &value.bytes }));
    set.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Document, RawDocumentBuf, doc};

    fn updates(delta: &Delta) -> Vec<Document> {
        let all = delta.updates().into_iter();
        all.map(|u| crate::mongo::raw_bson::to_document(&RawDocumentBuf::from_bytes(u).expect("well formed"))).collect()
    }

    fn exact(description: &Document) -> Option<Vec<Document>> {
        let raw = RawDocumentBuf::try_from(description).expect("plain");
        Delta::exact(&raw).map(|delta| updates(&delta))
    }

    #[test]
    fn exact_deltas_become_updates() {
        let got = exact(
            &doc! {"updatedFields": {"a": 1, "b": {"x": 1}}, "removedFields": ["c"], "truncatedArrays": [{"field": "d", "newSize": 0}]},
        );
        assert_eq!(
            got,
            Some(vec![
                doc! {"$set": {"a": 1, "b": {"x": 1}}, "$unset": {"c": ""}, "$push": {"d": {"$each": [], "$slice": 0}}}
            ])
        );
        let unsorted = exact(&doc! {"updatedFields": {"z": 1, "a": "$x"}, "removedFields": ["c"]});
        assert_eq!(unsorted, Some(vec![doc! {"$set": {"z": 1}}, doc! {"$set": {"a": "$x"}, "$unset": {"c": ""}}]));
    }

    #[test]
    fn what_could_mean_two_things_is_not_exact() {
        for description in [
            doc! {"updatedFields": {"p.q": 2}, "removedFields": []},
            doc! {"updatedFields": {"0": 2}, "removedFields": []},
            doc! {"updatedFields": {"$x": 2}, "removedFields": []},
            doc! {"updatedFields": {"": 2}, "removedFields": []},
            doc! {"updatedFields": {}, "removedFields": ["a.b"]},
            doc! {"updatedFields": {"p.q": 2}, "removedFields": [], "disambiguatedPaths": {"p.q": ["p.q"]}},
            doc! {"updatedFields": {"d.1": 2}, "truncatedArrays": [{"field": "d", "newSize": 2}], "disambiguatedPaths": {}},
        ] {
            assert_eq!(exact(&description), None, "{description}");
        }
        assert!(exact(&doc! {"updatedFields": {"p.q": 2}, "removedFields": [], "disambiguatedPaths": {}}).is_some());
    }

    #[test]
    fn a_value_keeps_its_bytes() {
        let mut regex = Fields::default();
        regex.push(b"r", Value { kind: raw_value::REGEX, bytes: b"a\0xi\0" });
        let mut description = Fields::default();
        let regex = regex.finish();
        description.push(b"updatedFields", Value { kind: raw_value::DOCUMENT, bytes: &regex });
        let description = RawDocumentBuf::from_bytes(description.finish()).expect("well formed");
        let updates = Delta::exact(&description).expect("exact").updates();
        let mut want = Fields::default();
        want.push(b"$set", Value { kind: raw_value::DOCUMENT, bytes: &regex });
        assert_eq!(updates, [want.finish()]);
    }

    #[test]
    fn deltas_merge_only_where_order_does_not_matter() {
        let delta = |d: Document| Delta::exact(&RawDocumentBuf::try_from(&d).expect("plain")).expect("exact");
        let first = delta(doc! {"updatedFields": {"a": 1, "b": 1}, "removedFields": ["c"]});
        let merged = first.then(&delta(doc! {"updatedFields": {"b": 2}, "removedFields": ["a"]})).expect("merges");
        assert_eq!(updates(&merged), [doc! {"$set": {"b": 2}, "$unset": {"c": "", "a": ""}}]);
        assert_eq!(first.then(&delta(doc! {"updatedFields": {"c": 2}, "removedFields": []})), None);
    }
}
