//! What in a document's shape decides how it can be written: timestamps of zeros, names that an update would take for
//! something else. Read as bytes, since names needn't be UTF-8, and may come twice.

use crate::mongo::raw_value::{self, TIMESTAMP, Value};

/// A document under construction whose fields are appended as they are stored.
#[derive(Default)]
pub(crate) struct Fields {
    body: Vec<u8>,
}

impl Fields {
    pub fn push(&mut self, name: &[u8], value: Value<'_>) {
        self.body.push(value.kind);
        self.body.extend_from_slice(name);
        self.body.push(0);
        self.body.extend_from_slice(value.bytes);
    }

    /// All fields of another document.
    pub fn extend(&mut self, document: &[u8]) {
        self.body.extend_from_slice(document.get(4..document.len().saturating_sub(1)).unwrap_or_default());
    }

    pub fn finish(self) -> Vec<u8> {
        let mut bytes = (self.body.len() as i32 + 5).to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.body);
        bytes.push(0);
        bytes
    }
}

/// Where a document itself has timestamps of zeros. An insert, and a replacement too, puts the current time in their place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Zeros<'a> {
    None,
    /// Under these names, by each of which an update finds it.
    Named(Vec<&'a [u8]>),
    /// Under a name by which no update finds it: one that an earlier field has too, or that would be taken for a path.
    Elsewhere,
}

/// See [`Zeros`].
pub(crate) fn zeros(document: &[u8]) -> Zeros<'_> {
    let mut found: Vec<&[u8]> = Vec::new();
    for (place, (name, value)) in raw_value::elements(document).enumerate() {
        if value.kind != TIMESTAMP || value.bytes != [0; 8] || name == b"_id" {
            continue;
        }
        let plain =
            !name.is_empty() && !name.starts_with(b"$") && !name.contains(&b'.') && std::str::from_utf8(name).is_ok();
        if !plain || raw_value::elements(document).take(place).any(|(other, _)| other == name) {
            return Zeros::Elsewhere;
        }
        found.push(name);
    }
    if found.is_empty() { Zeros::None } else { Zeros::Named(found) }
}

/// Whether a field of `document` itself has a name that begins like an operator's.
pub(crate) fn has_dollar_name(document: &[u8]) -> bool {
    raw_value::elements(document).any(|(name, _)| name.starts_with(b"$"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(fields: &[(u8, &[u8], &[u8])]) -> Vec<u8> {
        let mut all = Fields::default();
        fields.iter().for_each(|(kind, name, bytes)| all.push(name, Value { kind: *kind, bytes }));
        all.finish()
    }

    #[test]
    fn zeros_are_found_behind_names_that_are_not_utf_8() {
        let zero: &[u8] = &[0; 8];
        let odd = built(&[(0x10, b"_id", &[1, 0, 0, 0]), (0x10, b"\xff", &[1, 0, 0, 0]), (TIMESTAMP, b"t", zero)]);
        assert_eq!(zeros(&odd), Zeros::Named(vec![b"t"]));
        assert_eq!(zeros(&built(&[(TIMESTAMP, b"\xff", zero)])), Zeros::Elsewhere);
        assert_eq!(zeros(&built(&[(TIMESTAMP, b"a.b", zero)])), Zeros::Elsewhere);
        assert_eq!(zeros(&built(&[(TIMESTAMP, b"t", zero), (TIMESTAMP, b"t", zero)])), Zeros::Elsewhere);
        assert_eq!(zeros(&built(&[(TIMESTAMP, b"t", zero), (0x10, b"t", &[1, 0, 0, 0])])), Zeros::Named(vec![b"t"]));
        assert_eq!(zeros(&built(&[(TIMESTAMP, b"_id", zero)])), Zeros::None);
    }
}
