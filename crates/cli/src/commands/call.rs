//! A server and one of its migrations, as the profile and the arguments name them.

use crate::{
    args::{Cutover, Which},
    commands::migration_handle::{Detail, MigrationHandle},
    error::CliError,
    profile::Profile,
};
use limosa_agent::http::Client;
use limosa_model::MigrationId;
use reqwest::Method;
use serde_json::Value;

pub(super) fn results(answer: &Value) -> &[Value] {
    answer["results"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A server and a migration on it.
pub(super) struct Call {
    profile: Profile,
    pub client: Client,
    pub id: MigrationId,
}

impl Call {
    pub async fn open(which: &Which) -> Result<Self, CliError> {
        let profile = Profile::read(&which.profile.file)?;
        let client = profile.client()?;
        let id = match &which.id {
            Some(id) => id.parse().map_err(|_| CliError::Usage(format!("{id:?} is not a migration's id")))?,
            None => {
                let answer = client.call(Method::GET, &profile.own("liveMigrations"), None).await?;
                only(results(&answer))?
            }
        };
        Ok(Self { profile, client, id })
    }

    pub fn path(&self, rest: &str) -> String {
        self.profile.own(&format!("liveMigrations/{}{rest}", self.id))
    }

    pub fn watched<'a>(&'a self, which: &'a Which) -> MigrationHandle<'a> {
        let (profile, client) = (&self.profile, &self.client);
        MigrationHandle {
            profile,
            client,
            id: self.id,
            profile_file: &which.profile.file,
            cutover: Cutover::Manual,
            is_own: false,
        }
    }
}

/// The one that isn't over, else the newest.
fn only(all: &[Value]) -> Result<MigrationId, CliError> {
    let all = all.iter().map(Detail::read).collect::<Result<Vec<_>, _>>()?;
    let active: Vec<&Detail> = all.iter().filter(|m| !m.phase.is_final()).collect();
    match (active.as_slice(), all.first()) {
        ([one], _) => Ok(one.id),
        ([], Some(newest)) => Ok(newest.id),
        ([], None) => Err(CliError::Usage("there is no migration yet".to_owned())),
        _ => Err(CliError::Usage(
            "several migrations are under way: say which with its id ('limosa migrations list')".to_owned(),
        )),
    }
}
