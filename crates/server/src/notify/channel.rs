//! The ways to someone: a webhook, a mail server.

use crate::notify::{
    config::{Mail, NotifyConfig, NotifyError, Webhook},
    message,
};
use hmac::{Hmac, KeyInit, Mac};
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
};
use limosa_model::{Secret, Timestamp};
use sha2::Sha256;
use std::time::Duration;

/// How long a receiver may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// One of them.
pub(super) enum Channel {
    Webhook { url: reqwest::Url, secret: Secret, http: reqwest::Client },
    Mail { from: Mailbox, to: Vec<Mailbox>, server: AsyncSmtpTransport<Tokio1Executor> },
}

/// All that are configured.
pub(super) fn all(config: &NotifyConfig) -> Result<Vec<Channel>, NotifyError> {
    let webhooks = config.webhook.iter().map(webhook);
    webhooks.chain(config.mail.iter().map(mail)).collect()
}

fn webhook(given: &Webhook) -> Result<Channel, NotifyError> {
    let refuse = |why: String| NotifyError::Setting(format!("webhook {}: {why}", given.url));
    let url: reqwest::Url = given.url.parse().map_err(|e| refuse(format!("{e}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refuse("must begin with https:// or http://".to_owned()));
    }
    // A second call finds the provider installed, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none()).build();
    Ok(Channel::Webhook { url, secret: given.secret.clone(), http: http.map_err(|e| refuse(e.to_string()))? })
}

fn mail(given: &Mail) -> Result<Channel, NotifyError> {
    let mailbox = |text: &String| {
        text.parse::<Mailbox>().map_err(|e| NotifyError::Setting(format!("{text:?} is no mail address: {e}")))
    };
    let refuse = |_| {
        NotifyError::Setting(
            "the mail server must be written as smtps://user:password@host or smtp://host:587?tls=required".to_owned(),
        )
    };
    let server = AsyncSmtpTransport::<Tokio1Executor>::from_url(given.server.expose()).map_err(refuse)?;
    if given.to.is_empty() {
        return Err(NotifyError::Setting("[mail] names nobody in to".to_owned()));
    }
    Ok(Channel::Mail {
        from: mailbox(&given.from)?,
        to: given.to.iter().map(mailbox).collect::<Result<_, _>>()?,
        server: server.timeout(Some(PATIENCE)).build(),
    })
}

/// `t=SECONDS,v1=HEX`: HMAC-SHA256 of the time, a dot and the body, so that an old request can't be sent again.
fn signature(secret: &str, seconds: i64, body: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes());
    let Ok(mut mac) = mac else { return String::new() };
    mac.update(format!("{seconds}.{body}").as_bytes());
    let hex: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
    format!("t={seconds},v1={hex}")
}

impl Channel {
    /// What it is known by, in the outbox and in the log: no secrets.
    pub fn name(&self) -> String {
        match self {
            Self::Webhook { url, .. } => {
                // A path may hold a token, as those of chat programs do; its start tells channels apart well enough.
                let path: String = url.path().chars().take(8).collect();
                format!("webhook {}{path}", url.origin().ascii_serialization())
            }
            Self::Mail { to, .. } => {
                format!("mail {}", to.iter().map(|to| to.email.to_string()).collect::<Vec<_>>().join(" "))
            }
        }
    }

    /// Done when the receiver has taken it.
    pub async fn send(&self, id: i64, body: &str) -> Result<(), NotifyError> {
        match self {
            Self::Webhook { url, secret, http } => {
                let signed = signature(secret.expose(), Timestamp::now().0 / 1000, body);
                let request = http
                    .post(url.clone())
                    .header("content-type", "application/json")
                    .header("limosa-delivery", id.to_string())
                    .header("limosa-signature", signed)
                    .body(body.to_owned());
                // The error's own words would name the whole address.
                let answer = request.send().await.map_err(|e| NotifyError::NotTaken(e.without_url().to_string()))?;
                let status = answer.status();
                if status.is_success() { Ok(()) } else { Err(NotifyError::NotTaken(format!("answered {status}"))) }
            }
            Self::Mail { from, to, server } => {
                let (subject, text) = message::email(body);
                let mut letter = Message::builder().from(from.clone()).subject(subject).header(ContentType::TEXT_PLAIN);
                for to in to {
                    letter = letter.to(to.clone());
                }
                let letter = letter.body(text).map_err(|e| NotifyError::NotTaken(e.to_string()))?;
                server.send(letter).await.map(drop).map_err(|e| NotifyError::NotTaken(e.to_string()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_any_other_implementation() {
        // echo -n '1700000000.{}' | openssl dgst -sha256 -hmac 0123456789abcdef
        let expected = "t=1700000000,v1=e4f8e2ecae2295b2ddb2f0b5584c8275e226c0ebe9b3b819e70156bb67122e3e";
        assert_eq!(signature("0123456789abcdef", 1_700_000_000, "{}"), expected);
    }
}
