//! `limosa link`

use crate::{args::Link, error::CliError, profile::Profile, ui};
use reqwest::Method;
use serde_json::json;

pub(crate) async fn run(given: Link) -> Result<(), CliError> {
    match given {
        Link::Create(how) => {
            let profile = Profile::read(&how.file)?;
            let path = profile.org("liveMigrations/linkTokens");
            let answer = profile.client()?.call(Method::POST, &path, Some(json!({}))).await?;
            ui::answer(how.output, &answer, |answer| ui::text(&answer["linkToken"]));
        }
        Link::Delete(how) => {
            let profile = Profile::read(&how.file)?;
            profile.client()?.call(Method::DELETE, &profile.org("liveMigrations/linkTokens"), None).await?;
            ui::say("the link token is revoked");
        }
    }
    Ok(())
}
