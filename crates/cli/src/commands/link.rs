//! `limosa link`

use crate::{
    args::{DeleteLink, Link, RotateLink},
    error::CliError,
    profile::Profile,
    ui,
};
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
        Link::Rotate(RotateLink { grace, profile: how }) => {
            let profile = Profile::read(&how.file)?;
            let path = format!("/api/limosa/v1/orgs/{}/linkToken/rotate", profile.org_id);
            let body = json!({"graceSeconds": grace});
            let answer = profile.client()?.call(Method::POST, &path, Some(body)).await?;
            ui::answer(how.output, &answer, |answer| ui::text(&answer["linkToken"]));
        }
        Link::Delete(DeleteLink { force, profile: how }) => {
            let profile = Profile::read(&how.file)?;
            let path = match force {
                true => format!("/api/limosa/v1/orgs/{}/linkToken", profile.org_id),
                false => profile.org("liveMigrations/linkTokens"),
            };
            profile.client()?.call(Method::DELETE, &path, None).await?;
            ui::say("the link token is revoked");
        }
    }
    Ok(())
}
