//! One migration, through the API of its server.

use crate::{args::Cutover, profile::Profile};
use limosa_agent::http::{Client, HttpError};
use limosa_model::{Limits, MigrationId, PhaseKind, Progress, cutover::CutoverOptions};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::Path;

/// A migration as the API describes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Detail {
    pub id: MigrationId,
    pub phase: PhaseKind,
    pub progress: Progress,
    pub lag_time_seconds: Option<i64>,
    pub ready_for_cutover: bool,
    /// Absent from servers of the version before.
    #[serde(default)]
    pub report_age_seconds: Option<i64>,
    pub failure: Option<Reason>,
    pub expires_at: Option<String>,
    #[serde(default)]
    pub reversal_of: Option<MigrationId>,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub drop_destination_data: bool,
    #[serde(default)]
    pub removal_pending: bool,
}

/// Why something failed.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Reason {
    pub code: String,
    pub message: String,
    #[serde(default)]
    pub remedy: String,
}

impl Detail {
    pub fn read(value: &Value) -> Result<Self, HttpError> {
        Self::deserialize(value).map_err(|e| HttpError::Malformed(e.to_string()))
    }
}

/// One migration on a server: what a command asks of it, and what to do when it is ready.
pub(crate) struct MigrationHandle<'a> {
    pub profile: &'a Profile,
    pub client: &'a Client,
    pub id: MigrationId,
    pub profile_file: &'a Path,
    pub cutover: Cutover,
    /// Whether this process carries it out: then leaving the screen doesn't end it.
    pub is_own: bool,
}

impl MigrationHandle<'_> {
    pub async fn detail(&self) -> Result<Detail, HttpError> {
        Detail::read(&self.described().await?)
    }

    /// As the API describes it.
    pub async fn described(&self) -> Result<Value, HttpError> {
        self.client.call(Method::GET, &self.profile.own(&format!("liveMigrations/{}", self.id)), None).await
    }

    /// What happened to it, oldest first.
    pub async fn events(&self) -> Result<Vec<Value>, HttpError> {
        let path = self.profile.own(&format!("liveMigrations/{}/events?itemsPerPage=500", self.id));
        let answer = self.client.call(Method::GET, &path, None).await?;
        Ok(answer["results"].as_array().cloned().unwrap_or_default())
    }

    /// Pauses or resumes it.
    pub async fn act(&self, verb: &str) -> Result<(), HttpError> {
        let path = self.profile.own(&format!("liveMigrations/{}/{verb}", self.id));
        self.client.call(Method::POST, &path, Some(json!({}))).await.map(drop)
    }

    /// Cuts over as soon as it is ready; `false` if it isn't any more by the time that the order arrives.
    pub async fn cut_over_when_ready(&self) -> Result<bool, HttpError> {
        match self.cut_over().await {
            Ok(()) => Ok(true),
            Err(HttpError::Refused(409, ..)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub async fn cut_over(&self) -> Result<(), HttpError> {
        let path = self.profile.atlas(&format!("liveMigrations/{}/cutover", self.id));
        self.client.call(Method::PUT, &path, None).await.map(drop)
    }

    /// The reverse migration of this one, if it has one.
    pub async fn way_back(&self) -> Result<Option<Detail>, HttpError> {
        let listed = self.client.call(Method::GET, &self.profile.own("liveMigrations"), None).await?;
        let all = listed["results"].as_array().map(Vec::as_slice).unwrap_or_default();
        let all = all.iter().map(Detail::read).collect::<Result<Vec<_>, _>>()?;
        Ok(all.into_iter().find(|detail| detail.reversal_of == Some(self.id)))
    }

    pub async fn limits(&self) -> Result<Limits, HttpError> {
        Ok(self.detail().await?.limits)
    }

    pub async fn limit(&self, limits: Limits) -> Result<Value, HttpError> {
        let path = self.profile.own(&format!("liveMigrations/{}/limits", self.id));
        self.client.call(Method::POST, &path, Some(json!(limits))).await
    }

    /// How it is to be cut over.
    pub async fn cutover_options(&self) -> Result<CutoverOptions, HttpError> {
        let answer = self.client.call(Method::GET, &self.options_path(), None).await?;
        CutoverOptions::deserialize(answer).map_err(|e| HttpError::Malformed(e.to_string()))
    }

    pub async fn choose_cutover(&self, options: CutoverOptions) -> Result<(), HttpError> {
        self.client.call(Method::PUT, &self.options_path(), Some(json!(options))).await.map(drop)
    }

    fn options_path(&self) -> String {
        self.profile.own(&format!("liveMigrations/{}/cutover/options", self.id))
    }

    /// Why the last cutover was rolled back.
    pub async fn last_failure(&self) -> Result<Option<Reason>, HttpError> {
        let events = self.events().await?;
        let newest = events.iter().filter(|e| e["kind"] == "failure").max_by_key(|e| e["id"].as_i64());
        Ok(newest.map(|event| {
            // A server of the version before keeps the sentence alone.
            let data = Reason::deserialize(&event["data"]).ok();
            data.unwrap_or_else(|| Reason {
                code: "CUTOVER".to_owned(),
                message: event["message"].as_str().unwrap_or_default().to_owned(),
                remedy: String::new(),
            })
        }))
    }
}
