//! What Atlas's own clients send and need around a migration: the Go SDK, the `atlas` command line, Terraform.

use crate::support::{Answer, TestServer};
use reqwest::Method;
use serde_json::{Value, json};

/// A timestamp as Atlas writes it.
fn is_time(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.len() >= 20 && text.ends_with('Z'))
}

#[tokio::test]
async fn a_group_is_created_as_official_clients_ask_for_it() {
    let server = TestServer::start().await;
    let create = async |body: Value| server.call(Method::POST, "/api/atlas/v2/groups", Some(body)).await;
    let org = server.keys.org_id.to_string();
    // The generated clients send a whole group, with the attributes that only the server may set.
    let tags = json!([{"key": "team", "value": "data"}]);
    let sent = json!({
        "clusterCount": 0, "created": "0001-01-01T00:00:00Z", "id": "0123456789abcdef01234567", "links": [],
        "name": "sdk", "orgId": org, "regionUsageRestrictions": "NONE", "tags": tags, "withDefaultAlertsSettings": true,
    });
    let made = create(sent).await;
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    assert_ne!(made["id"], "0123456789abcdef01234567");
    assert!(made["created"] != "0001-01-01T00:00:00Z" && is_time(&made["created"]), "{made}");
    let path = format!("/api/atlas/v2/groups/{}", made["id"].as_str().expect("an id"));
    let read = server.get(&path).await.json();
    assert_eq!((&read["tags"], &read["withDefaultAlertsSettings"]), (&tags, &json!(true)), "{read}");
    assert_eq!(read["regionUsageRestrictions"], "NONE");

    let plain = create(json!({"name": "plain", "orgId": org})).await.json();
    assert_eq!((&plain["tags"], &plain["withDefaultAlertsSettings"]), (&json!([]), &json!(false)), "{plain}");
    let bad = |name: &str, value: Value| {
        let mut body = json!({"name": "bad", "orgId": org});
        body[name] = value;
        create(body)
    };
    assert_eq!(bad("regionUsageRestrictions", json!("MOON")).await.error(), (400, "INVALID_ENUM_VALUE".to_owned()));
    assert_eq!(bad("tags", json!([{"key": "only"}])).await.error(), (400, "MISSING_ATTRIBUTE".to_owned()));
    assert_eq!(bad("tags", json!([{"key": "", "value": "x"}])).await.error(), (400, "VALIDATION_ERROR".to_owned()));
    assert_eq!(bad("surprise", json!(1)).await.error(), (400, "INVALID_ATTRIBUTE".to_owned()));
}

#[tokio::test]
async fn a_method_that_is_not_there_has_an_error_as_all_others() {
    let server = TestServer::start().await;
    for (method, path, allow) in [
        (Method::PATCH, server.group("liveMigrations"), "POST"),
        (Method::DELETE, "/api/atlas/v2/orgs".to_owned(), "GET"),
        (Method::PUT, server.own("clusters"), "GET"),
        (Method::GET, "/api/oauth/token".to_owned(), "POST"),
    ] {
        let answer = server.call(method.clone(), &path, None).await;
        assert_eq!(answer.error(), (405, "METHOD_NOT_ALLOWED".to_owned()), "{method} {path}");
        assert_eq!(answer.header("x-error-code"), "METHOD_NOT_ALLOWED");
        assert!(answer.header("allow").split(',').any(|one| one.trim() == allow), "{answer:?}");
        let body = answer.json();
        assert_eq!((&body["error"], &body["reason"]), (&json!(405), &json!("Method Not Allowed")), "{body}");
        assert!(body["detail"].as_str().is_some_and(|detail| detail.contains(method.as_str())), "{body}");
    }
}

#[tokio::test]
async fn keys_are_changed_in_place_and_malformed_ids_have_their_error() {
    let server = TestServer::start().await;
    let body = json!({"desc": "a", "roles": ["ORG_MEMBER"]});
    let made = server.call(Method::POST, &server.org("apiKeys"), Some(body)).await.json();
    let id = made["id"].as_str().expect("an id").to_owned();
    let (org, group) = (server.org(&format!("apiKeys/{id}")), server.group(&format!("apiKeys/{id}")));
    let patch = async |path: &str, body: Value| server.call(Method::PATCH, path, Some(body)).await;
    let changed = patch(&org, json!({"desc": "b"})).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    assert_eq!((&changed.json()["desc"], &changed.json()["roles"][0]["roleName"]), (&json!("b"), &json!("ORG_MEMBER")));
    // A key that has no role in the group isn't the group's to change.
    assert_eq!(patch(&group, json!({"desc": "c"})).await.error(), (404, "API_KEY_NOT_FOUND".to_owned()));
    server.call(Method::POST, &group, Some(json!([{"roles": ["GROUP_READ_ONLY"]}]))).await;
    let changed = patch(&group, json!({"desc": "c", "roles": ["GROUP_OWNER"]})).await.json();
    let roles: Vec<&str> =
        changed["roles"].as_array().expect("a list").iter().filter_map(|role| role["roleName"].as_str()).collect();
    assert_eq!((changed["desc"].as_str(), roles), (Some("c"), vec!["ORG_MEMBER", "GROUP_OWNER"]));
    // Roles in groups stay when those in the organization are replaced.
    let changed = patch(&org, json!({"roles": ["ORG_READ_ONLY"]})).await.json();
    let roles: Vec<&str> =
        changed["roles"].as_array().expect("a list").iter().filter_map(|role| role["roleName"].as_str()).collect();
    assert_eq!(roles, ["ORG_READ_ONLY", "GROUP_OWNER"]);
    assert_eq!(server.get(&org).await.json(), changed);
    assert_eq!(patch(&org, json!({"roles": []})).await.error(), (400, "VALIDATION_ERROR".to_owned()));
    // The last owner stays one.
    let all = server.get(&server.org("apiKeys")).await.json();
    let owner =
        all["results"].as_array().expect("a list").iter().find(|key| key["publicKey"] == server.keys.public_key);
    let owner = server.org(&format!("apiKeys/{}", owner.expect("is there")["id"].as_str().expect("an id")));
    assert_eq!(
        patch(&owner, json!({"roles": ["ORG_MEMBER"]})).await.error(),
        (409, "CANNOT_DELETE_LAST_OWNER".to_owned())
    );

    let wrong = server.org("apiKeys/ugurosox");
    for (method, path) in [
        (Method::GET, wrong.clone()),
        (Method::DELETE, wrong.clone()),
        (Method::GET, format!("{wrong}/accessList")),
        (Method::DELETE, server.group("apiKeys/x")),
    ] {
        let answer = server.call(method, &path, None).await;
        assert_eq!(answer.error(), (400, "PATH_PARAM_PARSE_ERROR".to_owned()), "{path}");
        assert_eq!(answer.json()["parameters"], json!([path]));
    }
    let unknown = server.org("apiKeys/0123456789abcdef01234567");
    assert_eq!(server.get(&unknown).await.error(), (404, "API_KEY_NOT_FOUND".to_owned()));
}

#[tokio::test]
async fn access_lists_and_groups_keys_are_shown_as_clients_read_them() {
    let server = TestServer::start().await;
    let body = json!({"desc": "a", "roles": ["GROUP_OWNER"]});
    let made = server.call(Method::POST, &server.group("apiKeys"), Some(body)).await.json();
    // Terraform finds the organization of a group's key by a role in it.
    let of_org = |roles: &Value| {
        let roles = roles.as_array().cloned().expect("a list");
        roles.iter().any(|role| role["orgId"] == server.keys.org_id.to_string() && role["roleName"] == "ORG_MEMBER")
    };
    assert!(of_org(&made["roles"]), "{made}");
    let list = server.org(&format!("apiKeys/{}/accessList", made["id"].as_str().expect("an id")));
    let body = json!([{"ipAddress": "10.0.0.1", "count": 3, "created": "0001-01-01T00:00:00Z", "links": []}, {"cidrBlock": "127.0.0.0/8"}]);
    let added = server.call(Method::POST, &list, Some(body)).await;
    assert_eq!(added.status, 200, "{added:?}");
    let (public, private) = (made["publicKey"].as_str().expect("a key"), made["privateKey"].as_str().expect("a key"));
    let signed = server.by(public, private, Method::GET, "/api/atlas/v2", None).await.json();
    assert!(of_org(&signed["apiKey"]["roles"]), "{signed}");
    let shown = server.get(&list).await.json();
    let [address, block] = [0, 1].map(|at| &shown["results"][at]);
    assert_eq!((&address["ipAddress"], &address["cidrBlock"]), (&json!("10.0.0.1"), &json!("10.0.0.1/32")), "{shown}");
    assert_eq!((&block["ipAddress"], &block["cidrBlock"]), (&Value::Null, &json!("127.0.0.0/8")), "{shown}");
    assert!(is_time(&address["created"]) && address["created"] != "0001-01-01T00:00:00Z", "{shown}");
    assert_eq!(
        (&address["count"], &block["count"], &block["lastUsedAddress"]),
        (&json!(0), &json!(1), &json!("127.0.0.1"))
    );
    assert!(is_time(&block["lastUsed"]) && address.get("lastUsed").is_none(), "{shown}");
    let link = format!("{}{list}/10.0.0.1", server.url);
    assert_eq!(address["links"], json!([{"href": link, "rel": "self"}]));
    // Its role in the organization is shown and opens nothing there.
    let refused = server.by(public, private, Method::GET, &server.org("apiKeys"), None).await;
    assert_eq!(refused.error(), (401, "USER_UNAUTHORIZED".to_owned()));
}

#[tokio::test]
async fn a_body_is_read_by_its_own_media_type() {
    let server = TestServer::start().await;
    let _agent = server.agent().await;
    let token = server.new_token().await;
    let (old, new) = ("application/vnd.atlas.2023-01-01+json", "application/vnd.atlas.2024-05-30+json");
    let send = async |accept: &str, media: &str, dropped: &str| {
        let mut body = server.request_body();
        body.as_object_mut().expect("an object").remove("dropDestinationData");
        body[dropped] = false.into();
        let path = format!("{}{}", server.url, server.group("liveMigrations/validate"));
        let request = server.http.post(path).header("accept", accept).header("content-type", media);
        Answer::of(request.bearer_auth(&token).body(body.to_string())).await
    };
    let both = format!("{old}, {new}");
    let answer = send(&both, old, "dropEnabled").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, &*format!("{new};charset=utf-8")), "{answer:?}");
    assert_eq!(send(&both, new, "dropEnabled").await.error(), (400, "INVALID_ATTRIBUTE".to_owned()));
    assert_eq!(send(&both, new, "dropDestinationData").await.status, 200);
    assert_eq!(send(&both, old, "dropDestinationData").await.error(), (400, "INVALID_ATTRIBUTE".to_owned()));
    assert_eq!(send(old, "application/json", "dropEnabled").await.status, 200);
    assert_eq!(send(new, "application/json", "dropDestinationData").await.status, 200);
}

/// What Terraform's data sources read.
#[tokio::test]
async fn a_groups_and_an_organizations_surroundings_are_answered() {
    let server = TestServer::start().await;
    for path in [server.group("teams"), server.group("users"), server.org("users")] {
        let answer = server.get(&path).await;
        assert_eq!(answer.status, 200, "{path} {answer:?}");
        assert_eq!((&answer.json()["results"], &answer.json()["totalCount"]), (&json!([]), &json!(0)), "{path}");
    }
    let limits = server.get(&server.group("limits")).await;
    assert_eq!((limits.status, limits.text.as_str()), (200, "[]"));
    let addresses = server.get(&server.group("ipAddresses")).await.json();
    assert_eq!(addresses, json!({"groupId": server.keys.group_id, "services": {"clusters": []}}));
    let settings = server.get(&server.group("settings")).await.json();
    for name in [
        "isCollectDatabaseSpecificsStatisticsEnabled",
        "isDataExplorerEnabled",
        "isExtendedStorageSizesEnabled",
        "isPerformanceAdvisorEnabled",
        "isRealtimePerformancePanelEnabled",
        "isSchemaAdvisorEnabled",
    ] {
        assert_eq!(settings[name], false, "{settings}");
    }
    let settings = server.get(&server.org("settings")).await.json();
    assert_eq!(settings["apiAccessListRequired"], false, "{settings}");
    assert_eq!(settings["multiFactorAuthRequired"], false, "{settings}");
    assert_eq!(settings["maxServiceAccountSecretValidityInHours"], 8760, "{settings}");
    let other = "0123456789abcdef01234567";
    for path in ["teams", "limits", "settings", "ipAddresses", "users"] {
        let answer = server.get(&format!("/api/atlas/v2/groups/{other}/{path}")).await;
        assert_eq!(answer.error(), (404, "GROUP_NOT_FOUND".to_owned()), "{path}");
    }
    for path in ["settings", "users"] {
        let answer = server.get(&format!("/api/atlas/v2/orgs/{other}/{path}")).await;
        assert_eq!(answer.error(), (404, "ORG_NOT_FOUND".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn a_service_accounts_secrets_are_rotated_and_tokens_end_with_theirs() {
    let server = TestServer::start().await;
    let wanted = json!({"name": "ci", "description": "x", "roles": ["ORG_OWNER"], "secretExpiresAfterHours": 8760});
    let made = server.call(Method::POST, &server.org("serviceAccounts"), Some(wanted)).await.json();
    let client = made["clientId"].as_str().expect("an id").to_owned();
    let path = server.org(&format!("serviceAccounts/{client}"));
    let (first, second) = (
        &made["secrets"][0],
        server.call(Method::POST, &format!("{path}/secrets"), Some(json!({"secretExpiresAfterHours": 8}))).await,
    );
    assert_eq!((second.status, second.header("cache-control")), (201, "no-store"), "{second:?}");
    let second = second.json();
    let grant = async |secret: &Value| {
        let secret = secret["secret"].as_str().expect("only once");
        let request = server.http.post(format!("{}/api/oauth/token", server.url)).basic_auth(&client, Some(secret));
        Answer::of(request.body("grant_type=client_credentials")).await
    };
    let token = |answer: Answer| answer.json()["access_token"].as_str().expect("a token").to_owned();
    let (old, new) = (token(grant(first).await), token(grant(&second).await));
    let ask = async |token: &str| {
        Answer::of(server.request(Method::GET, "/api/atlas/v2/orgs").bearer_auth(token)).await.status
    };
    assert_eq!((ask(&old).await, ask(&new).await), (200, 200));

    let shown = server.get(&path).await;
    assert_eq!(shown.status, 200, "{shown:?}");
    for secret in [first, &second] {
        assert!(!shown.text.contains(secret["secret"].as_str().expect("only once")), "{shown:?}");
    }
    let secrets = shown.json()["secrets"].as_array().cloned().expect("a list");
    assert_eq!(secrets.len(), 2, "{shown:?}");
    let tail = second["secret"].as_str().and_then(|secret| secret.get(secret.len() - 4..)).expect("is long");
    let known = secrets.iter().find(|one| one["id"] == second["id"]).expect("is there");
    assert_eq!(known["maskedSecretValue"], format!("mdb_sa_sk_...{tail}"), "{known}");
    assert!(is_time(&known["lastUsedAt"]) && is_time(&known["expiresAt"]), "{known}");
    // As with Atlas, the one before ends within a week of its successor.
    let before = secrets.iter().find(|one| one["id"] == first["id"]).expect("is there");
    assert!(before["expiresAt"].as_str() < first["expiresAt"].as_str(), "{before} {first}");

    let id = first["id"].as_str().expect("an id");
    assert_eq!(server.call(Method::DELETE, &format!("{path}/secrets/{id}"), None).await.status, 204);
    assert_eq!(server.call(Method::DELETE, &format!("{path}/secrets/{id}"), None).await.error().0, 404);
    assert_eq!((ask(&old).await, ask(&new).await), (401, 200), "a token outlives its secret");
    assert_eq!(grant(first).await.status, 401);
    let changed = server.call(Method::PATCH, &path, Some(json!({"name": "cd", "roles": ["ORG_MEMBER"]}))).await.json();
    assert_eq!(
        (&changed["name"], &changed["roles"], &changed["description"]),
        (&json!("cd"), &json!(["ORG_MEMBER"]), &json!("x"))
    );

    // What expires ends as what is deleted.
    server.store(&format!(
        "UPDATE service_account_secrets SET expires_at = 1 WHERE id = '{}'",
        second["id"].as_str().expect("an id")
    ));
    assert_eq!(ask(&new).await, 401, "a token outlives its secret's time");
    let wrong = grant(&second).await;
    assert_eq!((wrong.status, wrong.json()["error"].as_str()), (401, Some("invalid_client")));
    assert!(wrong.header("www-authenticate").starts_with("Basic realm="), "{wrong:?}");
    let unknown = server.org("serviceAccounts/mdb_sa_id_0123456789abcdef01234567");
    assert_eq!(server.get(&unknown).await.error(), (404, "RESOURCE_NOT_FOUND".to_owned()));
}

#[tokio::test]
async fn a_shell_loop_of_the_command_line_gets_its_tokens() {
    let server = TestServer::start().await;
    let grant = async |secret: &str| {
        let request = server.http.post(format!("{}/api/oauth/token", server.url));
        let request = request.basic_auth(&server.keys.client_id, Some(secret));
        Answer::of(request.body("grant_type=client_credentials")).await
    };
    // One more was asked for at the start of the test.
    for n in 1..60 {
        assert_eq!(grant(server.keys.client_secret.expose()).await.status, 200, "token {n}");
    }
}

#[tokio::test]
async fn a_destinations_version_and_set_are_told_once_an_agent_saw_them() {
    let server = TestServer::start().await;
    let mut agent = server.agent().await;
    let path = server.group("clusters/new");
    let before = server.get(&path).await.json();
    assert_eq!(before["mongoDBVersion"], Value::Null, "{before}");
    assert_eq!(before["connectionStrings"], json!({"standard": "mongodb://127.0.0.1:1"}), "{before}");
    let facts = json!({"mongoDbVersion": "8.0.4", "replicaSet": "rs0", "hosts": ["a:1", "b:2"]});
    let asked = server.call(Method::POST, &server.group("liveMigrations/validate"), Some(server.request_body())).await;
    agent.heartbeat(false).await;
    let id = asked.json()["_id"].as_str().expect("an id").to_owned();
    let report = json!({"findings": [], "destination": facts});
    assert_eq!(agent.post_own(&format!("validations/{id}/report"), &report).await.status, 200);
    let after = server.get(&path).await.json();
    assert_eq!(after["mongoDBVersion"], "8.0.4", "{after}");
    assert_eq!(after["connectionStrings"], json!({"standard": "mongodb://127.0.0.1:1/?replicaSet=rs0"}), "{after}");
    assert_eq!(server.get(&server.group("clusters")).await.json()["results"][0], after);

    // Another URI may be another cluster: nothing is known of it yet.
    let other = json!({"name": "new", "uri": "mongodb+srv://user:hidden@cluster.example.com/"});
    assert_eq!(server.call(Method::POST, &server.own("clusters"), Some(other)).await.status, 201);
    let after = server.get(&path).await.json();
    let srv = "mongodb+srv://cluster.example.com";
    assert_eq!((&after["mongoDBVersion"], &after["connectionStrings"]), (&Value::Null, &json!({"standardSrv": srv})));
    let back = json!({"name": "new", "uri": "mongodb://user:hidden@127.0.0.1:1/"});
    assert_eq!(server.call(Method::POST, &server.own("clusters"), Some(back)).await.status, 201);
    let migration = server.migration().await;
    agent.claim().await;
    let report = json!({"epoch": 1, "phase": "copying", "progress": {}, "failure": null, "destination": facts});
    let id = migration.rsplit('/').next().expect("an id");
    assert_eq!(agent.post_own(&format!("migrations/{id}/report"), &report).await.status, 200);
    assert_eq!(server.get(&path).await.json()["mongoDBVersion"], "8.0.4");

    let named = json!({"name": "named", "uri": "mongodb://u:p@h:1/?tls=true&replicaSet=rs1"});
    assert_eq!(server.call(Method::POST, &server.own("clusters"), Some(named)).await.status, 201);
    let named = server.get(&server.group("clusters/named")).await.json();
    assert_eq!(named["connectionStrings"]["standard"], "mongodb://h:1/?replicaSet=rs1", "{named}");
}
