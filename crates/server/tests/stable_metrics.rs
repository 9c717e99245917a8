//! The names of the metrics: boards and alerts read them.

#[path = "../../engine/tests/metric_names.rs"]
mod metric_names;

use crate::support::TestServer;
use limosa_model::{PhaseKind, Progress};

const ADVICE: &str = "\
    Names that boards and alerts read. A metric or a label may be added, none may be renamed or removed. After an addition, \
    write the file again: INSTA_UPDATE=always cargo test -p limosa-server --test main stable_metrics";

#[tokio::test]
async fn names_of_metrics_stay() {
    let server = TestServer::start().await;
    let mut agent = server.agent().await;
    let migration = server.migration().await;
    agent.claim().await;
    let progress = Progress { lag_seconds: Some(0), oplog_window_seconds: Some(60), ..Progress::default() };
    agent.report_with(&migration, PhaseKind::Synced, progress).await;
    let scraped = server.get("/metrics").await.text;
    insta::with_settings!({
        snapshot_path => "golden", prepend_module_to_snapshot => false, description => ADVICE, omit_expression => true,
    }, { insta::assert_snapshot!("metric_names", metric_names::names(&scraped)) });
}
