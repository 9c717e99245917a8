//! BSON under construction, whose parts are appended as bytes.

use bson::{Document, RawBsonRef, RawDocumentBuf, raw::cstr};
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

    pub fn push_value(&mut self, value: impl AppendTo) {
        self.bytes.push(value.kind());
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

/// A value that can be put into a document.
pub(crate) trait AppendTo: Copy {
    /// Its type, as BSON numbers them.
    fn kind(&self) -> u8;

    /// Appends its BSON bytes, without type and name.
    fn append_to(&self, out: &mut Vec<u8>);
}

impl AppendTo for RawBsonRef<'_> {
    fn kind(&self) -> u8 {
        self.element_type() as u8
    }

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

    pub fn value(mut self, name: &str, value: impl AppendTo) -> Self {
        self.key(value.kind(), name);
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
