//! MongoDB URIs: read strictly, changed by their parts, and never quoted. What is malformed in one is said by its rule and
//! its position, since any part of a malformed URI may be a part of a password.

use crate::Secret;
use std::fmt::{self, Write};

/// What is wrong with a URI. Holds nothing of the URI.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {at}: {rule}")]
pub struct UriFault {
    /// The rule that is broken.
    pub rule: String,
    /// Where, counted in characters from 1.
    pub at: usize,
}

/// What a value of an option must be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Text,
    Truth,
    Number,
}

/// Every option that the driver takes, as its documentation writes it.
const OPTIONS: &[(&str, Takes)] = &[
    ("appName", Takes::Text),
    ("authMechanism", Takes::Text),
    ("authMechanismProperties", Takes::Text),
    ("authSource", Takes::Text),
    ("compressors", Takes::Text),
    ("connectTimeoutMS", Takes::Number),
    ("directConnection", Takes::Truth),
    ("heartbeatFrequencyMS", Takes::Number),
    ("journal", Takes::Truth),
    ("loadBalanced", Takes::Truth),
    ("localThresholdMS", Takes::Number),
    ("maxConnecting", Takes::Number),
    ("maxIdleTimeMS", Takes::Number),
    ("maxPoolSize", Takes::Number),
    ("maxStalenessSeconds", Takes::Text),
    ("minPoolSize", Takes::Number),
    ("readConcernLevel", Takes::Text),
    ("readPreference", Takes::Text),
    ("readPreferenceTags", Takes::Text),
    ("replicaSet", Takes::Text),
    ("retryReads", Takes::Truth),
    ("retryWrites", Takes::Truth),
    ("serverMonitoringMode", Takes::Text),
    ("serverSelectionTimeoutMS", Takes::Number),
    ("socketTimeoutMS", Takes::Number),
    ("srvMaxHosts", Takes::Number),
    ("srvServiceName", Takes::Text),
    ("ssl", Takes::Truth),
    ("tls", Takes::Truth),
    ("tlsAllowInvalidCertificates", Takes::Truth),
    ("tlsCAFile", Takes::Text),
    ("tlsCertificateKeyFile", Takes::Text),
    ("tlsInsecure", Takes::Truth),
    ("uuidRepresentation", Takes::Text),
    ("w", Takes::Text),
    ("waitQueueTimeoutMS", Takes::Number),
    ("wtimeoutMS", Takes::Number),
    ("zlibCompressionLevel", Takes::Text),
];

/// What may not stand in a database's name.
const NOT_IN_A_DATABASE: [char; 6] = ['/', '\\', ' ', '"', '$', '.'];

/// A URI in its parts.
#[derive(Clone, PartialEq, Eq)]
pub struct Uri {
    is_srv: bool,
    /// User and password as they are written, percent-encoded.
    user: Option<Secret>,
    hosts: Vec<String>,
    database: Option<String>,
    /// Names as the documentation writes them, values decoded.
    options: Vec<(&'static str, Secret)>,
}

impl fmt::Debug for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uri({})", self.shown())
    }
}

impl Uri {
    /// Reads `uri`.
    ///
    /// # Errors
    ///
    /// A [`UriFault`] with the first rule that is broken.
    pub fn parse(uri: &Secret) -> Result<Self, UriFault> {
        Reader { text: uri.expose() }.read()
    }

    /// Its hosts, each with its port where one is given.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// Whether its host is a DNS record that names the members.
    pub fn is_srv(&self) -> bool {
        self.is_srv
    }

    /// The value of an option, decoded; the first of `readPreferenceTags`.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.expose())
    }

    /// The names of its options.
    pub fn option_names(&self) -> impl Iterator<Item = &'static str> {
        self.options.iter().map(|(name, _)| *name)
    }

    /// Takes an option out.
    pub fn remove_option(&mut self, name: &str) {
        self.options.retain(|(own, _)| !own.eq_ignore_ascii_case(name));
    }

    /// Adds an option that it doesn't have; an unknown name is left out.
    pub fn add_option(&mut self, name: &str, value: &str) {
        let known = OPTIONS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        if let (Some((known, _)), None) = (known, self.option(name)) {
            self.options.push((known, Secret::new(value)));
        }
    }

    /// Replaces user and password.
    pub fn set_credentials(&mut self, user: &str, password: &Secret) {
        self.user = Some(Secret::new(format!("{}:{}", encoded(user), encoded(password.expose()))));
    }

    /// Scheme and hosts: what may be shown of it.
    pub fn shown(&self) -> String {
        format!("{}{}", if self.is_srv { "mongodb+srv://" } else { "mongodb://" }, self.hosts.join(","))
    }

    /// The whole, written so that every part is read as it was given.
    pub fn to_secret(&self) -> Secret {
        let mut text = String::from(if self.is_srv { "mongodb+srv://" } else { "mongodb://" });
        if let Some(user) = &self.user {
            text.push_str(user.expose());
            text.push('@');
        }
        text.push_str(&self.hosts.join(","));
        text.push('/');
        text.push_str(self.database.as_deref().unwrap_or_default());
        for (index, (name, value)) in self.options.iter().enumerate() {
            text.push(if index == 0 { '?' } else { '&' });
            let _ = write!(text, "{name}={}", encoded(value.expose()));
        }
        Secret::new(text)
    }
}

/// Whether `text` may stand in a field that becomes a part of a URI, such as a file's path: nothing in it that means
/// something in a URI, no control character.
pub fn is_plain_value(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || matches!(c, '&' | '?' | '=' | '#'))
}

/// Percent-encoded, but for letters, digits and what stands in host names and paths.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

struct Reader<'a> {
    text: &'a str,
}

impl<'a> Reader<'a> {
    /// A fault at a byte of the text.
    fn fault(&self, byte: usize, rule: impl Into<String>) -> UriFault {
        let at = self.text.char_indices().take_while(|(index, _)| *index < byte).count() + 1;
        UriFault { rule: rule.into(), at }
    }

    /// Where `part`, a piece of the text, begins in it.
    fn place(&self, part: &str) -> usize {
        part.as_ptr() as usize - self.text.as_ptr() as usize
    }

    fn read(&self) -> Result<Uri, UriFault> {
        let (is_srv, rest) = match (self.text.strip_prefix("mongodb://"), self.text.strip_prefix("mongodb+srv://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(self.fault(0, "it must begin with mongodb:// or mongodb+srv://")),
        };
        if let Some((index, _)) = self.text.char_indices().find(|(_, c)| c.is_control() || c.is_whitespace()) {
            return Err(self.fault(index, "a space or a control character must be percent-encoded"));
        }
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (Some(self.user(user)?), rest),
            None => (None, rest),
        };
        let (before, options) = rest.split_once('?').map_or((rest, ""), |(before, options)| (before, options));
        let (hosts, database) = before.split_once('/').map_or((before, ""), |(hosts, database)| (hosts, database));
        let hosts = hosts.split(',').map(|host| self.host(host, is_srv)).collect::<Result<Vec<_>, _>>()?;
        if is_srv && hosts.len() != 1 {
            return Err(self.fault(self.place(before), "mongodb+srv:// takes exactly one host"));
        }
        let database = self.database(database)?;
        Ok(Uri { is_srv, user, hosts, database, options: self.options(options)? })
    }

    fn user(&self, text: &'a str) -> Result<Secret, UriFault> {
        let reserved = |c: char| matches!(c, '@' | '/' | '?' | '#' | '[' | ']' | '<' | '>' | '"' | '\\');
        if let Some((index, c)) = text.char_indices().find(|(_, c)| reserved(*c)) {
            let rule = format!(
                "{c} before the last @ must be written as %{:02X}: an @ may stand only between the password and the hosts",
                c as u32
            );
            return Err(self.fault(self.place(text) + index, rule));
        }
        let (name, password) = text.split_once(':').map_or((text, ""), |(name, password)| (name, password));
        if name.is_empty() {
            return Err(self.fault(self.place(text), "a user name must stand before the @"));
        }
        if let Some(index) = password.find(':') {
            return Err(self.fault(self.place(password) + index, "a : in the password must be written as %3A"));
        }
        self.decoded(name)?;
        self.decoded(password)?;
        Ok(Secret::new(text))
    }

    fn host(&self, text: &'a str, is_srv: bool) -> Result<String, UriFault> {
        let fault = |byte: usize, rule: &str| Err(self.fault(self.place(text) + byte, rule));
        if text.ends_with(".sock") {
            self.decoded(text)?;
            return Ok(text.to_owned());
        }
        let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let (name, port) = match bracketed {
            Some((address, rest)) => {
                if address.parse::<std::net::Ipv6Addr>().is_err() {
                    return fault(0, "what stands in [ ] must be an IPv6 address");
                }
                (address, rest)
            }
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        if name.is_empty() {
            return fault(0, "a host must be named");
        }
        let wrong = |c: char| !(c.is_alphanumeric() || matches!(c, '.' | '-' | '_'));
        if bracketed.is_none()
            && let Some(index) = name.find(wrong)
        {
            return fault(index, "a host's name has letters, digits, dots and hyphens only");
        }
        let at_port = text.len() - port.len();
        match port.strip_prefix(':') {
            None if port.is_empty() => {}
            Some(_) if is_srv => return fault(at_port, "mongodb+srv:// takes no port"),
            Some(port)
                if port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0) => {}
            _ => {
                let rule =
                    "a port is a number from 1 to 65535; if this belongs to a password, an @ is missing behind it";
                return fault(at_port, rule);
            }
        }
        // Names are compared without regard to ASCII case only, in DNS too; other letters can become several.
        Ok(text.to_ascii_lowercase())
    }

    fn database(&self, text: &'a str) -> Result<Option<String>, UriFault> {
        let decoded = self.decoded(text)?;
        match decoded.chars().any(|c| NOT_IN_A_DATABASE.contains(&c)) {
            true => Err(self.fault(self.place(text), "a database's name has no / \\ . $ or quotation mark")),
            false => Ok((!text.is_empty()).then(|| text.to_owned())),
        }
    }

    fn options(&self, text: &'a str) -> Result<Vec<(&'static str, Secret)>, UriFault> {
        let mut options: Vec<(&'static str, Secret)> = Vec::new();
        for option in text.split('&').filter(|option| !option.is_empty()) {
            let fault = |rule: String| Err(self.fault(self.place(option), rule));
            let Some((name, value)) = option.split_once('=') else {
                return fault(
                    "an option is written as name=value; a & or ? in a value must be percent-encoded".to_owned(),
                );
            };
            let Some((name, takes)) = OPTIONS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) else {
                return fault("this is no option of a MongoDB URI that Limosa can use".to_owned());
            };
            if options.iter().any(|(own, _)| own == name && *own != "readPreferenceTags") {
                return fault(format!("the option {name} is given twice"));
            }
            if value.contains(['?', '#']) {
                return fault(format!("a ? or # in the value of {name} must be percent-encoded"));
            }
            let value = self.decoded(value)?;
            match takes {
                Takes::Truth if !matches!(value.as_str(), "true" | "false") => {
                    return fault(format!("the option {name} takes true or false"));
                }
                Takes::Number if value.parse::<u32>().is_err() => {
                    return fault(format!("the option {name} takes a whole number"));
                }
                Takes::Text | Takes::Truth | Takes::Number => options.push((name, Secret::new(value))),
            }
        }
        Ok(options)
    }

    /// Without percent-encoding.
    fn decoded(&self, text: &'a str) -> Result<String, UriFault> {
        let bytes = text.as_bytes();
        let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
        while at < bytes.len() {
            if bytes[at] != b'%' {
                out.push(bytes[at]);
                at += 1;
                continue;
            }
            let hex = text.get(at + 1..at + 3).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
            let Some(byte) = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) else {
                let rule = "a % must be followed by two hexadecimal digits; a % itself is written as %25";
                return Err(self.fault(self.place(text) + at, rule));
            };
            out.push(byte);
            at += 3;
        }
        String::from_utf8(out).map_err(|_| self.fault(self.place(text), "what is percent-encoded must be UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Uri, UriFault> {
        Uri::parse(&Secret::new(text))
    }

    #[test]
    fn what_is_malformed_is_named_by_rule_and_position() {
        for (text, at, part) in [
            ("postgres://h/", 1, "must begin with"),
            ("mongodb://u:pa@ss@h/", 15, "%40"),
            ("mongodb://u:pa/ss@h/", 15, "%2F"),
            ("mongodb://u:pa?ss@h/", 15, "%3F"),
            ("mongodb://u:pa#ss@h/", 15, "%23"),
            ("mongodb://u:pa:ss@h/", 15, "%3A"),
            ("mongodb://u:pa%ss@h/", 15, "%25"),
            ("mongodb://ü:pa ss@h/", 15, "space"),
            ("mongodb://u:pass/", 12, "an @ is missing"),
            ("mongodb://u:pass@/", 18, "a host must be named"),
            ("mongodb://:pass@h/", 11, "user name"),
            ("mongodb://h:0/", 12, "a port"),
            ("mongodb://h/?w", 14, "name=value"),
            ("mongodb://h/?pass=1", 14, "no option"),
            ("mongodb://h/?tls=yes", 14, "tls takes true or false"),
            ("mongodb://h/?w=1&W=2", 18, "w is given twice"),
            ("mongodb://h/?appName=a@b", 11, "before the last @"),
            ("mongodb+srv://h:1/", 16, "no port"),
            ("mongodb+srv://h,g/", 15, "one host"),
            ("mongodb://h/a.b", 13, "database"),
        ] {
            let fault = parse(text).expect_err(text);
            assert!(fault.rule.contains(part), "{text}: {fault}");
            assert!(fault.at == at || part == "before the last @", "{text}: {fault}");
        }
    }

    #[test]
    fn parts_are_changed_without_touching_the_others() {
        let mut uri =
            parse("mongodb://u:p%40@A:1,[::1]:2/db?replicaSet=rs&TLSCAFILE=/x/y&w=1").expect("is well formed");
        assert_eq!(uri.shown(), "mongodb://a:1,[::1]:2");
        assert_eq!((uri.option("tlsCAFile"), uri.option("W")), (Some("/x/y"), Some("1")));
        uri.remove_option("w");
        uri.add_option("tlsCAFile", "/other");
        uri.add_option("tlsCertificateKeyFile", "/k&tlsInsecure=true#");
        let written = uri.to_secret();
        let text = "mongodb://u:p%40@a:1,[::1]:2/db?replicaSet=rs&tlsCAFile=%2Fx%2Fy&tlsCertificateKeyFile=%2Fk%26tlsInsecure%3Dtrue%23";
        assert_eq!(written.expose(), text);
        assert_eq!(Uri::parse(&written).expect("is well formed"), uri);
        uri.set_credentials("o:", &Secret::new("p/@"));
        assert!(uri.to_secret().expose().starts_with("mongodb://o%3A:p%2F%40@a:1"));
        assert!(!format!("{uri:?}").contains("p%2F"));
    }

    #[test]
    fn a_host_that_was_read_is_written_to_be_read() {
        let uri = parse("mongodb://DB-İ.Example.org/").expect("is well formed");
        assert_eq!(uri.shown(), "mongodb://db-İ.example.org");
        assert_eq!(Uri::parse(&uri.to_secret()), Ok(uri));
    }

    #[test]
    fn a_value_with_what_means_something_in_a_uri_is_not_plain() {
        assert!(is_plain_value("/etc/ssl/ca file.pem"));
        for text in ["/a&b=c", "/a?b", "/a#b", "/a\nb", "/a=b"] {
            assert!(!is_plain_value(text), "{text}");
        }
    }
}
