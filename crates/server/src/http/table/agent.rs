//! The agents' protocol; not part of the API document, since its two ends are ours.

use crate::{
    auth::Principal,
    handlers::agent::{heartbeat, join, report},
    http::{
        route::{Handler, Route},
        shape::Shape,
    },
};
use axum::http::Method;
use limosa_model::{ApiVersion, protocol};

/// All of them.
pub(super) fn routes() -> Vec<Route> {
    let protocol = |path, operation, handler: Handler| {
        let mut route = Route::new(Method::POST, path, operation, handler);
        (route.authorize, route.audited, route.documented) = (Principal::is_agent, false, false);
        route.role = "the link token's key";
        route
    };
    let any = |mut route: Route| {
        route.bodies.push((ApiVersion::V2023_01_01, Shape::any()));
        route
    };
    let join = protocol("/api/limosa/v1/agents", "joinAgent", join::join).body::<protocol::Join>();
    vec![
        Route { audited: true, ..join },
        any(protocol("/api/limosa/v1/agents/{agentId}/heartbeat", "agentHeartbeat", heartbeat::take)),
        any(protocol(
            "/api/limosa/v1/agents/{agentId}/migrations/{liveMigrationId}/report",
            "agentReport",
            report::migration,
        )),
        any(protocol(
            "/api/limosa/v1/agents/{agentId}/validations/{validationId}/report",
            "agentValidationReport",
            report::validation,
        )),
    ]
}
