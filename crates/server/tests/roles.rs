//! Who may do what, from where, and what is kept of it.

use crate::support::{Answer, TestServer, sign};
use limosa_model::{PhaseKind, Secret, protocol::Directive};
use reqwest::Method;
use serde_json::{Value, json};

/// A key with these roles; its halves.
async fn key(server: &TestServer, roles: &[&str]) -> (Value, String, String) {
    let made =
        server.call(Method::POST, &server.org("apiKeys"), Some(json!({"desc": "a test's", "roles": roles}))).await;
    assert_eq!(made.status, 200, "{made:?}");
    let made = made.json();
    let text = |name: &str| made[name].as_str().expect("is there").to_owned();
    (made.clone(), text("publicKey"), text("privateKey"))
}

async fn by(
    server: &TestServer,
    key: &(Value, String, String),
    method: Method,
    path: &str,
    body: Option<Value>,
) -> Answer {
    let asked = Answer::of(server.request(method.clone(), path)).await;
    let signature = sign(asked.header("www-authenticate"), (&key.1, &key.2), method.as_str(), path, "00000001");
    let request = server.request(method, path).header("authorization", signature);
    Answer::of(match body {
        Some(body) => request.json(&body),
        None => request,
    })
    .await
}

#[tokio::test]
async fn each_role_opens_its_doors_only() {
    let server = TestServer::start().await;
    let _agent = server.agent().await;
    let migration = server.migration().await;
    let detail = migration.replace("/api/atlas/v2", "/api/limosa/v1");
    let doors = [
        (Method::GET, migration.clone(), None),
        (Method::GET, detail.clone(), None),
        (Method::GET, server.group("clusters"), None),
        (Method::GET, server.org(""), None),
        (Method::POST, server.group("liveMigrations/validate"), Some(server.request_body())),
        (Method::POST, format!("{detail}/pause"), None),
        (Method::POST, server.own("liveMigrations/validate"), Some(server.request_body())),
        (Method::GET, server.org("liveMigrations/availableProjects"), None),
        (
            Method::POST,
            "/api/atlas/v2/groups".to_owned(),
            Some(json!({"name": "another", "orgId": server.keys.org_id})),
        ),
        (Method::GET, format!("/api/limosa/v1/orgs/{}/audit", server.keys.org_id), None),
    ];
    let cases = [
        ("ORG_GROUP_CREATOR", [false, false, false, true, false, false, false, false, true, false]),
        ("ORG_MEMBER", [true, true, false, true, false, false, false, false, false, false]),
        ("ORG_READ_ONLY", [true, true, true, true, false, false, false, false, false, false]),
        ("ORG_OWNER", [true, true, true, true, true, true, true, true, false, true]),
    ];
    for (role, open) in cases {
        let key = key(&server, &[role]).await;
        for ((method, path, body), open) in doors.iter().zip(open) {
            let answer = by(&server, &key, method.clone(), path, body.clone()).await;
            let refused = answer.status == 401;
            // The group of that name exists once the creator made it.
            let conflict = answer.status == 409;
            assert_eq!(!refused && !conflict, open, "{role} {method} {path}: {answer:?}");
            if refused {
                let code = answer.error().1;
                assert!(["USER_UNAUTHORIZED", "USER_CANNOT_ACCESS_GROUP"].contains(&code.as_str()), "{code}");
            }
        }
    }
    let refused =
        server.call(Method::POST, &server.org("apiKeys"), Some(json!({"desc": "x", "roles": ["GROUP_OWNER"]}))).await;
    assert_eq!(refused.error(), (400, "INVALID_ENUM_VALUE".to_owned()));
}

#[tokio::test]
async fn a_groups_keys_open_their_group_only() {
    let server = TestServer::start().await;
    let _agent = server.agent().await;
    let migration = server.migration().await;
    let detail = migration.replace("/api/atlas/v2", "/api/limosa/v1");
    let made = async |roles: &[&str]| {
        let body = json!({"desc": "a test's", "roles": roles});
        let made = server.call(Method::POST, &server.group("apiKeys"), Some(body)).await;
        assert_eq!(made.status, 200, "{made:?}");
        let made = made.json();
        let text = |name: &str| made[name].as_str().expect("is there").to_owned();
        (made.clone(), text("publicKey"), text("privateKey"))
    };
    let (owner, reader) = (made(&["GROUP_OWNER"]).await, made(&["GROUP_READ_ONLY"]).await);
    let creator = key(&server, &["ORG_GROUP_CREATOR"]).await;
    let wanted = json!({"name": "another", "orgId": server.keys.org_id});
    let other = by(&server, &creator, Method::POST, "/api/atlas/v2/groups", Some(wanted)).await.json();
    let other = format!("/api/atlas/v2/groups/{}", other["id"].as_str().expect("an id"));
    let status = async |key, method, path: &str, body| by(&server, key, method, path, body).await.status;
    for key in [&owner, &reader] {
        assert_eq!(status(key, Method::GET, &migration, None).await, 200);
        assert_eq!(status(key, Method::GET, &server.group("clusters"), None).await, 200);
        assert_eq!(status(key, Method::GET, &other, None).await, 401);
        let groups = by(&server, key, Method::GET, "/api/atlas/v2/groups", None).await.json();
        assert_eq!(groups["totalCount"], 1);
    }
    assert_eq!(status(&reader, Method::POST, &format!("{detail}/pause"), None).await, 401);
    assert_eq!(status(&owner, Method::POST, &format!("{detail}/pause"), None).await, 200);
    let cutover = format!("{migration}/cutover");
    assert_eq!(status(&owner, Method::PUT, &cutover, None).await, 401, "an organization owner's alone");
    // Who created a group owns it, and may let others in and out.
    let id = reader.0["id"].as_str().expect("an id");
    let entry = format!("{other}/apiKeys/{id}");
    let roles = json!([{"roles": ["GROUP_READ_ONLY"]}]);
    assert_eq!(status(&reader, Method::POST, &entry, Some(roles.clone())).await, 401);
    assert_eq!(status(&creator, Method::POST, &entry, Some(roles)).await, 200);
    assert_eq!(status(&reader, Method::GET, &other, None).await, 200);
    assert_eq!(server.get(&format!("{other}/apiKeys")).await.json()["totalCount"], 2);
    assert_eq!(status(&creator, Method::DELETE, &entry, None).await, 204);
    assert_eq!(status(&reader, Method::GET, &other, None).await, 401);
    assert_eq!(status(&reader, Method::GET, &migration, None).await, 200);
}

#[tokio::test]
async fn an_agents_key_opens_the_agents_doors_only() {
    let server = TestServer::start().await;
    let agent = server.agent().await;
    assert_eq!(
        agent.get(&server.org("liveMigrations/availableProjects")).await.error(),
        (401, "USER_UNAUTHORIZED".to_owned())
    );
    let migration = server.migration().await;
    assert_eq!(agent.get(&migration).await.error().0, 401);
    assert_eq!(server.call(Method::POST, "/api/limosa/v1/agents", Some(json!({}))).await.error().0, 401);
    let unlink = server.call(Method::DELETE, &server.org("liveMigrations/linkTokens"), None).await;
    assert_eq!(unlink.error(), (409, "CANNOT_DELETE_ORG_ACTIVE_LIVE_MIGRATION_ATLAS_ORG_LINK".to_owned()));
    assert_eq!(unlink.json()["parameters"][0], server.keys.group_id.to_string());
}

#[tokio::test]
async fn keys_are_shown_once_work_from_their_addresses_and_end() {
    let server = TestServer::start().await;
    let key = key(&server, &["ORG_READ_ONLY"]).await;
    let path = server.org(&format!("apiKeys/{}", key.0["id"].as_str().expect("an id")));
    let shown = server.get(&path).await.json();
    assert_eq!(shown["privateKey"], format!("********-****-****-{}", &key.2[24..]));
    let who = by(&server, &key, Method::GET, "/api/atlas/v2", None).await.json();
    assert_eq!(who["apiKey"]["publicKey"], key.1.as_str());
    assert_eq!(who["apiKey"]["roles"][0]["roleName"], "ORG_READ_ONLY");

    let list = format!("{path}/accessList");
    let add = async |entry: Value| server.call(Method::POST, &list, Some(json!([entry]))).await;
    assert_eq!(add(json!({"ipAddress": "10.0.0.300"})).await.error(), (400, "INVALID_JSON_ATTRIBUTE".to_owned()));
    assert_eq!(add(json!({"cidrBlock": "10.0.0.0/8"})).await.status, 200);
    let outside = by(&server, &key, Method::GET, "/api/atlas/v2/orgs", None).await;
    assert_eq!(outside.error(), (403, "IP_ADDRESS_NOT_ON_ACCESS_LIST".to_owned()));
    assert_eq!(outside.json()["parameters"], json!(["127.0.0.1"]));
    assert_eq!(add(json!({"ipAddress": "127.0.0.1"})).await.status, 200);
    assert_eq!(by(&server, &key, Method::GET, "/api/atlas/v2/orgs", None).await.status, 200);
    assert_eq!(server.call(Method::DELETE, &format!("{list}/10.0.0.0%2F8"), None).await.status, 204);
    let left = server.get(&list).await.json();
    assert_eq!((&left["results"][0]["ipAddress"], &left["totalCount"]), (&json!("127.0.0.1"), &json!(1)));

    assert_eq!(server.call(Method::DELETE, &path, None).await.status, 204);
    assert_eq!(by(&server, &key, Method::GET, "/api/atlas/v2/orgs", None).await.status, 401);
    let all = server.get(&server.org("apiKeys")).await.json();
    let last = server.org(&format!("apiKeys/{}", all["results"][0]["id"].as_str().expect("an id")));
    assert_eq!(server.call(Method::DELETE, &last, None).await.error(), (409, "CANNOT_DELETE_LAST_OWNER".to_owned()));
}

#[tokio::test]
async fn a_service_account_ends_with_its_tokens_and_the_audit_tells() {
    let server = TestServer::start().await;
    let wanted = json!({"name": "ci", "description": "x", "roles": ["ORG_OWNER"], "secretExpiresAfterHours": 8});
    let made = server.call(Method::POST, &server.org("serviceAccounts"), Some(wanted)).await;
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    let (client, secret) =
        (made["clientId"].as_str().expect("an id"), made["secrets"][0]["secret"].as_str().expect("once"));
    assert!(client.starts_with("mdb_sa_id_") && secret.starts_with("mdb_sa_sk_"), "{made}");
    assert!(!server.get(&server.org("serviceAccounts")).await.text.contains(secret));
    let grant = || {
        let request = server.http.post(format!("{}/api/oauth/token", server.url)).basic_auth(client, Some(secret));
        Answer::of(request.body("grant_type=client_credentials"))
    };
    let token = grant().await.json()["access_token"].as_str().expect("a token").to_owned();
    let ask = || Answer::of(server.request(Method::GET, "/api/atlas/v2/orgs").bearer_auth(&token));
    assert_eq!(ask().await.status, 200);
    // A minute may end within: then counting begins again, once.
    let mut limited = grant().await;
    for _ in 0..121 {
        if limited.status == 429 {
            break;
        }
        limited = grant().await;
    }
    assert_eq!((limited.status, limited.json()["error"].as_str()), (429, Some("rate_limited")));
    assert!(!limited.header("retry-after").is_empty());
    assert_eq!(server.call(Method::DELETE, &server.org(&format!("serviceAccounts/{client}")), None).await.status, 204);
    assert_eq!(ask().await.status, 401);

    let audit = server.get(&format!("/api/limosa/v1/orgs/{}/audit", server.keys.org_id)).await.json();
    let told: Vec<(&str, &str, &str)> = audit["results"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|e| {
            (
                e["operation"].as_str().expect("text"),
                e["actor"].as_str().expect("text"),
                e["address"].as_str().expect("text"),
            )
        })
        .collect();
    let owner = server.keys.client_id.as_str();
    assert_eq!(
        told,
        [("deleteOrgServiceAccount", owner, "127.0.0.1"), ("createOrgServiceAccount", owner, "127.0.0.1")]
    );
    assert!(audit["results"][1]["target"].as_str().is_some_and(|target| target.ends_with(client)), "{audit}");
}

#[tokio::test]
async fn requests_are_counted_and_too_many_are_held_up() {
    let server = TestServer::start().await;
    let mut refused = None;
    // A minute may end within: then counting begins again, once.
    for _ in 0..1_010 {
        let answer = server.get(&server.org("")).await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("five hundred a minute are enough");
    assert_eq!(refused.error().1, "RATE_LIMITED");
    assert_eq!((refused.header("ratelimit-limit"), refused.header("ratelimit-remaining")), ("500", "0"));
    assert!(refused.header("retry-after").parse::<u32>().is_ok_and(|s| (1..=60).contains(&s)), "{refused:?}");
    // Other resources are counted apart.
    assert_eq!(server.get(&server.group("clusters")).await.status, 200);
}

/// A key with this role in the server's group.
async fn key_of_group(server: &TestServer, role: &str) -> (Value, String, String) {
    let body = json!({"desc": "a test's", "roles": [role]});
    let made = server.call(Method::POST, &server.group("apiKeys"), Some(body)).await;
    assert_eq!(made.status, 200, "{made:?}");
    let made = made.json();
    let text = |name: &str| made[name].as_str().expect("is there").to_owned();
    (made.clone(), text("publicKey"), text("privateKey"))
}

#[tokio::test]
async fn a_group_owner_changes_nothing_that_takes_the_role_that_creating_takes() {
    let server = TestServer::start().await;
    let _agent = server.agent().await;
    let migration = server.migration().await.replace("/api/atlas/v2", "/api/limosa/v1");
    let owner = key_of_group(&server, "GROUP_OWNER").await;
    let refused = [
        (Method::POST, server.own("clusters"), json!({"name": "new", "uri": "mongodb://evil:1/"})),
        (Method::POST, server.own("clusters"), json!({"name": "another", "uri": "mongodb://evil:1/"})),
        (Method::DELETE, server.own("clusters/new"), Value::Null),
        (Method::PUT, format!("{migration}/cutover/options"), json!({"reversible": true})),
        (Method::POST, format!("{migration}/cancel"), json!({"dropCopied": true})),
    ];
    for (method, path, body) in refused {
        let answer = by(&server, &owner, method.clone(), &path, Some(body).filter(|b| !b.is_null())).await;
        assert_eq!(answer.error(), (401, "USER_UNAUTHORIZED".to_owned()), "{method} {path}");
    }
    let allowed = [
        (Method::PUT, format!("{migration}/cutover/options"), json!({"blockSourceWrites": true})),
        (Method::POST, format!("{migration}/cancel"), json!({})),
    ];
    for (method, path, body) in allowed {
        assert_eq!(by(&server, &owner, method.clone(), &path, Some(body)).await.status, 200, "{method} {path}");
    }
}

#[tokio::test]
async fn a_cluster_that_a_migration_uses_keeps_leading_where_it_leads() {
    let server = TestServer::start().await;
    let mut agent = server.agent().await;
    let migration = server.migration().await;
    let put = async |uri: &str| {
        server.call(Method::POST, &server.own("clusters"), Some(json!({"name": "new", "uri": uri}))).await
    };
    let refused = async |uri: &str| {
        let answer = put(uri).await;
        assert_eq!(answer.error(), (409, "CLUSTER_IN_USE".to_owned()), "{uri}");
        assert!(!answer.text.contains("hidden"), "{answer:?}");
    };
    let elsewhere = ["mongodb://user:hidden@127.0.0.2:1/", "mongodb://user:hidden@127.0.0.1:1/?tlsInsecure=true"];
    for uri in elsewhere {
        refused(uri).await;
    }
    agent.claim().await;
    let renewed = "mongodb://user:renewed@127.0.0.1:1/";
    assert_eq!(put(renewed).await.status, 201);
    // A failed one can be resumed, and would read what is registered then.
    assert_eq!(agent.report(&migration, PhaseKind::Failed, None).await, Directive::Stop);
    refused(elsewhere[0]).await;
    let detail = migration.replace("/api/atlas/v2", "/api/limosa/v1");
    let steer = async |verb: &str| server.call(Method::POST, &format!("{detail}/{verb}"), Some(json!({}))).await.status;
    assert_eq!(steer("resume").await, 200);
    let given = agent.heartbeat(true).await.migration.expect("it waits");
    assert_eq!(given.destination_uri, Secret::new(renewed));
    assert_eq!(steer("cancel").await, 200);
    assert_eq!(put(elsewhere[0]).await.status, 201);
}

/// What the documented role of each operation that changes something keeps out, one operation after the other.
#[tokio::test]
async fn every_operation_keeps_out_who_lacks_its_documented_role() {
    let server = TestServer::start().await;
    let _agent = server.agent().await;
    let migration = server.migration().await;
    let id = migration.rsplit('/').next().expect("an id").to_owned();
    let mut keys = Vec::new();
    for role in ["ORG_MEMBER", "ORG_READ_ONLY", "ORG_GROUP_CREATOR"] {
        keys.push((role, key(&server, &[role]).await));
    }
    for role in ["GROUP_READ_ONLY", "GROUP_OWNER"] {
        keys.push((role, key_of_group(&server, role).await));
    }
    let cluster = json!({"name": "x", "uri": "mongodb://h:1/"});
    let bodies = json!({
        "createGroupLiveMigration": server.request_body(), "createLiveMigration": server.request_body(),
        "validateGroupLiveMigrations": server.request_body(), "validateLiveMigration": server.request_body(),
        "registerCluster": cluster, "createGroup": {"name": "y", "orgId": server.keys.org_id},
        "createOrgApiKey": {"desc": "x", "roles": ["ORG_OWNER"]}, "createGroupApiKey": {"desc": "x", "roles": ["GROUP_OWNER"]},
        "addGroupApiKey": [{"roles": ["GROUP_OWNER"]}], "createOrgAccessEntry": [{"ipAddress": "127.0.0.1"}],
        "createOrgServiceAccount":
            {"name": "x", "description": "x", "roles": ["ORG_OWNER"], "secretExpiresAfterHours": 8},
    });
    let document = server.get("/api/openapi.json").await.json();
    let mut judged = 0;
    for (template, operations) in document["paths"].as_object().expect("paths") {
        let path = template
            .replace("{groupId}", &server.keys.group_id.to_string())
            .replace("{orgId}", &server.keys.org_id.to_string())
            .replace("{liveMigrationId}", &id)
            .replace("{clusterName}", "nothing");
        let path = path.split('{').map(|part| part.split_once('}').map_or(part, |(_, rest)| rest));
        let path = path.collect::<Vec<_>>().join("0123456789abcdef01234567");
        for (method, operation) in operations.as_object().expect("operations") {
            let needed = operation["x-rolesRequirements"][0].as_str().unwrap_or_default();
            let name = operation["operationId"].as_str().unwrap_or_default();
            if method == "get" || needed.is_empty() {
                continue;
            }
            let allowed: &[&str] = match needed {
                "Organization Owner" => &[],
                "Project Owner" => &["GROUP_OWNER"],
                "Organization Project Creator" => &["ORG_GROUP_CREATOR"],
                other => panic!("{name} needs {other:?}: say here who has that"),
            };
            let method: Method = method.to_ascii_uppercase().parse().expect("a method");
            for (role, key) in keys.iter().filter(|(role, _)| !allowed.contains(role)) {
                let body = bodies.get(name).cloned().or_else(|| operation.get("requestBody").map(|_| json!({})));
                let answer = by(&server, key, method.clone(), &path, body).await;
                if answer.status == 400 && bodies.get(name).is_none() {
                    continue; // its body isn't known here
                }
                assert_eq!(answer.status, 401, "{role} may {name} ({method} {path}): {answer:?}");
                judged += 1;
            }
        }
    }
    assert!(judged >= 80, "only {judged} were judged");
}
