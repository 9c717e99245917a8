//! HTTP digest authentication's arithmetic (RFC 7616, MD5, qop=auth), used by the server to check and by the agent and
//! the command line to answer.

use md5::{Digest, Md5};

/// Lowercase hexadecimal MD5 of `text`.
pub fn md5_hex(text: &str) -> String {
    Md5::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `MD5(user:realm:password)`: what a server needs to keep instead of the password.
pub fn ha1(user: &str, realm: &str, password: &str) -> String {
    md5_hex(&format!("{user}:{realm}:{password}"))
}

/// What a client signs besides its secret.
#[derive(Clone, Copy, Debug)]
pub struct Challenge<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The request target as the client wrote it into the header.
    pub uri: &'a str,
    /// The server's nonce.
    pub nonce: &'a str,
    /// The client's count for that nonce, eight hexadecimal digits.
    pub nc: &'a str,
    /// The client's own nonce.
    pub cnonce: &'a str,
    /// Always `auth` here.
    pub qop: &'a str,
}

/// The `response` parameter.
pub fn response(ha1: &str, c: Challenge<'_>) -> String {
    let ha2 = md5_hex(&format!("{}:{}", c.method, c.uri));
    md5_hex(&format!("{ha1}:{}:{}:{}:{}:{ha2}", c.nonce, c.nc, c.cnonce, c.qop))
}

/// The parameters of a `Digest …` header, in order, unquoted. Commas inside quotes don't separate.
pub fn parse_parameters(header: &str) -> Option<Vec<(String, String)>> {
    let mut rest = header.strip_prefix("Digest ").or_else(|| header.strip_prefix("digest "))?.trim();
    let mut out = Vec::new();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (value, tail) = if let Some(quoted) = after.strip_prefix('"') {
            let mut value = String::new();
            let mut chars = quoted.char_indices();
            let end = loop {
                match chars.next()? {
                    (i, '"') => break i,
                    (_, '\\') => value.push(chars.next()?.1),
                    (_, c) => value.push(c),
                }
            };
            (value, &quoted[end + 1..])
        } else {
            let end = after.find(',').unwrap_or(after.len());
            (after[..end].trim().to_owned(), &after[end..])
        };
        out.push((name.trim().to_ascii_lowercase(), value));
        let tail = tail.trim_start();
        rest = match tail.strip_prefix(',') {
            Some(more) => more.trim_start(),
            None if tail.is_empty() => tail,
            None => return None,
        };
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7616 section 3.9.1.
    #[test]
    fn the_example_of_the_rfc_comes_out() {
        let c = Challenge {
            method: "GET",
            uri: "/dir/index.html",
            nonce: "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
            nc: "00000001",
            cnonce: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
            qop: "auth",
        };
        let ha1 = ha1("Mufasa", "http-auth@example.org", "Circle of Life");
        assert_eq!(response(&ha1, c), "8ca523f5e9506fed4657c9700eebdbec");
    }

    #[test]
    fn quoted_commas_and_bare_values_are_read() {
        let got = parse_parameters(r#"Digest realm="a, \"b\"", nc=00000001,qop=auth"#).unwrap_or_default();
        let expected = [("realm", "a, \"b\""), ("nc", "00000001"), ("qop", "auth")];
        assert_eq!(got, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert_eq!(parse_parameters("Basic abc"), None);
        assert_eq!(parse_parameters("Digest realm=\"open"), None);
    }
}
