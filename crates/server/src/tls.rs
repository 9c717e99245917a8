//! The server's certificate, and the address that fits it.

use crate::ServerError;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
};

/// What TLS is served with.
pub(crate) struct Tls {
    pub config: Arc<ServerConfig>,
    /// The server's own, the first of its chain.
    certificate: CertificateDer<'static>,
}

/// Reads chain and key; HTTP/2 is offered, and HTTP/1.1.
pub(crate) fn load(chain: &Path, key: &Path) -> Result<Tls, ServerError> {
    let refuse = |file: &Path, why: String| ServerError::Certificate(file.to_owned(), why);
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| refuse(chain, e.to_string()))?;
    let Some(certificate) = certificates.first().cloned() else {
        return Err(refuse(chain, "there is no certificate in it".to_owned()));
    };
    refuse_public(key).map_err(|why| refuse(key, why))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| refuse(key, e.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, private))
        .map_err(|e| refuse(chain, e.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Tls { config: Arc::new(config), certificate })
}

/// A key that every user of this machine may read is nobody's.
fn refuse_public(key: &Path) -> Result<(), String> {
    let mode = std::fs::metadata(key).map_err(|e| e.to_string())?.permissions().mode();
    match mode & 0o007 {
        0 => Ok(()),
        _ => Err(format!("every user of this machine may read it (mode {:04o}): chmod o= it", mode & 0o7777)),
    }
}

/// Where this machine reaches a server that listens on `address`: an unspecified one over loopback, and with TLS under a
/// name that the certificate has, where it doesn't have the address itself.
pub(crate) fn url(address: SocketAddr, tls: Option<&Tls>) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let near = SocketAddr::new(ip, address.port());
    match tls.map(|tls| name(&tls.certificate, ip)) {
        None => format!("http://{near}"),
        Some(None) => format!("https://{near}"),
        Some(Some(name)) => format!("https://{name}:{}", address.port()),
    }
}

/// The first whole name in a certificate that doesn't have `ip`.
fn name(certificate: &CertificateDer<'_>, ip: IpAddr) -> Option<String> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    if certificate.verify_is_valid_for_subject_name(&ServerName::from(ip)).is_ok() {
        return None;
    }
    certificate.valid_dns_names().find(|name| !name.starts_with('*')).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use limosa_testkit::tls::Certificates;

    fn reached(address: &str, names: Option<&[&str]>) -> String {
        let dir = tempfile::tempdir().expect("a directory");
        let tls = names.map(|names| {
            let files = Certificates::write_naming(dir.path(), names).expect("writes");
            load(&files.certificate, &files.key).expect("loads")
        });
        url(address.parse().expect("an address"), tls.as_ref())
    }

    #[test]
    fn a_key_that_everyone_may_read_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = Certificates::write_naming(dir.path(), &["localhost"]).expect("writes");
        let set = |mode| std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(mode)).expect("sets");
        for (mode, taken) in [(0o600, true), (0o640, true), (0o644, false), (0o602, false)] {
            set(mode);
            let loaded = load(&files.certificate, &files.key).map(|_| ()).map_err(|e| e.to_string());
            assert_eq!(loaded.is_ok(), taken, "{mode:o}: {loaded:?}");
        }
    }

    #[test]
    fn a_server_is_reached_where_this_machine_and_its_certificate_allow() {
        for (address, names, expected) in [
            ("127.0.0.1:8080", None, "http://127.0.0.1:8080"),
            ("0.0.0.0:8080", None, "http://127.0.0.1:8080"),
            ("[::]:8080", None, "http://[::1]:8080"),
            ("10.0.0.5:8080", None, "http://10.0.0.5:8080"),
            ("0.0.0.0:8443", Some(&["localhost", "127.0.0.1"][..]), "https://127.0.0.1:8443"),
            ("[::]:8443", Some(&["localhost", "127.0.0.1"]), "https://localhost:8443"),
            ("0.0.0.0:8443", Some(&["*.example.com", "limosa.example.com"]), "https://limosa.example.com:8443"),
            ("10.0.0.5:8443", Some(&["limosa.example.com", "10.0.0.5"]), "https://10.0.0.5:8443"),
            ("10.0.0.5:8443", Some(&["limosa.example.com"]), "https://limosa.example.com:8443"),
            ("0.0.0.0:8443", Some(&["*.example.com"]), "https://127.0.0.1:8443"),
        ] {
            assert_eq!(reached(address, names), expected, "{names:?}");
        }
    }
}
