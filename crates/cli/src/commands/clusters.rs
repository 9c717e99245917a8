//! `limosa clusters`

use crate::{args::Clusters, error::CliError, profile::Profile, ui};
use reqwest::Method;
use serde_json::json;

pub(crate) async fn run(given: Clusters) -> Result<(), CliError> {
    match given {
        Clusters::Add { profile: how, name, uri } => {
            let profile = Profile::read(&how.file)?;
            let body = json!({"name": name, "uri": uri.expose()});
            let answer = profile.client()?.call(Method::POST, &profile.own("clusters"), Some(body)).await?;
            ui::answer(how.output, &answer, |_| format!("{name} can be the destination of migrations"));
        }
        Clusters::List(how) => {
            let profile = Profile::read(&how.file)?;
            let answer = profile.client()?.call(Method::GET, &profile.own("clusters"), None).await?;
            ui::answer(how.output, &answer, |answer| {
                let rows = answer["results"].as_array().map(Vec::as_slice).unwrap_or_default();
                ui::table(&["NAME"], rows.iter().map(|row| vec![ui::text(&row["name"])]).collect())
            });
        }
    }
    Ok(())
}
