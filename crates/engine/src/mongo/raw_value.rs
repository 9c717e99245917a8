//! BSON values as their bytes. The server keeps strings that aren't UTF-8, in `_id`s too, which old drivers wrote: what
//! is keyed, compared and sent must not need to decode them.

use bson::{Bson, Decimal128, Document, RawDocument, RawDocumentBuf};

/// The types, as BSON numbers them.
pub(crate) const DOUBLE: u8 = 0x01;
pub(crate) const STRING: u8 = 0x02;
pub(crate) const DOCUMENT: u8 = 0x03;
pub(crate) const ARRAY: u8 = 0x04;
pub(crate) const BINARY: u8 = 0x05;
pub(crate) const UNDEFINED: u8 = 0x06;
pub(crate) const OBJECT_ID: u8 = 0x07;
pub(crate) const BOOLEAN: u8 = 0x08;
pub(crate) const DATE: u8 = 0x09;
pub(crate) const NULL: u8 = 0x0A;
pub(crate) const REGEX: u8 = 0x0B;
pub(crate) const DB_POINTER: u8 = 0x0C;
pub(crate) const CODE: u8 = 0x0D;
pub(crate) const SYMBOL: u8 = 0x0E;
pub(crate) const CODE_WITH_SCOPE: u8 = 0x0F;
pub(crate) const INT32: u8 = 0x10;
pub(crate) const TIMESTAMP: u8 = 0x11;
pub(crate) const INT64: u8 = 0x12;
pub(crate) const DECIMAL: u8 = 0x13;
pub(crate) const MAX_KEY: u8 = 0x7F;
pub(crate) const MIN_KEY: u8 = 0xFF;

/// One value: its type and its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Value<'a> {
    pub kind: u8,
    pub bytes: &'a [u8],
}

/// A number in the type that it has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Number {
    Integer(i64),
    Double(f64),
    Decimal(Decimal128),
}

/// The fields of a document or an array, each with its name as bytes. Ends early where the bytes aren't BSON.
#[derive(Clone, Debug)]
pub(crate) struct Elements<'a> {
    rest: &'a [u8],
}

/// The fields of `document`.
pub(crate) fn elements(document: &[u8]) -> Elements<'_> {
    Elements { rest: document.get(4..).unwrap_or_default() }
}

impl<'a> Iterator for Elements<'a> {
    type Item = (&'a [u8], Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (&kind, rest) = self.rest.split_first().filter(|(kind, _)| **kind != 0)?;
        let parsed = split_name(rest).and_then(|(name, rest)| {
            let (bytes, rest) = rest.split_at_checked(length(kind, rest)?)?;
            Some(((name, Value { kind, bytes }), rest))
        });
        let Some((element, rest)) = parsed else {
            self.rest = &[];
            return None;
        };
        self.rest = rest;
        Some(element)
    }
}

/// A name that ends with a zero, and what is behind it.
fn split_name(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

fn int32(bytes: &[u8]) -> Option<i32> {
    bytes.first_chunk().copied().map(i32::from_le_bytes)
}

/// How many bytes a value of this type has at the beginning of `rest`.
fn length(kind: u8, rest: &[u8]) -> Option<usize> {
    let told = || int32(rest).and_then(|n| usize::try_from(n).ok());
    match kind {
        DOUBLE | DATE | TIMESTAMP | INT64 => Some(8),
        STRING | CODE | SYMBOL => told()?.checked_add(4),
        DOCUMENT | ARRAY | CODE_WITH_SCOPE => told(),
        BINARY => told()?.checked_add(5),
        OBJECT_ID => Some(12),
        BOOLEAN => Some(1),
        REGEX => {
            let (pattern, rest) = split_name(rest)?;
            Some(pattern.len() + split_name(rest)?.0.len() + 2)
        }
        DB_POINTER => told()?.checked_add(16),
        INT32 => Some(4),
        DECIMAL => Some(16),
        UNDEFINED | NULL | MIN_KEY | MAX_KEY => Some(0),
        _ => None,
    }
}

/// The `_id` of a document.
pub(crate) fn id_of(document: &RawDocument) -> Option<Value<'_>> {
    elements(document.as_bytes()).find(|(name, _)| *name == b"_id").map(|(_, id)| id)
}

/// `_id` of a document as it is told to people.
pub(crate) fn shown_id(document: &RawDocument) -> Bson {
    id_of(document).map_or(Bson::Null, Value::shown)
}

impl<'a> Value<'a> {
    /// The bytes of a string, a symbol or code.
    pub fn text(self) -> Option<&'a [u8]> {
        match self.kind {
            STRING | SYMBOL | CODE => self.bytes.get(4..self.bytes.len().checked_sub(1)?),
            _ => None,
        }
    }

    /// The number that it is, if it is one.
    pub fn number(self) -> Option<Number> {
        Some(match self.kind {
            INT32 => Number::Integer(i64::from(int32(self.bytes)?)),
            INT64 => Number::Integer(i64::from_le_bytes(*self.bytes.first_chunk()?)),
            DOUBLE => Number::Double(f64::from_le_bytes(*self.bytes.first_chunk()?)),
            DECIMAL => Number::Decimal(Decimal128::from_bytes(*self.bytes.first_chunk()?)),
            _ => return None,
        })
    }

    /// Whether all text in it can be decoded. Replies of the server that quote it can't be read otherwise.
    pub fn is_utf8(self) -> bool {
        let valid = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
        match self.kind {
            STRING | SYMBOL | CODE => self.text().is_some_and(valid),
            DOCUMENT | ARRAY => elements(self.bytes).all(|(name, value)| valid(name) && value.is_utf8()),
            REGEX => valid(self.bytes),
            DB_POINTER | CODE_WITH_SCOPE => self.decoded().is_some(),
            _ => true,
        }
    }

    /// Whether a symbol is anywhere in it: no index with a collation takes one, and no collated collection as an `_id`.
    pub fn has_symbol(self) -> bool {
        match self.kind {
            SYMBOL => true,
            DOCUMENT | ARRAY => elements(self.bytes).any(|(_, value)| value.has_symbol()),
            _ => false,
        }
    }

    /// As the driver's type; `None` where text in it isn't UTF-8.
    fn decoded(self) -> Option<Bson> {
        let holder = crate::mongo::raw_builder::RawDocBuilder::new().value("v", self).into_bytes();
        let holder = RawDocumentBuf::from_bytes(holder).ok()?;
        Document::try_from(holder.as_ref()).ok()?.remove("v")
    }

    /// As it is told to people: text that isn't UTF-8 with its bytes, so that two that look alike can be told apart.
    pub fn shown(self) -> Bson {
        match self.kind {
            DOCUMENT => {
                let fields = elements(self.bytes).map(|(name, value)| (shown_text(name), value.shown()));
                Bson::Document(fields.collect())
            }
            ARRAY => Bson::Array(elements(self.bytes).map(|(_, value)| value.shown()).collect()),
            _ => self.decoded().unwrap_or_else(|| shown_text(self.text().unwrap_or(self.bytes)).into()),
        }
    }
}

/// The text and the scope of the bytes of code with a scope.
pub(crate) fn scoped(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = bytes.get(4..)?;
    let (code, scope) = rest.get(4..)?.split_at_checked(usize::try_from(int32(rest)?).ok()?)?;
    Some((code, scope))
}

/// A name, or other text, as it is told to people.
pub(crate) fn shown_text(text: &[u8]) -> String {
    match std::str::from_utf8(text) {
        Ok(text) => text.to_owned(),
        Err(_) => {
            let bytes: Vec<String> = text.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{} (not UTF-8: {})", String::from_utf8_lossy(text), bytes.concat())
        }
    }
}

impl crate::mongo::raw_builder::AppendTo for Value<'_> {
    fn kind(&self) -> u8 {
        self.kind
    }

    fn append_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.bytes);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use bson::{doc, rawdoc};

    /// `{_id: <a string of these bytes>}`.
    pub(crate) fn with_text_id(text: &[u8]) -> RawDocumentBuf {
        let mut bytes = ((text.len() + 1) as i32).to_le_bytes().to_vec();
        bytes.extend_from_slice(text);
        bytes.push(0);
        let id = Value { kind: STRING, bytes: &bytes };
        crate::mongo::raw_builder::RawDocBuilder::new().value("_id", id).build().expect("is well formed")
    }

    #[test]
    fn every_type_is_passed_over_by_its_length() {
        let document = doc! {
            "double": 1.5, "string": "s", "document": {"a": 1}, "array": [1, "x"],
            "binary": bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![1, 2, 3] },
            "undefined": Bson::Undefined, "oid": bson::oid::ObjectId::from_bytes([1; 12]), "bool": true,
            "date": bson::DateTime::from_millis(5), "null": Bson::Null,
            "regex": Bson::RegularExpression(bson::Regex {
                pattern: "^a".to_owned().try_into().expect("is text"),
                options: "i".to_owned().try_into().expect("is text"),
            }),
            "code": Bson::JavaScriptCode("f()".into()), "symbol": Bson::Symbol("s".into()),
            "scoped": Bson::JavaScriptCodeWithScope(bson::JavaScriptCodeWithScope { code: "g()".into(), scope: doc! {"x": 1} }),
            "int": 1, "timestamp": Bson::Timestamp(bson::Timestamp { time: 1, increment: 2 }), "long": 1_i64,
            "decimal": Bson::Decimal128("1.5".parse().expect("is one")), "max": Bson::MaxKey, "min": Bson::MinKey,
        };
        let raw = RawDocumentBuf::try_from(&document).expect("is plain");
        let read: Document = elements(raw.as_bytes()).map(|(name, value)| (shown_text(name), value.shown())).collect();
        assert_eq!(read, document);
        assert!(elements(raw.as_bytes()).all(|(_, value)| value.is_utf8()));
    }

    #[test]
    fn text_that_is_not_utf8_is_told_with_its_bytes() {
        let (a, b) = (with_text_id(b"caf\xE9"), with_text_id(b"caf\xE8"));
        assert_eq!(shown_id(&a), Bson::String("caf\u{FFFD} (not UTF-8: 636166e9)".to_owned()));
        assert_ne!(shown_id(&a), shown_id(&b));
        assert!(!id_of(&a).expect("is there").is_utf8());
        assert!(id_of(&rawdoc! {"x": 1, "_id": {"a": ["b"]}}).expect("is there").is_utf8());
        assert_eq!(shown_id(&rawdoc! {"x": 1}), Bson::Null);
    }

    #[test]
    fn what_is_not_bson_ends_early() {
        for bytes in [&[][..], &[5, 0, 0, 0], &[9, 0, 0, 0, 2, b'a', 0, 99, 0], &[9, 0, 0, 0, 0x42, b'a', 0, 0, 0]] {
            assert_eq!(elements(bytes).count(), 0);
        }
    }
}
