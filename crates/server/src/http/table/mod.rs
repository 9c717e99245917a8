//! Every operation, once: its path, versions, roles, bodies and handler. The API document and the router are both made of
//! this table.

mod agent;
mod atlas;
mod limosa;

pub(crate) use atlas::{telemetry, tokens};

use crate::http::route::Route;
use serde_json::Value;
use std::sync::OnceLock;

const OWNER: &str = "Organization Owner";
const MEMBER: &str = "Organization Member";
const GROUP_OWNER: &str = "Project Owner";
const GROUP_READER: &str = "Project Read Only";

/// Clients send attributes of a migration that are not set as empty strings; the `atlas` command line always sends
/// `hostnameSchemaType`, and sends it empty.
fn unset_what_is_empty(body: &mut Value) {
    let unset = [("source", "caCertificatePath"), ("source", "username"), ("source", "password")];
    for (end, name) in unset.into_iter().chain([("destination", "privateLinkId")]) {
        if let Some(fields) = body.get_mut(end).and_then(Value::as_object_mut)
            && fields.get(name).is_some_and(|value| value == "")
        {
            fields.remove(name);
        }
    }
    if let Some(kind) = body.pointer_mut("/destination/hostnameSchemaType").filter(|kind| **kind == "") {
        *kind = "PUBLIC".into();
    }
}

/// All operations.
pub(crate) fn routes() -> &'static [Route] {
    static ROUTES: OnceLock<Vec<Route>> = OnceLock::new();
    ROUTES.get_or_init(|| atlas::routes().chain(limosa::routes()).chain(agent::routes()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fmt::Write, path::Path};

    const BEGIN: &str = "<!-- Made of the route table by a test of the server: LIMOSA_WRITE_DOCS=1. -->\n";
    const END: &str = "<!-- End of the route table. -->\n";

    /// Every operation with the weakest role that may ask for it.
    fn role_table() -> String {
        let mut table = "| operation | request | role |\n|---|---|---|\n".to_owned();
        let mut rows: Vec<&Route> = routes().iter().filter(|route| !route.operation.is_empty()).collect();
        rows.sort_by_key(|route| (route.role, route.operation));
        for route in rows {
            let role = if route.role.is_empty() { "any key" } else { route.role };
            let _ = writeln!(table, "| `{}` | `{} {}` | {role} |", route.operation, route.method, route.path);
        }
        table
    }

    #[test]
    fn the_documented_roles_are_those_of_the_route_table() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/security.md");
        let page = std::fs::read_to_string(&file).expect("is there");
        let (before, rest) = page.split_once(BEGIN).expect("the table's beginning");
        let (known, after) = rest.split_once(END).expect("the table's end");
        if std::env::var_os("LIMOSA_WRITE_DOCS").is_some() {
            std::fs::write(&file, format!("{before}{BEGIN}{}{END}{after}", role_table())).expect("writes");
        } else {
            assert_eq!(known, role_table(), "run the test with LIMOSA_WRITE_DOCS=1");
        }
    }
}
