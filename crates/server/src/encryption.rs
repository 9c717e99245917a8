//! Secrets at rest: sealed with ChaCha20-Poly1305 under a key that lives in a file of its own.

use crate::ServerError;
use base64::{Engine, engine::general_purpose::STANDARD};
use chacha20poly1305::{
    ChaCha20Poly1305, Key, KeyInit, Nonce,
    aead::{Aead, Payload},
};
use sha2::{Digest, Sha256};
use std::{
    fmt, fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Seals and opens.
pub(crate) struct Seal {
    cipher: ChaCha20Poly1305,
    /// Tells keys apart without telling anything of them.
    pub fingerprint: String,
}

/// The key that is about to replace the one in `file`.
pub(crate) fn next_of(file: &Path) -> PathBuf {
    file.with_extension("next")
}

impl Seal {
    /// The key in `file`, made at the first start.
    pub fn open(file: &Path) -> Result<Self, ServerError> {
        let error = |e| ServerError::File(file.to_owned(), e);
        if !file.exists() {
            let key: [u8; 32] = rand::random();
            write_private(file, &key).map_err(error)?;
        }
        let bytes: [u8; 32] = fs::read(file)
            .map_err(error)?
            .try_into()
            .map_err(|_| ServerError::Corrupt(format!("{} must hold 32 bytes", file.display())))?;
        let digest = Sha256::digest([b"limosa key".as_slice(), &bytes].concat());
        let fingerprint = STANDARD.encode(&digest[..12]);
        Ok(Self { cipher: ChaCha20Poly1305::new(&Key::from(bytes)), fingerprint })
    }

    /// Seals a value for one place of the store: moved to another, it doesn't open.
    pub fn seal(&self, plain: &str, place: &Place<'_>) -> String {
        let nonce: [u8; 12] = rand::random();
        let place = place.to_string();
        let payload = Payload { msg: plain.as_bytes(), aad: place.as_bytes() };
        let sealed = self.cipher.encrypt(&Nonce::from(nonce), payload).unwrap_or_default();
        format!("{BOUND}{}", STANDARD.encode([&nonce[..], &sealed[..]].concat()))
    }

    /// Opens what was sealed for this place, or for no place by a version before.
    pub fn unseal(&self, sealed: &str, place: &Place<'_>) -> Result<String, ServerError> {
        let unreadable = || ServerError::Corrupt(format!("the secret in {place} can't be opened with this key"));
        let (text, place) = match sealed.strip_prefix(BOUND) {
            Some(text) => (text, place.to_string()),
            None => (sealed, String::new()),
        };
        let bytes = STANDARD.decode(text).map_err(|_| unreadable())?;
        let (nonce, sealed) = bytes.split_first_chunk::<12>().ok_or_else(unreadable)?;
        let payload = Payload { msg: sealed, aad: place.as_bytes() };
        let plain = self.cipher.decrypt(&Nonce::from(*nonce), payload).map_err(|_| unreadable())?;
        String::from_utf8(plain).map_err(|_| unreadable())
    }
}

/// Whether it was sealed for one place of the store; versions before sealed for none.
pub(crate) fn is_bound(sealed: &str) -> bool {
    sealed.starts_with(BOUND)
}

/// Begins what is sealed for one place. No text in base64 begins so.
const BOUND: &str = "2.";

/// Where a sealed value stands in the store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub table: &'a str,
    pub column: &'a str,
    /// Of the row.
    pub id: &'a str,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} of {}", self.table, self.column, self.id)
    }
}

/// Writes a file that only its owner may read, whole or not at all.
pub(crate) fn write_private(file: &Path, content: &[u8]) -> std::io::Result<()> {
    let staged = file.with_extension("new");
    let _ = fs::remove_file(&staged);
    let mut handle = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged)?;
    handle.write_all(content)?;
    handle.sync_all()?;
    fs::rename(staged, file)?;
    // The name as well: a store that is sealed under this key may reach the disk right after it.
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty());
    fs::File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'static> = Place { table: "clusters", column: "uris", id: "1" };

    #[test]
    fn a_secret_is_opened_by_its_key_only_and_in_its_place_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let seal = Seal::open(&a).expect("makes a key");
        let sealed = seal.seal("hunter2", &PLACE);
        assert!(!sealed.contains("hunter2") && is_bound(&sealed));
        assert_eq!(Seal::open(&a).expect("reads it again").unseal(&sealed, &PLACE).expect("opens"), "hunter2");
        assert!(Seal::open(&b).expect("makes another").unseal(&sealed, &PLACE).is_err());
        for moved in [Place { id: "2", ..PLACE }, Place { column: "name", ..PLACE }, Place { table: "groups", ..PLACE }]
        {
            let refused = seal.unseal(&sealed, &moved).expect_err("a value that was moved opens");
            assert!(!refused.to_string().contains("hunter2"));
        }
        assert!(seal.unseal(&sealed[BOUND.len()..], &PLACE).is_err(), "without its mark it opens");
    }

    #[test]
    fn what_a_version_before_sealed_is_opened() {
        let dir = tempfile::tempdir().expect("a directory");
        let seal = Seal::open(&dir.path().join("a")).expect("makes a key");
        let nonce = [7; 12];
        let old = seal.cipher.encrypt(&Nonce::from(nonce), b"hunter2".as_slice()).expect("seals");
        let old = STANDARD.encode([&nonce[..], &old[..]].concat());
        assert!(!is_bound(&old));
        assert_eq!(seal.unseal(&old, &PLACE).expect("opens"), "hunter2");
    }
}
