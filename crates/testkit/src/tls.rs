//! A certificate authority of a test's own, and a certificate for servers on this machine.

use crate::Error;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Where the files are.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// What clients trust.
    pub authority: PathBuf,
    /// The server's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Both in one file, as `mongod` wants them.
    pub both: PathBuf,
    /// The same with a certificate that is valid for long.
    pub renewed: PathBuf,
}

impl Certificates {
    /// Writes them into `dir`, for 127.0.0.1 and localhost.
    pub fn write(dir: &Path) -> Result<Self, Error> {
        Self::write_for(dir, None)
    }

    /// The same; the server's certificate expires after `life`, if given.
    pub fn write_for(dir: &Path, life: Option<Duration>) -> Result<Self, Error> {
        Self::make(dir, &["localhost", "127.0.0.1"], life)
    }

    /// Writes them into `dir`, for a server of these names and addresses.
    pub fn write_naming(dir: &Path, names: &[&str]) -> Result<Self, Error> {
        Self::make(dir, names, None)
    }

    fn make(dir: &Path, names: &[&str], life: Option<Duration>) -> Result<Self, Error> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "limosa test authority");
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut server = CertificateParams::new(names)?;
        server.distinguished_name.push(DnType::CommonName, "localhost");
        let renewed = server.clone().signed_by(&key, &authority)?;
        if let Some(life) = life {
            server.not_after = (SystemTime::now() + life).into();
        }
        let server = server.signed_by(&key, &authority)?;
        let put = |name: &str, text: String| -> std::io::Result<PathBuf> {
            let file = dir.join(name);
            fs::write(&file, text)?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).map(|()| file)
        };
        Ok(Self {
            authority: put("authority.pem", authority.pem())?,
            certificate: put("server.pem", server.pem())?,
            key: put("server.key", key.serialize_pem())?,
            both: put("both.pem", server.pem() + &key.serialize_pem())?,
            renewed: put("renewed.pem", renewed.pem() + &key.serialize_pem())?,
        })
    }
}
