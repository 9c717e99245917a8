//! Building and reading BSON without turning documents into trees.

use crate::mongo::{
    raw_builder::{RawArrayBuilder, RawDocBuilder},
    raw_value::{self, Number, Value, elements},
};
use bson::{Bson, Document, RawDocument};

/// `document` as a tree: for options, indexes and events of the catalog, never for users' documents.
pub(crate) fn to_document(document: &RawDocument) -> Document {
    Document::try_from(document).unwrap_or_default()
}

/// A number of any type.
pub(crate) fn as_i64(value: Option<&Bson>) -> Option<i64> {
    match value? {
        Bson::Int32(n) => Some(i64::from(*n)),
        Bson::Int64(n) => Some(*n),
        Bson::Double(n) => Some(*n as i64),
        _ => None,
    }
}

/// Whether a field of `document` itself is a timestamp of zeros: an insert, and a replacement too, would put the current
/// time in its place.
#[cfg(feature = "bench")]
pub(crate) fn has_zero_timestamp(document: &RawDocument) -> bool {
    elements(document.as_bytes())
        .any(|(name, value)| value.kind == raw_value::TIMESTAMP && value.bytes == [0; 8] && name != b"_id")
}

/// The `u` of an update statement that puts `document` as it is in a document's place.
pub(crate) fn replacing(document: &RawDocument) -> RawArrayBuilder {
    let literal = RawDocBuilder::new().document("$literal", document.as_bytes()).into_bytes();
    let mut pipeline = RawArrayBuilder::with_capacity(literal.len() + 64);
    pipeline.push_document(&RawDocBuilder::new().document("$replaceWith", &literal).into_bytes());
    pipeline
}

/// A form of `_id` in which values that the server holds equal have equal bytes: numbers of all types are brought to a
/// double, and a symbol is the string of its text. With `folds`, for a collection with a collation, all strings are alike.
/// Different values may come out alike, equal ones never different.
pub(crate) fn canonical_id(id: Value<'_>, folds: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(16);
    canonical(id, folds, &mut out);
    out
}

/// A number as the nearest double and, for whole numbers, what is left then.
fn number(value: Value<'_>) -> Option<(f64, i16)> {
    let whole = |n: i128| (n as f64, (n - (n as f64) as i128) as i16);
    let (number, rest) = match value.number()? {
        Number::Integer(n) => whole(i128::from(n)),
        Number::Double(n) => (n, 0),
        Number::Decimal(n) => {
            let text = n.to_string();
            whole_number(&text).map_or_else(|| (text.parse().unwrap_or(f64::NAN), 0), whole)
        }
    };
    let number = if number.is_nan() { f64::NAN } else { number };
    Some((if number == 0.0 { 0.0 } else { number }, rest))
}

/// A decimal's text as a whole number in the range of the server's, if it is one.
fn whole_number(text: &str) -> Option<i128> {
    let (digits, exponent) = text.split_once('E').unwrap_or((text, "0"));
    let (before, after) = digits.split_once('.').unwrap_or((digits, ""));
    let exponent = exponent.parse::<i32>().ok()? - after.len() as i32;
    let digits: i128 = format!("{before}{after}").parse().ok()?;
    let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
    let whole =
        if exponent >= 0 { digits.checked_mul(power)? } else { (digits % power == 0).then_some(digits / power)? };
    i64::try_from(whole).ok().map(i128::from)
}

fn canonical(value: Value<'_>, folds: bool, out: &mut Vec<u8>) {
    if let Some((number, rest)) = number(value) {
        out.push(raw_value::DOUBLE);
        out.extend_from_slice(&number.to_bits().to_le_bytes());
        out.extend_from_slice(&rest.to_le_bytes());
        return;
    }
    let kind = if value.kind == raw_value::SYMBOL { raw_value::STRING } else { value.kind };
    out.push(kind);
    match kind {
        raw_value::STRING if folds => {}
        raw_value::DOCUMENT => {
            for (name, element) in elements(value.bytes) {
                out.extend_from_slice(name);
                out.push(0);
                canonical(element, folds, out);
            }
            out.push(0);
        }
        raw_value::ARRAY => {
            elements(value.bytes).for_each(|(_, element)| canonical(element, folds, out));
            out.push(0);
        }
        _ => out.extend_from_slice(value.bytes),
    }
}

/// Bytes of `_id`s that one command asks for: half of what the server takes.
const RUN_BYTES: usize = 8 * 1024 * 1024;

/// `all` in runs of at most `most`, shorter where they are large: an `_id` may be nearly as large as a document.
pub(crate) fn chunks_by_size<T>(all: &[T], most: usize, size: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let (mut runs, mut first, mut bytes) = (Vec::new(), 0, 0);
    for (n, one) in all.iter().enumerate() {
        let own = size(one);
        if n > first && (n - first == most || bytes + own > RUN_BYTES) {
            runs.push(&all[first..n]);
            (first, bytes) = (n, 0);
        }
        bytes += own;
    }
    runs.extend((first < all.len()).then(|| &all[first..]));
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{RawDocumentBuf, doc, rawdoc};

    fn canonical_of(id: Bson) -> Vec<u8> {
        let raw = RawDocumentBuf::try_from(&doc! { "_id": id }).unwrap_or_default();
        raw_value::id_of(&raw).map(|id| canonical_id(id, false)).unwrap_or_default()
    }

    #[test]
    fn a_symbol_and_a_string_of_one_text_are_one_id() {
        let (symbol, string) = (Bson::Symbol("a".into()), Bson::String("a".into()));
        assert_eq!(canonical_of(symbol.clone()), canonical_of(string.clone()));
        assert_eq!(canonical_of(doc! {"x": symbol.clone()}.into()), canonical_of(doc! {"x": string.clone()}.into()));
        assert_eq!(canonical_of(vec![symbol.clone()].into()), canonical_of(vec![string].into()));
        assert_ne!(canonical_of(symbol), canonical_of(Bson::JavaScriptCode("a".into())));
    }

    #[test]
    fn ids_that_are_not_utf8_are_told_apart() {
        let of = |text: &[u8]| {
            let document = raw_value::tests::with_text_id(text);
            canonical_id(raw_value::id_of(&document).expect("is there"), false)
        };
        assert_ne!(of(b"caf\xE9"), of(b"caf\xE8"));
        assert_ne!(of(b"caf\xE9"), Vec::<u8>::new());
    }

    #[test]
    fn numbers_that_the_server_holds_equal_are_one_id() {
        let one = canonical_of(Bson::Int32(1));
        let decimal: bson::Decimal128 = "1.0".parse().expect("a decimal");
        for same in [Bson::Int64(1), Bson::Double(1.0), Bson::Decimal128(decimal)] {
            assert_eq!(canonical_of(same), one);
        }
        let large = 9_007_199_254_740_993_i64;
        for same in ["9007199254740993", "9007199254740993.0", "9.007199254740993E+15"] {
            assert_eq!(canonical_of(Bson::Decimal128(same.parse().expect("a decimal"))), canonical_of(large.into()));
        }
        assert_ne!(canonical_of(large.into()), canonical_of((large - 1).into()));
        assert_eq!(canonical_of((large - 1).into()), canonical_of(9_007_199_254_740_992_f64.into()));
        assert_eq!(canonical_of(Bson::Double(-0.0)), canonical_of(Bson::Int32(0)));
        assert_eq!(canonical_of(doc! {"a": 1}.into()), canonical_of(doc! {"a": 1.0}.into()));
        assert_ne!(canonical_of(Bson::String("1".into())), one);
        assert_ne!(canonical_of(doc! {"a": 1, "b": 2}.into()), canonical_of(doc! {"b": 2, "a": 1}.into()));
    }

    #[test]
    fn a_command_is_built_from_bytes() {
        let document = rawdoc! { "_id": 1, "x": [1, 2] };
        let mut array = RawArrayBuilder::with_capacity(0);
        for _ in 0..12 {
            array.push_document(document.as_bytes());
        }
        let built =
            RawDocBuilder::new().extend(&doc! {"insert": "c"}).expect("plain").array("documents", array).build();
        let expected = doc! {"insert": "c", "documents": vec![doc!{"_id": 1, "x": [1, 2]}; 12]};
        assert_eq!(to_document(&built.expect("well formed")), expected);
    }

    #[test]
    fn runs_are_bounded_in_number_and_in_bytes() {
        let of = |sizes: &[usize], most| {
            chunks_by_size(sizes, most, |size| *size).iter().map(|run| run.len()).collect::<Vec<_>>()
        };
        assert_eq!(of(&[1; 7], 3), [3, 3, 1]);
        assert_eq!(of(&[RUN_BYTES, 1, 1, RUN_BYTES * 2, 1], 3), [1, 2, 1, 1]);
        assert!(of(&[], 3).is_empty());
    }
}
