//! Operations that Atlas's API lacks.

use super::{GROUP_OWNER, GROUP_READER, MEMBER, OWNER, unset_what_is_empty};
use crate::{
    handlers::limosa::{audit, clusters, cutover, events, link_tokens, migrations, reports, validations},
    http::{
        route::{Handler, Route},
        shape::Answer,
    },
};
use axum::http::{Method, StatusCode};
use limosa_model::{
    Limits,
    cutover::{CutoverOptions, Rehearsal},
    report::MigrationReport,
    wire::{
        live_migration::TargetOrg,
        own::{
            AuditEntry, CancelRequest, Changes, Empty, ExtendRequest, MigrationDetail, MigrationEvent,
            MigrationRequest, MigrationSample, MigrationValidation, RegisterCluster, RegisteredCluster, ResumeRequest,
            RotateLinkToken,
        },
    },
};

const CLUSTERS: &str = "/api/limosa/v1/groups/{groupId}/clusters";
const CLUSTER: &str = "/api/limosa/v1/groups/{groupId}/clusters/{clusterName}";
const MIGRATIONS: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations";
const MIGRATION: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations/{liveMigrationId}";
const VALIDATE: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations/validate";
const VALIDATION: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations/validate/{validationId}";
const EVENTS: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations/{liveMigrationId}/events";
const HISTORY: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations/{liveMigrationId}/history";
const PAUSE: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations/{liveMigrationId}/pause";
const RESUME: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations/{liveMigrationId}/resume";
const CANCEL: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations/{liveMigrationId}/cancel";
const OPTIONS: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations/{liveMigrationId}/cutover/options";
const REHEARSAL: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations/{liveMigrationId}/cutover/rehearsal";
const REPORT: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations/{liveMigrationId}/report";
const ABORT: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations/{liveMigrationId}/cutover/abort";
const EXTEND: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations/{liveMigrationId}/extend";
const LIMITS: &str = "/api/limosa/v1/groups/{groupId}/liveMigrations/{liveMigrationId}/limits";
const LINK: &str = "/api/limosa/v1/orgs/{orgId}/linkToken";
const LINK_ROTATE: &str = "/api/limosa/v1/orgs/{orgId}/linkToken/rotate";
const AUDIT: &str = "/api/limosa/v1/orgs/{orgId}/audit";

/// All of them.
pub(super) fn routes() -> Vec<Route> {
    let steer = |path, operation, handler: Handler| {
        Route::new(Method::POST, path, operation, handler)
            .role(GROUP_OWNER)
            .responds(Answer::one::<MigrationDetail>(StatusCode::OK))
    };
    vec![
        Route::new(Method::GET, CLUSTERS, "listClusters", clusters::list)
            .summary("Return the registered destinations")
            .role(GROUP_READER)
            .responds(Answer::page::<RegisteredCluster>()),
        Route::new(Method::POST, CLUSTERS, "registerCluster", clusters::register)
            .summary("Register a destination, or change its URIs")
            .role(OWNER)
            .body::<RegisterCluster>()
            .responds(Answer::one::<RegisteredCluster>(StatusCode::CREATED)),
        Route::new(Method::DELETE, CLUSTER, "deleteCluster", clusters::delete)
            .summary("Forget a destination")
            .role(OWNER)
            .responds(Answer::nothing(StatusCode::NO_CONTENT)),
        Route::new(Method::GET, MIGRATIONS, "listLiveMigrations", migrations::list)
            .summary("Return the group's migrations, newest first")
            .role(MEMBER)
            .query(&["phase", "status"])
            .responds(Answer::page::<MigrationDetail>()),
        Route::new(Method::POST, MIGRATIONS, "createLiveMigration", migrations::create)
            .summary("Create a migration of chosen namespaces")
            .role(OWNER)
            .body::<MigrationRequest>()
            .normalize(unset_what_is_empty)
            .responds(Answer::one::<MigrationDetail>(StatusCode::CREATED)),
        Route::new(Method::POST, VALIDATE, "validateLiveMigration", validations::create)
            .summary("Ask whether a migration of chosen namespaces could start")
            .role(OWNER)
            .body::<MigrationRequest>()
            .normalize(unset_what_is_empty)
            .responds(Answer::one::<MigrationValidation>(StatusCode::OK)),
        Route::new(Method::GET, VALIDATION, "getLiveMigrationValidation", validations::get)
            .summary("Return one validation with all its findings")
            .role(OWNER)
            .responds(Answer::one::<MigrationValidation>(StatusCode::OK)),
        Route::new(Method::GET, MIGRATION, "getLiveMigration", migrations::describe)
            .summary("Return one migration in full")
            .role(MEMBER)
            .responds(Answer::one::<MigrationDetail>(StatusCode::OK)),
        Route {
            stream: Some(events::stream),
            ..Route::new(Method::GET, EVENTS, "listLiveMigrationEvents", events::list)
                .summary("Return what happened to a migration, or follow it as text/event-stream")
                .role(MEMBER)
                .responds(Answer::page::<MigrationEvent>())
        },
        Route {
            stream: Some(events::stream_changes),
            ..Route::new(Method::GET, "/api/limosa/v1/changes", "getChanges", events::changes)
                .summary("Return how often migrations were changed, or be woken by it as text/event-stream")
                .responds(Answer::one::<Changes>(StatusCode::OK))
        },
        Route::new(Method::GET, HISTORY, "listLiveMigrationHistory", migrations::history)
            .summary("Return how far a migration was over time, oldest first")
            .role(MEMBER)
            .responds(Answer::array::<MigrationSample>(StatusCode::OK)),
        steer(PAUSE, "pauseLiveMigration", migrations::pause)
            .summary("Stop, to continue later")
            .optional_body::<Empty>(),
        steer(RESUME, "resumeLiveMigration", migrations::resume)
            .summary("Continue after a pause or a failure")
            .optional_body::<ResumeRequest>(),
        steer(CANCEL, "cancelLiveMigration", migrations::cancel).summary("Give up").optional_body::<CancelRequest>(),
        steer(EXTEND, "extendLiveMigration", migrations::extend)
            .summary("Give more time for the cutover")
            .optional_body::<ExtendRequest>(),
        steer(ABORT, "abortLiveMigrationCutover", migrations::abort_cutover)
            .summary("End the cutover under way: back to ready")
            .optional_body::<Empty>(),
        Route::new(Method::GET, OPTIONS, "getLiveMigrationCutoverOptions", cutover::options)
            .summary("Return how it will be cut over")
            .role(MEMBER)
            .responds(Answer::one::<CutoverOptions>(StatusCode::OK)),
        Route::new(Method::PUT, OPTIONS, "setLiveMigrationCutoverOptions", cutover::choose)
            .summary("Say how it will be cut over")
            .role(GROUP_OWNER)
            .body::<CutoverOptions>()
            .responds(Answer::one::<CutoverOptions>(StatusCode::OK)),
        Route::new(Method::POST, REHEARSAL, "rehearseLiveMigrationCutover", cutover::rehearse)
            .summary("Ask what a cutover would do and how long it would take; nothing is changed")
            .role(GROUP_OWNER)
            .optional_body::<Empty>()
            .responds(Answer::one::<Rehearsal>(StatusCode::ACCEPTED)),
        Route::new(Method::GET, REHEARSAL, "getLiveMigrationCutoverRehearsal", cutover::rehearsal)
            .summary("Return the newest rehearsal of the cutover")
            .role(MEMBER)
            .responds(Answer::one::<Rehearsal>(StatusCode::OK)),
        Route::new(Method::GET, REPORT, "getLiveMigrationReport", reports::get)
            .summary("Return the report of a migration that is over")
            .role(MEMBER)
            .responds(Answer::one::<MigrationReport>(StatusCode::OK)),
        steer(LIMITS, "limitLiveMigration", migrations::limit)
            .summary("Change how much it may take of its clusters; what is left out is as by default")
            .body::<Limits>(),
        Route::new(Method::POST, LINK_ROTATE, "rotateLinkToken", link_tokens::rotate)
            .summary("Replace the organization's link token, also while migrations run")
            .role(OWNER)
            .optional_body::<RotateLinkToken>()
            .responds(Answer::one::<TargetOrg>(StatusCode::CREATED)),
        Route::new(Method::DELETE, LINK, "revokeLinkToken", link_tokens::revoke)
            .summary("Revoke the organization's link token at once, also while migrations run")
            .role(OWNER)
            .responds(Answer::nothing(StatusCode::NO_CONTENT)),
        Route::new(Method::GET, AUDIT, "listAudit", audit::list)
            .summary("Return who did what, newest first")
            .role(OWNER)
            .responds(Answer::page::<AuditEntry>()),
    ]
}
