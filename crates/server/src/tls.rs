//! The server's certificate.

use crate::ServerError;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{path::Path, sync::Arc};

/// Reads chain and key; HTTP/2 is offered, and HTTP/1.1.
pub(crate) fn load(chain: &Path, key: &Path) -> Result<Arc<ServerConfig>, ServerError> {
    let refuse = |file: &Path, why: String| ServerError::Certificate(file.to_owned(), why);
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| refuse(chain, e.to_string()))?;
    if certificates.is_empty() {
        return Err(refuse(chain, "there is no certificate in it".to_owned()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| refuse(key, e.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, private))
        .map_err(|e| refuse(chain, e.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
