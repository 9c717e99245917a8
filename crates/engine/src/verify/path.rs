//! Where two documents differ first, and how; never what they hold there.

use bson::{RawBsonRef, RawDocument};
use limosa_model::verification::Departure;

/// The dotted path of the first difference of `source` and `destination`; `None` when their bytes are equal.
pub(crate) fn first_difference(source: &RawDocument, destination: &RawDocument) -> Option<(String, Departure)> {
    if source.as_bytes() == destination.as_bytes() {
        return None;
    }
    let (mut left, mut right) = (source.iter().flatten(), destination.iter().flatten());
    loop {
        match (left.next(), right.next()) {
            // Equal as far as can be read.
            (None, None) => return Some((String::new(), Departure::Value)),
            (Some((name, _)), None) => return Some((name.as_str().to_owned(), Departure::Missing)),
            (None, Some((name, _))) => return Some((name.as_str().to_owned(), Departure::Extra)),
            (Some((name, x)), Some((other, y))) if name == other => {
                if let Some((path, how)) = values(x, y) {
                    let path = if path.is_empty() { name.as_str().to_owned() } else { format!("{name}.{path}") };
                    return Some((path, how));
                }
            }
            (Some((name, _)), Some((other, _))) => {
                let has = |d: &RawDocument, field: &str| d.get(field).ok().flatten().is_some();
                return Some(if !has(destination, name.as_str()) {
                    (name.as_str().to_owned(), Departure::Missing)
                } else if !has(source, other.as_str()) {
                    (other.as_str().to_owned(), Departure::Extra)
                } else {
                    (name.as_str().to_owned(), Departure::FieldOrder)
                });
            }
        }
    }
}

fn values(a: RawBsonRef<'_>, b: RawBsonRef<'_>) -> Option<(String, Departure)> {
    if a.element_type() != b.element_type() {
        return Some((String::new(), Departure::Type));
    }
    match (a, b) {
        (RawBsonRef::Document(x), RawBsonRef::Document(y)) => first_difference(x, y),
        (RawBsonRef::Array(x), RawBsonRef::Array(y)) => arrays(x, y),
        (x, y) => (bytes(x) != bytes(y)).then(|| (String::new(), Departure::Value)),
    }
}

fn arrays(a: &bson::RawArray, b: &bson::RawArray) -> Option<(String, Departure)> {
    let (mut left, mut right) = (a.into_iter().flatten(), b.into_iter().flatten());
    for index in 0_usize.. {
        match (left.next(), right.next()) {
            (None, None) => break,
            (Some(_), None) => return Some((index.to_string(), Departure::Missing)),
            (None, Some(_)) => return Some((index.to_string(), Departure::Extra)),
            (Some(x), Some(y)) => {
                if let Some((path, how)) = values(x, y) {
                    let path = if path.is_empty() { index.to_string() } else { format!("{index}.{path}") };
                    return Some((path, how));
                }
            }
        }
    }
    None
}

/// The value's own bytes: `NaN` is equal to itself here, and `0` differs from `-0`.
fn bytes(value: RawBsonRef<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    crate::raw::AppendTo::append_to(&value, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{RawDocumentBuf, rawdoc};

    #[test]
    fn the_first_difference_is_named() {
        let base = rawdoc! {"_id": 1, "a": {"b": [1, {"c": "x"}]}, "z": 1};
        let cases: Vec<(RawDocumentBuf, &str, Departure)> = vec![
            (rawdoc! {"_id": 1, "a": {"b": [1, {"c": "y"}]}, "z": 1}, "a.b.1.c", Departure::Value),
            (rawdoc! {"_id": 1, "a": {"b": [1_i64, {"c": "x"}]}, "z": 1}, "a.b.0", Departure::Type),
            (rawdoc! {"_id": 1, "a": {"b": [1]}, "z": 1}, "a.b.1", Departure::Missing),
            (rawdoc! {"_id": 1, "z": 1, "a": {"b": [1, {"c": "x"}]}}, "a", Departure::FieldOrder),
            (rawdoc! {"_id": 1, "a": {"b": [1, {"c": "x"}]}}, "z", Departure::Missing),
            (rawdoc! {"_id": 1, "n": 1, "a": {"b": [1, {"c": "x"}]}, "z": 1}, "n", Departure::Extra),
            (rawdoc! {"_id": 1, "a": {"b": [1, {"c": "x"}]}, "z": 1.0}, "z", Departure::Type),
        ];
        for (other, path, how) in cases {
            assert_eq!(first_difference(&base, &other), Some((path.to_owned(), how)), "{other:?}");
        }
        assert_eq!(first_difference(&base, &base.clone()), None);
        let zeros = (rawdoc! {"x": 0.0}, rawdoc! {"x": -0.0});
        assert_eq!(first_difference(&zeros.0, &zeros.1), Some(("x".to_owned(), Departure::Value)));
        let nan = rawdoc! {"x": f64::NAN};
        assert_eq!(first_difference(&nan, &nan.clone()), None);
    }
}
