//! Every route, once.

use crate::{
    App,
    auth::Principal,
    middleware,
    negotiate::negotiate,
    render::{self, ApiError, Reply},
    routes::{agents, extra, link_tokens, live_migrations, validations},
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, Request, State},
    http::{Response, StatusCode, header},
    routing::{MethodRouter, delete, get, post, put},
};
use limosa_model::ApiVersion;
use serde_json::Value;
use std::{collections::HashMap, sync::Arc};
use tower_http::compression::CompressionLayer;

/// What a handler gets to see of a request.
pub(crate) struct Call {
    pub app: Arc<App>,
    pub principal: Principal,
    pub params: HashMap<String, String>,
    pub version: ApiVersion,
    body: Bytes,
    query: Vec<(String, String)>,
}

impl Call {
    /// The body as an object.
    pub fn object(&self) -> Result<serde_json::Map<String, Value>, ApiError> {
        match serde_json::from_slice(&self.body) {
            Ok(Value::Object(fields)) => Ok(fields),
            _ => Err(ApiError::bad("MALFORMED_JSON", "Received JSON is malformed.", &[])),
        }
    }

    /// The body as one of our own types.
    pub fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, ApiError> {
        serde_json::from_slice(&self.body)
            .map_err(|e| ApiError::bad("INVALID_JSON_ATTRIBUTE", format!("Received JSON does not match: {e}."), &[]))
    }

    /// A path parameter.
    pub fn param(&self, name: &str) -> &str {
        self.params.get(name).map_or("", String::as_str)
    }

    /// A query parameter.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

const V1: &[ApiVersion] = &[ApiVersion::V2023_01_01];
const V1_AND_2: &[ApiVersion] = &[ApiVersion::V2023_01_01, ApiVersion::V2024_05_30];
/// Outside of the Atlas part there is nothing to negotiate.
const PLAIN: &[ApiVersion] = &[];

type Handler = fn(&Call) -> Result<Reply, ApiError>;

/// A route's handler: negotiation before it, rendering after it.
#[expect(clippy::type_complexity, reason = "axum's handlers have no shorter name")]
fn handle(
    versions: &'static [ApiVersion],
    handler: Handler,
) -> impl Fn(State<Arc<App>>, Path<HashMap<String, String>>, Request) -> std::future::Ready<Response<Body>>
+ Clone
+ Send
+ Sync
+ 'static {
    move |State(app), Path(params), request| {
        let wishes = middleware::wishes(request.uri());
        let accept = request.headers().get(header::ACCEPT).and_then(|v| v.to_str().ok());
        let version = negotiate(accept, versions);
        let (principal, body) =
            (request.extensions().get::<Principal>().cloned(), request.extensions().get::<Bytes>().cloned());
        let result = match (principal, body, version) {
            (_, _, None) if !versions.is_empty() => Err(ApiError::new(
                StatusCode::NOT_ACCEPTABLE,
                "INVALID_VERSION_DATE",
                "Invalid accept header or version date.",
                &[],
            )),
            (Some(principal), Some(body), _) => {
                let query = middleware::query(request.uri());
                let call =
                    Call { app, principal, params, version: version.unwrap_or(ApiVersion::V2023_01_01), body, query };
                handler(&call)
            }
            _ => Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "UNEXPECTED_ERROR", "Unexpected error.", &[])),
        };
        std::future::ready(render::respond(result, version, wishes))
    }
}

/// The whole API.
pub(crate) fn build(app: Arc<App>) -> Router {
    type Routes = MethodRouter<Arc<App>>;
    let at = |router: Router<Arc<App>>, path: &str, route: Routes| router.route(path, route);
    let routes: Vec<(&str, Routes)> = vec![
        ("/api/atlas/v2/groups/{groupId}/liveMigrations", post(handle(V1_AND_2, live_migrations::create))),
        ("/api/atlas/v2/groups/{groupId}/liveMigrations/validate", post(handle(V1_AND_2, validations::create))),
        ("/api/atlas/v2/groups/{groupId}/liveMigrations/validate/{validationId}", get(handle(V1, validations::get))),
        ("/api/atlas/v2/groups/{groupId}/liveMigrations/{liveMigrationId}", get(handle(V1, live_migrations::get))),
        (
            "/api/atlas/v2/groups/{groupId}/liveMigrations/{liveMigrationId}/cutover",
            put(handle(V1, live_migrations::cut_over)),
        ),
        (
            "/api/atlas/v2/orgs/{orgId}/liveMigrations/linkTokens",
            post(handle(V1, link_tokens::create)).delete(handle(V1, link_tokens::delete)),
        ),
        ("/api/atlas/v2/orgs/{orgId}/liveMigrations/availableProjects", get(handle(V1, agents::available_projects))),
        ("/api/limosa/v1/agents", post(handle(PLAIN, agents::join))),
        ("/api/limosa/v1/agents/{agentId}/heartbeat", post(handle(PLAIN, agents::heartbeat))),
        ("/api/limosa/v1/agents/{agentId}/migrations/{liveMigrationId}/report", post(handle(PLAIN, agents::report))),
        (
            "/api/limosa/v1/agents/{agentId}/validations/{validationId}/report",
            post(handle(PLAIN, agents::report_validation)),
        ),
        (
            "/api/limosa/v1/groups/{groupId}/clusters",
            get(handle(PLAIN, extra::list_clusters)).post(handle(PLAIN, extra::add_cluster)),
        ),
        ("/api/limosa/v1/groups/{groupId}/liveMigrations", get(handle(PLAIN, extra::list))),
        ("/api/limosa/v1/groups/{groupId}/liveMigrations/{liveMigrationId}", get(handle(PLAIN, extra::describe))),
        ("/api/limosa/v1/groups/{groupId}/liveMigrations/{liveMigrationId}/events", get(handle(PLAIN, extra::events))),
        ("/api/limosa/v1/groups/{groupId}/liveMigrations/{liveMigrationId}/{verb}", post(handle(PLAIN, extra::act))),
    ];
    let api = routes.into_iter().fold(Router::new(), |router, (path, route)| at(router, path, route));
    let unknown = handle(PLAIN, |call| Err(ApiError::resource(call.param("path"))));
    api.route("/api/{*path}", get(unknown.clone()).post(unknown.clone()).merge(delete(unknown)))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&app), middleware::authenticate))
        .route("/api/oauth/token", post(middleware::oauth_token))
        .route("/api/oauth/revoke", post(middleware::oauth_revoke))
        .layer(axum::middleware::from_fn(middleware::headers))
        .layer(CompressionLayer::new())
        .layer(tower_http::catch_panic::CatchPanicLayer::new())
        .with_state(app)
}
