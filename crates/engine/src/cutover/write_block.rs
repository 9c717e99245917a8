//! Makes the source refuse its users' writes, and lets them in again.
//!
//! To be sure that no write is under way the server takes its global lock, behind which every other operation waits, reads
//! too. An open transaction holds that lock until it ends. So each try has a time limit, and there are few.

use crate::{
    mongo::{cluster::Cluster, codes, current_op, error},
    retry::Backoff,
};
use bson::{Document, doc};
use limosa_model::{ErrorCode, Failure, Finding};
use std::time::Duration;

/// The longest that other clients wait for one try.
const TRY_MILLIS: i32 = 1_500;

/// Tries, and the pauses between them in which others get on.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(1_000);

/// A transaction that is open for so long may still be open when the cutover comes.
const LONG_MILLIS: i64 = 1_000;

fn refused(why: &str) -> Failure {
    Failure::new(ErrorCode::WriteBlockRefused, format!("the source's writes can't be blocked: {why}"))
}

const TOO_OLD: &str = "that takes MongoDB 6.0 or later, by its featureCompatibilityVersion too";

const NO_PRIVILEGE: &str = "its user may not; grant it a role with the privilege setUserWriteBlockMode on the cluster";

/// Why the source's writes can never be blocked, if so; nothing is tried.
pub(crate) async fn write_block_refusal(source: &Cluster) -> Result<Option<Finding>, Failure> {
    let found = |why| Some(Finding::error(ErrorCode::WriteBlockRefused, "source", refused(why).message));
    if !source.can().block_user_writes() {
        return Ok(found(TOO_OLD));
    }
    let privileges = source.privileges().await?;
    let may = privileges.as_ref().is_none_or(|all| all.allow_on_cluster("setUserWriteBlockMode"));
    Ok(if may { None } else { found(NO_PRIVILEGE) })
}

/// What a block would meet on the source now: transactions that keep it from being made, index builds that it ends.
pub(crate) async fn obstacles(source: &Cluster) -> Result<Vec<Finding>, Failure> {
    let warning = |evidence: String| Finding::warning(ErrorCode::WriteBlockRefused, "source", evidence);
    let mut findings = Vec::new();
    match current_op::open_transactions(source, LONG_MILLIS).await? {
        Ok(open) if open.is_empty() => {}
        Ok(open) => findings.push(warning(format!(
            "{}: the block can't be made while a transaction is open; each try holds all other clients up for up to {} s",
            current_op::listed(&open),
            f64::from(TRY_MILLIS) / 1_000.0
        ))),
        Err(why) => findings.push(warning(format!("whether transactions are open is not known: {why}"))),
    }
    match current_op::index_builds(source).await? {
        Ok(builds) if builds.is_empty() => {}
        Ok(builds) => findings.push(warning(format!(
            "{}: the block aborts index builds in progress on the source; wait until they are done",
            current_op::listed(&builds)
        ))),
        // Said above already.
        Err(_) => {}
    }
    Ok(findings)
}

fn command(block: bool) -> Document {
    doc! {"setUserWriteBlockMode": 1, "global": block, "maxTimeMS": TRY_MILLIS}
}

/// Makes the source refuse writes of its users. Where that fails nothing is blocked, or [`unblock_writes`] lifts it.
pub(crate) async fn block_writes(source: &Cluster) -> Result<(), Failure> {
    if !source.can().block_user_writes() {
        return Err(refused(TOO_OLD));
    }
    let mut tried = 0;
    loop {
        tried += 1;
        match source.db("admin").run_command(command(true)).await {
            Ok(_) => return Ok(()),
            Err(e) if error::code(&e) == Some(codes::UNAUTHORIZED) => return Err(refused(NO_PRIVILEGE)),
            Err(e) if is_held_up(&e) && tried < TRIES => tokio::time::sleep(PAUSE).await,
            Err(e) if is_held_up(&e) => return Err(refused(&holders(source).await?)),
            Err(e) if error::code(&e).is_none() => return Err(source.failure(&e)),
            Err(e) => return Err(refused(&error::words(&e))),
        }
    }
}

/// Whether the block wasn't made because the server's global lock is held.
fn is_held_up(error: &mongodb::error::Error) -> bool {
    matches!(error::code(error), Some(codes::MAX_TIME_MS_EXPIRED | codes::LOCK_TIMEOUT))
}

/// What holds the server's global lock, in words.
async fn holders(source: &Cluster) -> Result<String, Failure> {
    let open = current_op::open_transactions(source, 0).await?;
    let builds = current_op::index_builds(source).await?;
    let held = match (open, builds) {
        (Ok(open), Ok(builds)) => {
            let all = open.into_iter().chain(builds).collect();
            current_op::listed(&all)
        }
        (Err(why), _) | (_, Err(why)) => format!("what holds it up is not known: {why}"),
    };
    let held = if held.is_empty() { "nothing that $currentOp shows, by now".to_owned() } else { held };
    Ok(format!("operations under way did not end within {TRIES} tries of {TRY_MILLIS} ms: {held}"))
}

/// Lets the source's users write again; for when a cutover didn't complete.
pub(crate) async fn unblock_writes(source: &Cluster) -> Result<(), Failure> {
    let mut pause = Backoff::default();
    loop {
        match source.db("admin").run_command(command(false)).await {
            Ok(_) => return Ok(()),
            // Nothing can be blocked here.
            Err(e) if matches!(error::code(&e), Some(codes::ILLEGAL_OPERATION | codes::COMMAND_NOT_FOUND)) => {
                return Ok(());
            }
            Err(e) if error::is_transient(&e) && pause.wait().await => {}
            Err(e) => return Err(source.failure(&e)),
        }
    }
}
