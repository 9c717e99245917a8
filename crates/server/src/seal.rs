//! Secrets at rest: sealed with ChaCha20-Poly1305 under a key that lives in a file of its own.

use crate::ServerError;
use base64::{Engine, engine::general_purpose::STANDARD};
use chacha20poly1305::{ChaCha20Poly1305, Key, KeyInit, Nonce, aead::Aead};
use sha2::{Digest, Sha256};
use std::{
    fs,
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

    pub fn seal(&self, plain: &str) -> String {
        let nonce: [u8; 12] = rand::random();
        let sealed = self.cipher.encrypt(&Nonce::from(nonce), plain.as_bytes()).unwrap_or_default();
        STANDARD.encode([&nonce[..], &sealed[..]].concat())
    }

    pub fn unseal(&self, sealed: &str) -> Result<String, ServerError> {
        let unreadable = || ServerError::Corrupt("a secret can't be opened with this key".to_owned());
        let bytes = STANDARD.decode(sealed).map_err(|_| unreadable())?;
        let (nonce, sealed) = bytes.split_first_chunk::<12>().ok_or_else(unreadable)?;
        let plain = self.cipher.decrypt(&Nonce::from(*nonce), sealed).map_err(|_| unreadable())?;
        String::from_utf8(plain).map_err(|_| unreadable())
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

    #[test]
    fn a_secret_is_opened_by_its_key_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let seal = Seal::open(&a).expect("makes a key");
        let sealed = seal.seal("hunter2");
        assert!(!sealed.contains("hunter2"));
        assert_eq!(Seal::open(&a).expect("reads it again").unseal(&sealed).expect("opens"), "hunter2");
        assert!(Seal::open(&b).expect("makes another").unseal(&sealed).is_err());
    }
}
