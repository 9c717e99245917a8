//! Where two documents differ first, and how; never what they hold there.

use crate::mongo::raw_value::{self, Value, elements, shown_text};
use bson::RawDocument;
use limosa_model::verification::DifferenceKind;

/// The dotted path of the first difference of `source` and `destination`; `None` when their bytes are equal.
pub(crate) fn first_difference(source: &RawDocument, destination: &RawDocument) -> Option<(String, DifferenceKind)> {
    documents(source.as_bytes(), destination.as_bytes())
}

fn documents(source: &[u8], destination: &[u8]) -> Option<(String, DifferenceKind)> {
    if source == destination {
        return None;
    }
    let (mut left, mut right) = (elements(source), elements(destination));
    loop {
        match (left.next(), right.next()) {
            // Equal as far as can be read.
            (None, None) => return Some((String::new(), DifferenceKind::Value)),
            (Some((name, _)), None) => return Some((shown_text(name), DifferenceKind::Missing)),
            (None, Some((name, _))) => return Some((shown_text(name), DifferenceKind::Extra)),
            (Some((name, x)), Some((other, y))) if name == other => {
                if let Some((path, how)) = values(x, y) {
                    return Some((below(&shown_text(name), &path), how));
                }
            }
            (Some((name, _)), Some((other, _))) => {
                let has = |document, field: &[u8]| elements(document).any(|(own, _)| own == field);
                return Some(if !has(destination, name) {
                    (shown_text(name), DifferenceKind::Missing)
                } else if !has(source, other) {
                    (shown_text(other), DifferenceKind::Extra)
                } else {
                    (shown_text(name), DifferenceKind::FieldOrder)
                });
            }
        }
    }
}

fn below(name: &str, path: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{name}.{path}") }
}

/// By their bytes: `NaN` is equal to itself here, and `0` differs from `-0`.
fn values(a: Value<'_>, b: Value<'_>) -> Option<(String, DifferenceKind)> {
    match a.kind {
        kind if kind != b.kind => Some((String::new(), DifferenceKind::Type)),
        raw_value::DOCUMENT => documents(a.bytes, b.bytes),
        raw_value::ARRAY => arrays(a.bytes, b.bytes),
        _ => (a.bytes != b.bytes).then(|| (String::new(), DifferenceKind::Value)),
    }
}

fn arrays(a: &[u8], b: &[u8]) -> Option<(String, DifferenceKind)> {
    let (mut left, mut right) = (elements(a), elements(b));
    for index in 0_usize.. {
        match (left.next(), right.next()) {
            (None, None) => break,
            (Some(_), None) => return Some((index.to_string(), DifferenceKind::Missing)),
            (None, Some(_)) => return Some((index.to_string(), DifferenceKind::Extra)),
            (Some((_, x)), Some((_, y))) => {
                if let Some((path, how)) = values(x, y) {
                    return Some((below(&index.to_string(), &path), how));
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{RawDocumentBuf, rawdoc};

    #[test]
    fn the_first_difference_is_named() {
        let base = rawdoc! {"_id": 1, "a": {"b": [1, {"c": "x"}]}, "z": 1};
        let cases: Vec<(RawDocumentBuf, &str, DifferenceKind)> = vec![
            (rawdoc! {"_id": 1, "a": {"b": [1, {"c": "y"}]}, "z": 1}, "a.b.1.c", DifferenceKind::Value),
            (rawdoc! {"_id": 1, "a": {"b": [1_i64, {"c": "x"}]}, "z": 1}, "a.b.0", DifferenceKind::Type),
            (rawdoc! {"_id": 1, "a": {"b": [1]}, "z": 1}, "a.b.1", DifferenceKind::Missing),
            (rawdoc! {"_id": 1, "z": 1, "a": {"b": [1, {"c": "x"}]}}, "a", DifferenceKind::FieldOrder),
            (rawdoc! {"_id": 1, "a": {"b": [1, {"c": "x"}]}}, "z", DifferenceKind::Missing),
            (rawdoc! {"_id": 1, "n": 1, "a": {"b": [1, {"c": "x"}]}, "z": 1}, "n", DifferenceKind::Extra),
            (rawdoc! {"_id": 1, "a": {"b": [1, {"c": "x"}]}, "z": 1.0}, "z", DifferenceKind::Type),
        ];
        for (other, path, how) in cases {
            assert_eq!(first_difference(&base, &other), Some((path.to_owned(), how)), "{other:?}");
        }
        assert_eq!(first_difference(&base, &base.clone()), None);
        let zeros = (rawdoc! {"x": 0.0}, rawdoc! {"x": -0.0});
        assert_eq!(first_difference(&zeros.0, &zeros.1), Some(("x".to_owned(), DifferenceKind::Value)));
        let nan = rawdoc! {"x": f64::NAN};
        assert_eq!(first_difference(&nan, &nan.clone()), None);
    }
}
