//! Values that must not be printed: URIs with passwords, private keys, tokens.

use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::Zeroize;

/// A string that `Debug` hides and that is wiped when dropped. `Serialize` writes the value: only types that travel to
/// an agent or into the encrypted store contain one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps `value`.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself; every call is a place to look at in a review.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// `text` with what stands between `//` and the last `@` before the next `/` replaced, wherever a MongoDB URI occurs.
pub fn redact_uris(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("mongodb").and_then(|i| rest[i..].find("://").map(|j| i + j + 3)) {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let authority_end = rest.find(['/', ' ', '"', '\'', '\n']).unwrap_or(rest.len());
        // A password with an unescaped slash makes the URI malformed, and is a password all the same.
        let token_end = rest.find([' ', '"', '\'', '\n']).unwrap_or(rest.len());
        let end = if rest[..authority_end].contains('@') { authority_end } else { token_end };
        if let Some(at) = rest[..end].rfind('@') {
            out.push_str("***");
            rest = &rest[at..];
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_cut_out_of_uris_and_nothing_else_is() {
        let cases = [
            ("mongodb://u:p@h:1/db", "mongodb://***@h:1/db"),
            ("mongodb+srv://u:p%40@h/?x=1", "mongodb+srv://***@h/?x=1"),
            ("mongodb://h:1,g:2/", "mongodb://h:1,g:2/"),
            ("a mongodb://u:p@h b mongodb://v:q@g", "a mongodb://***@h b mongodb://***@g"),
            ("mongodb://u:p/w@h/", "mongodb://***@h/"),
            ("mongodb is a database", "mongodb is a database"),
        ];
        for (text, expected) in cases {
            assert_eq!(redact_uris(text), expected);
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(…)");
    }
}
