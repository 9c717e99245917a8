//! A client of the control plane that signs with digest authentication; the command line uses it too.

use limosa_model::{Secret, digest};
use reqwest::{Method, StatusCode, header};
use serde_json::Value;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A body that is larger is sent only along with a signature: a server needn't take it from a stranger.
const UNSIGNED_BYTES: usize = 16 * 1024;

/// The largest answer that is read; the largest there are, pages of 500 migrations, have about a megabyte.
const ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// A call failed.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No answer.
    #[error(
        "{0} can't be reached: {1}; is 'limosa server', or the 'limosa migrate' that wrote this profile, running there?"
    )]
    Unreachable(String, String),
    /// An error answer: status, code, detail.
    #[error("{2} ({1}, HTTP {0})")]
    Refused(u16, String, String),
    /// An answer that isn't what the API says.
    #[error("the server's answer can't be read: {0}")]
    Malformed(String),
    /// Plain HTTP to another machine.
    #[error(
        "{0} is not on this machine: use https; where the network between is trusted, start 'limosa agent' with \
         --plain-http"
    )]
    Insecure(String),
}

impl HttpError {
    /// Whether the server understood and said no; asking again brings the same.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(400..=499, ..)) && !matches!(self, Self::Refused(408 | 429, ..))
    }
}

/// Signs with one API key.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    public_key: String,
    private_key: Secret,
    /// A header of every request that only the server may read.
    proof: Option<(&'static str, Secret)>,
    /// The server's last challenge and how often it was answered.
    nonce: Arc<Mutex<Option<(String, String, u32)>>>,
}

impl Client {
    /// For the server at `base`; plain HTTP only on this machine.
    pub fn new(base: &str, public_key: &str, private_key: &Secret) -> Result<Self, HttpError> {
        Self::new_with(base, public_key, private_key, false)
    }

    /// The same; with `plain_http`, for a network that is trusted, plain HTTP to another machine too.
    pub fn new_with(base: &str, public_key: &str, private_key: &Secret, plain_http: bool) -> Result<Self, HttpError> {
        let url = url::Url::parse(base).map_err(|e| HttpError::Unreachable(base.to_owned(), e.to_string()))?;
        let local = match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        if url.scheme() != "https" && !local && !plain_http {
            return Err(HttpError::Insecure(base.to_owned()));
        }
        // A second call finds the provider installed, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // A redirect could lead signatures and reports to another machine.
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .connect_timeout(Duration::from_secs(10))
            .redirect(reqwest::redirect::Policy::none())
            .build();
        Ok(Self {
            http: http.map_err(|e| HttpError::Unreachable(base.to_owned(), e.to_string()))?,
            base: base.trim_end_matches('/').to_owned(),
            public_key: public_key.to_owned(),
            private_key: private_key.clone(),
            proof: None,
            nonce: Arc::default(),
        })
    }

    /// The same, with a secret in a header of every request.
    #[must_use]
    pub fn with_proof(self, header: &'static str, secret: Secret) -> Self {
        Self { proof: Some((header, secret)), ..self }
    }

    /// Calls `path`; the answer's body, null if it has none.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, HttpError> {
        let body = body.map(|body| body.to_string());
        if body.as_ref().is_some_and(|body| body.len() > UNSIGNED_BYTES) {
            self.forget_challenge();
            let challenge = self.send(&method, path, None).await?;
            self.take_challenge(&challenge);
        }
        let mut answer = self.send(&method, path, body.as_deref()).await?;
        if answer.status() == StatusCode::UNAUTHORIZED && self.take_challenge(&answer) {
            answer = self.send(&method, path, body.as_deref()).await?;
        }
        let status = answer.status();
        let text = self.text(answer).await?;
        let value = if text.is_empty() { Ok(Value::Null) } else { serde_json::from_str::<Value>(&text) };
        if status.is_success() {
            return value.map_err(|e| HttpError::Malformed(e.to_string()));
        }
        let value = value.unwrap_or(Value::Null);
        let field = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        Err(HttpError::Refused(status.as_u16(), field("errorCode"), field("detail")))
    }

    /// The answer's body, if it isn't larger than any that the API has.
    async fn text(&self, mut answer: reqwest::Response) -> Result<String, HttpError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|e| self.unreachable(&e))? {
            if bytes.len() + chunk.len() > ANSWER_BYTES {
                return Err(HttpError::Malformed(format!("it is larger than {ANSWER_BYTES} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        String::from_utf8(bytes).map_err(|e| HttpError::Malformed(e.to_string()))
    }

    fn forget_challenge(&self) {
        *self.nonce.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn unreachable(&self, e: &reqwest::Error) -> HttpError {
        HttpError::Unreachable(self.base.clone(), e.to_string())
    }

    async fn send(&self, method: &Method, path: &str, body: Option<&str>) -> Result<reqwest::Response, HttpError> {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.base));
        request = request.header(header::ACCEPT, "application/vnd.atlas.2024-05-30+json");
        if let Some(signature) = self.sign(method.as_str(), path) {
            request = request.header(header::AUTHORIZATION, signature);
        }
        if let Some((name, secret)) = &self.proof {
            request = request.header(*name, secret.expose());
        }
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body.to_owned());
        }
        request.send().await.map_err(|e| self.unreachable(&e))
    }

    fn take_challenge(&self, answer: &reqwest::Response) -> bool {
        let header = answer.headers().get(header::WWW_AUTHENTICATE).and_then(|v| v.to_str().ok());
        let Some(parameters) = header.and_then(digest::parse_parameters) else { return false };
        let get = |name: &str| parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default();
        *self.nonce.lock().unwrap_or_else(PoisonError::into_inner) = Some((get("realm"), get("nonce"), 0));
        true
    }

    fn sign(&self, method: &str, uri: &str) -> Option<String> {
        let mut held = self.nonce.lock().unwrap_or_else(PoisonError::into_inner);
        let (realm, nonce, count) = held.as_mut()?;
        *count += 1;
        let nc = format!("{count:08x}");
        let cnonce = format!("{:016x}", rand::random::<u64>());
        let ha1 = digest::ha1(&self.public_key, realm, self.private_key.expose());
        let challenge = digest::Challenge { method, uri, nonce, nc: &nc, cnonce: &cnonce, qop: "auth" };
        let response = digest::response(&ha1, challenge);
        Some(format!(
            r#"Digest username="{}", realm="{realm}", nonce="{nonce}", uri="{uri}", algorithm=MD5, qop=auth, nc={nc}, cnonce="{cnonce}", response="{response}""#,
            self.public_key
        ))
    }
}
