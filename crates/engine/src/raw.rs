//! Building and reading BSON without turning documents into trees.

use bson::{Bson, Document, RawBsonRef, RawDocument, RawDocumentBuf, raw::cstr};
use mongodb::error::Error;

/// A BSON array under construction whose elements are appended as bytes.
pub(crate) struct RawArrayBuilder {
    bytes: Vec<u8>,
    len: usize,
}

impl RawArrayBuilder {
    pub fn with_capacity(bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(bytes + 16);
        buffer.extend_from_slice(&[0; 4]);
        Self { bytes: buffer, len: 0 }
    }

    pub fn push_document(&mut self, document: &[u8]) {
        self.bytes.push(0x03);
        let index = self.len;
        self.bytes.extend_from_slice(index.to_string().as_bytes());
        self.bytes.push(0);
        self.bytes.extend_from_slice(document);
        self.len += 1;
    }

    pub fn push_value(&mut self, value: RawBsonRef<'_>) {
        self.bytes.push(value.element_type() as u8);
        let index = self.len;
        self.bytes.extend_from_slice(index.to_string().as_bytes());
        self.bytes.push(0);
        value.append_to(&mut self.bytes);
        self.len += 1;
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes.push(0);
        let len = self.bytes.len() as i32;
        self.bytes[..4].copy_from_slice(&len.to_le_bytes());
        self.bytes
    }
}

/// Appends a value's BSON bytes, without type and name.
pub(crate) trait AppendTo {
    fn append_to(&self, out: &mut Vec<u8>);
}

impl AppendTo for RawBsonRef<'_> {
    fn append_to(&self, out: &mut Vec<u8>) {
        let mut holder = RawDocumentBuf::new();
        holder.append(cstr!(""), *self);
        let bytes = holder.as_bytes();
        out.extend_from_slice(&bytes[6..bytes.len() - 1]);
    }
}

/// A document under construction whose fields may hold prepared bytes.
pub(crate) struct RawDocBuilder {
    bytes: Vec<u8>,
}

impl RawDocBuilder {
    pub fn new() -> Self {
        Self { bytes: vec![0; 4] }
    }

    pub fn value(mut self, name: &str, value: RawBsonRef<'_>) -> Self {
        self.key(value.element_type() as u8, name);
        value.append_to(&mut self.bytes);
        self
    }

    pub fn document(mut self, name: &str, document: &[u8]) -> Self {
        self.key(0x03, name);
        self.bytes.extend_from_slice(document);
        self
    }

    pub fn array(mut self, name: &str, array: RawArrayBuilder) -> Self {
        self.key(0x04, name);
        self.bytes.extend_from_slice(&array.finish());
        self
    }

    pub fn extend(mut self, fields: &Document) -> Result<Self, Error> {
        let raw = RawDocumentBuf::try_from(fields).map_err(Error::custom)?;
        let bytes = raw.as_bytes();
        self.bytes.extend_from_slice(&bytes[4..bytes.len() - 1]);
        Ok(self)
    }

    fn key(&mut self, element_type: u8, name: &str) {
        self.bytes.push(element_type);
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
    }

    pub fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.push(0);
        let len = self.bytes.len() as i32;
        self.bytes[..4].copy_from_slice(&len.to_le_bytes());
        self.bytes
    }

    pub fn build(self) -> Result<RawDocumentBuf, Error> {
        RawDocumentBuf::from_bytes(self.into_bytes()).map_err(Error::custom)
    }
}

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

/// A form of `_id` in which values that the server holds equal have equal bytes: whole numbers of all numeric types
/// become one. Decimals and fractions are brought to a double, which may make different ones alike but never equal
/// ones different.
pub(crate) fn canonical_id(id: RawBsonRef<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(16);
    canonical(id, &mut out);
    out
}

fn canonical(value: RawBsonRef<'_>, out: &mut Vec<u8>) {
    let number = match value {
        RawBsonRef::Int32(n) => Some(f64::from(n)),
        RawBsonRef::Int64(n) => Some(n as f64),
        RawBsonRef::Double(n) => Some(n),
        RawBsonRef::Decimal128(n) => Some(n.to_string().parse().unwrap_or(f64::NAN)),
        _ => None,
    };
    if let Some(number) = number {
        out.push(0x01);
        let number = if number == 0.0 {
            0.0
        } else if number.is_nan() {
            f64::NAN
        } else {
            number
        };
        out.extend_from_slice(&number.to_bits().to_le_bytes());
        return;
    }
    out.push(value.element_type() as u8);
    match value {
        RawBsonRef::Document(document) => {
            for element in document.iter().flatten() {
                out.extend_from_slice(element.0.as_str().as_bytes());
                out.push(0);
                canonical(element.1, out);
            }
            out.push(0);
        }
        RawBsonRef::Array(array) => {
            for element in array.into_iter().flatten() {
                canonical(element, out);
            }
            out.push(0);
        }
        other => other.append_to(out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{doc, rawdoc};

    fn canonical_of(id: Bson) -> Vec<u8> {
        let raw = RawDocumentBuf::try_from(&doc! { "_id": id }).unwrap_or_default();
        raw.get("_id").ok().flatten().map(canonical_id).unwrap_or_default()
    }

    #[test]
    fn numbers_that_the_server_holds_equal_are_one_id() {
        let one = canonical_of(Bson::Int32(1));
        let decimal: bson::Decimal128 = "1.0".parse().expect("a decimal");
        for same in [Bson::Int64(1), Bson::Double(1.0), Bson::Decimal128(decimal)] {
            assert_eq!(canonical_of(same), one);
        }
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
}
