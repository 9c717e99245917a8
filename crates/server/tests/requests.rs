//! What comes in wrong, and lists, envelopes and paths that come in oddly.

use crate::support::{ACCEPT, Answer, TestServer};
use proptest::{prelude::*, test_runner::TestRunner};
use reqwest::Method;
use serde_json::{Value, json};

/// The body with the value at `pointer` replaced; without one, the attribute is taken out.
fn with(body: &Value, pointer: &str, value: Option<Value>) -> Value {
    let mut body = body.clone();
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let parent = body.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
    match value {
        Some(value) => parent.insert(name.to_owned(), value),
        None => parent.remove(name),
    };
    body
}

#[tokio::test]
async fn every_bad_body_has_its_error() {
    let server = TestServer::start().await;
    let _agent = server.agent().await;
    let good = server.request_body();
    let other = "0123456789abcdef01234567";
    let set = |pointer: &str, value: Value| with(&good, pointer, Some(value));
    let cases = [
        (with(&good, "/source", None), "MISSING_ATTRIBUTE", "source"),
        (with(&good, "/destination/groupId", None), "MISSING_ATTRIBUTE", "destination.groupId"),
        (with(&good, "/destination/hostnameSchemaType", None), "MISSING_ATTRIBUTE", "destination.hostnameSchemaType"),
        (with(&good, "/migrationHosts", None), "MISSING_ATTRIBUTE", "migrationHosts"),
        (set("/source/ssl", Value::Null), "MISSING_ATTRIBUTE", "source.ssl"),
        (set("/surprise", json!(1)), "INVALID_ATTRIBUTE", "surprise"),
        (set("/source/surprise", json!(1)), "INVALID_ATTRIBUTE", "source.surprise"),
        (set("/dropEnabled", json!(true)), "INVALID_ATTRIBUTE", "dropEnabled"),
        (set("/source", json!("x")), "INVALID_JSON_ATTRIBUTE", "source"),
        (set("/source/ssl", json!("true")), "INVALID_JSON_ATTRIBUTE", "source.ssl"),
        (set("/migrationHosts", json!([1])), "INVALID_JSON_ATTRIBUTE", "migrationHosts[0]"),
        (set("/source/groupId", json!("x")), "INVALID_JSON_ATTRIBUTE", "source.groupId"),
        (set("/destination/hostnameSchemaType", json!("NEAR")), "INVALID_ENUM_VALUE", "NEAR"),
        (
            set("/destination/hostnameSchemaType", json!("PRIVATE_LINK")),
            "INVALID_ATTRIBUTE",
            "destination.privateLinkId",
        ),
        (set("/destination/groupId", json!(other)), "GROUP_MISMATCH", other),
        (set("/destination/clusterName", json!("no")), "CLUSTER_NOT_FOUND", "no"),
        (set("/source/clusterName", json!("no")), "CLUSTER_NOT_FOUND", "no"),
        (set("/source/groupId", json!(other)), "CLUSTER_NOT_FOUND", "old"),
        (set("/migrationHosts", json!(["elsewhere"])), "INVALID_ATTRIBUTE", "migrationHosts"),
        (set("/source/username", json!("me")), "INVALID_ATTRIBUTE", "source.username"),
        (set("/source/managedAuthentication", json!(false)), "", ""),
        (
            set("/sharding", json!({"createSupportingIndexes": true, "shardingEntries": []})),
            "INVALID_ATTRIBUTE",
            "sharding",
        ),
    ];
    let path = server.group("liveMigrations/validate");
    for (body, code, parameter) in cases {
        let answer = server.call(Method::POST, &path, Some(body.clone())).await;
        if code.is_empty() {
            assert_eq!(answer.status, 200, "{body}: {answer:?}");
            continue;
        }
        assert_eq!(answer.json()["errorCode"], code, "{body}: {answer:?}");
        assert_eq!(answer.json()["parameters"][0], parameter, "{body}: {answer:?}");
        assert_eq!(answer.header("x-error-code"), code);
    }
    for (hosts, field) in
        [(json!(["a", "b"]), "migrationHosts"), (json!([]), "migrationHosts"), (json!([""]), "migrationHosts[0]")]
    {
        let answer = server.call(Method::POST, &path, Some(set("/migrationHosts", hosts))).await;
        assert_eq!(answer.error(), (400, "VALIDATION_ERROR".to_owned()));
        assert_eq!(answer.json()["badRequestDetail"]["fields"][0]["field"], field, "{answer:?}");
    }
    // What the command line sends for what isn't set.
    let mut unset = good.clone();
    unset["destination"]["hostnameSchemaType"] = "".into();
    for name in ["caCertificatePath", "username", "password"] {
        unset["source"][name] = "".into();
    }
    unset["_id"] = other.into();
    unset["sharding"] = Value::Null;
    assert_eq!(server.call(Method::POST, &path, Some(unset)).await.status, 200);
}

#[tokio::test]
async fn bytes_that_are_no_request_are_refused() {
    let server = TestServer::start().await;
    let token = server.new_token().await;
    let path = server.group("liveMigrations");
    let send = async |body: Vec<u8>, media: &str| {
        let request = server.request(Method::POST, &path).bearer_auth(&token).header("content-type", media);
        Answer::of(request.body(body)).await
    };
    let twice = br#"{"migrationHosts":["a"],"migrationHosts":["b"]}"#.to_vec();
    let deep = "[".repeat(50_000).into_bytes();
    for body in [b"{".to_vec(), b"".to_vec(), b"[]".to_vec(), b"\"x\"".to_vec(), vec![0xff, 0xfe], twice, deep] {
        assert_eq!(send(body, "application/json").await.error(), (400, "MALFORMED_JSON".to_owned()));
    }
    assert_eq!(send(b"{}".to_vec(), "text/plain").await.error().0, 415);
    let dated = send(b"{}".to_vec(), "application/vnd.atlas.2024-05-30+json").await;
    assert_eq!(dated.error(), (400, "MISSING_ATTRIBUTE".to_owned()));
    let large = server.request(Method::POST, &path).bearer_auth(&token).header("content-type", "application/json");
    match large.body(vec![b' '; 10 * 1024 * 1024]).send().await {
        Ok(answer) => assert_eq!(answer.status().as_u16(), 413),
        // It stopped reading, and the rest could not be sent.
        Err(error) => assert!(error.is_request() || error.is_body(), "{error:?}"),
    }
    let long = server.request(Method::GET, &path).header("authorization", format!("Digest {}", "x".repeat(100_000)));
    assert!([401, 431].contains(&Answer::of(long).await.status));
    for (name, value) in [("pretty", "yes"), ("envelope", "1")] {
        let answer = server.get(&server.group(&format!("liveMigrations/{}?{name}={value}", "0".repeat(24)))).await;
        assert_eq!(answer.error(), (400, "INVALID_QUERY_PARAMETER".to_owned()));
    }
}

#[tokio::test]
async fn versions_paths_and_methods_are_what_clients_expect() {
    let server = TestServer::start().await;
    let _agent = server.agent().await;
    let token = server.new_token().await;
    let old = |body: Value| {
        let request = server.http.post(format!("{}{}", server.url, server.group("liveMigrations/validate")));
        Answer::of(request.header("accept", "application/vnd.atlas.2023-06-01+json").bearer_auth(&token).json(&body))
    };
    let answer = old(server.request_body()).await;
    assert_eq!(answer.error(), (400, "INVALID_ATTRIBUTE".to_owned()));
    let mut body = server.request_body();
    body.as_object_mut().expect("an object").remove("dropDestinationData");
    assert_eq!(old(body.clone()).await.json()["parameters"][0], "dropEnabled");
    body["dropEnabled"] = true.into();
    let answer = old(body).await;
    assert_eq!((answer.status, answer.header("sunset")), (200, "Thu, 1 Jul 2027 00:00:00 GMT"));
    assert!(!answer.header("deprecation").is_empty());
    assert_eq!(answer.header("content-type"), "application/vnd.atlas.2023-01-01+json;charset=utf-8");
    let new = server.call(Method::POST, &server.group("liveMigrations/validate"), Some(server.request_body())).await;
    assert_eq!(new.header("content-type"), "application/vnd.atlas.2024-05-30+json;charset=utf-8");
    assert_eq!(new.header("sunset"), "");

    let doubled = server.get("/api/atlas/v2//orgs/?pretty=false").await;
    assert_eq!(doubled.status, 200, "{doubled:?}");
    let wrong = server.call(Method::PATCH, &server.group("liveMigrations"), None).await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, "POST"));
    assert_eq!(server.get("/api/atlas/v2/nothing").await.error(), (404, "RESOURCE_NOT_FOUND".to_owned()));
    let zipped =
        server.request(Method::GET, "/api/atlas/v2/orgs").bearer_auth(&token).header("accept-encoding", "gzip");
    assert_eq!(zipped.send().await.expect("answers").headers().get("content-encoding").expect("is zipped"), "gzip");
    for path in ["/api/private/v1.0/telemetry/events", "/api/private/unauth/telemetry/events"] {
        let answer = Answer::of(server.http.post(format!("{}{path}", server.url)).json(&json!([{}]))).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, "{}"));
    }
    assert_eq!(
        server
            .http
            .get(format!("{}/api/openapi.json", server.url))
            .header("accept", ACCEPT)
            .send()
            .await
            .expect("answers")
            .status(),
        200
    );
}

#[tokio::test]
async fn lists_come_in_pages() {
    let server = TestServer::start().await;
    let own = server.own("clusters");
    for n in 0..5 {
        let body = json!({"name": format!("c{n}"), "uri": format!("mongodb://u:hidden@h{n}:1/?appName=x")});
        assert_eq!(server.call(Method::POST, &own, Some(body)).await.status, 201);
    }
    let names = |answer: &Answer| -> Vec<String> {
        let all = answer.json()["results"].as_array().cloned().expect("a list");
        all.iter().map(|c| c["name"].as_str().expect("a name").to_owned()).collect()
    };
    let page = server.get(&format!("{own}?itemsPerPage=2&pageNum=2")).await;
    assert_eq!((names(&page), page.json()["totalCount"].clone()), (vec!["c2".to_owned(), "c3".to_owned()], json!(5)));
    let links = page.json()["links"].clone();
    let rels: Vec<&str> = links.as_array().expect("a list").iter().filter_map(|l| l["rel"].as_str()).collect();
    assert_eq!(rels, ["self", "next", "previous"]);
    assert_eq!(links[1]["href"], format!("{}{own}?pageNum=3&itemsPerPage=2", server.url));
    let first = server.get(&format!("{own}?pageNum=0&includeCount=false&envelope=true")).await.json();
    assert_eq!((first["totalCount"].clone(), first["status"].clone()), (json!(0), json!(200)));
    for query in ["itemsPerPage=0", "itemsPerPage=501", "pageNum=-1", "pageNum=x", "includeCount=2"] {
        assert_eq!(server.get(&format!("{own}?{query}")).await.error().1, "INVALID_QUERY_PARAMETER", "{query}");
    }
    let cluster = server.get(&server.group("clusters/c1")).await.json();
    assert_eq!(cluster["connectionStrings"]["standard"], "mongodb://h1:1");
    assert!(!cluster.to_string().contains("hidden"));
    assert_eq!(server.call(Method::DELETE, &format!("{own}/c1"), None).await.status, 204);
    assert_eq!(server.call(Method::DELETE, &format!("{own}/c1"), None).await.error().1, "CLUSTER_NOT_FOUND");
}

/// JSON of any shape, and of shapes near to that of a request.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
        Just(json!("PUBLIC")),
        Just(json!("0123456789abcdef01234567")),
    ];
    let names = prop_oneof![
        Just("source"),
        Just("destination"),
        Just("migrationHosts"),
        Just("groupId"),
        Just("clusterName"),
        Just("ssl"),
        Just("managedAuthentication"),
        Just("hostnameSchemaType"),
        Just("name"),
        Just("uri"),
        Just("roles"),
        Just("desc"),
        Just("seconds"),
        Just("dropCopied"),
        Just("accessListIps"),
        Just("orgId"),
        Just("ipAddress"),
        Just("_id"),
    ];
    let names = prop_oneof![9 => names.prop_map(str::to_owned), 1 => ".*"];
    leaf.prop_recursive(4, 40, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((names.clone(), inner), 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn no_input_makes_a_handler_panic() {
    let server = TestServer::start().await;
    let _agent = server.agent().await;
    let id = "0123456789abcdef01234567";
    let paths = [
        (Method::POST, server.group("liveMigrations")),
        (Method::POST, server.group("liveMigrations/validate")),
        (Method::PUT, server.group(&format!("liveMigrations/{id}/cutover"))),
        (Method::POST, server.org("liveMigrations/linkTokens")),
        (Method::POST, server.org("apiKeys")),
        (Method::POST, server.org(&format!("apiKeys/{id}/accessList"))),
        (Method::POST, "/api/atlas/v2/groups".to_owned()),
        (Method::POST, server.own("clusters")),
        (Method::POST, server.own(&format!("liveMigrations/{id}/extend"))),
        (Method::POST, "/api/limosa/v1/agents".to_owned()),
    ];
    let runtime = tokio::runtime::Handle::current();
    let (server, paths) = (&server, &paths);
    tokio::task::block_in_place(|| {
        let mut runner =
            TestRunner::new(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() });
        let input = (0..paths.len(), anything(), "[a-zA-Z0-9%/.=&?-]{0,30}");
        let outcome = runner.run(&input, |(index, body, tail)| {
            let (method, path) = &paths[index];
            let query = format!("{path}?{}", tail.replace(['/', '?'], ""));
            let answer = runtime.block_on(server.call(method.clone(), &query, Some(body.clone())));
            prop_assert!(answer.status < 500, "{answer:?} to {body}");
            let odd = runtime.block_on(server.get(&format!("{path}/{}", tail.replace('%', "%25"))));
            prop_assert!(odd.status < 500, "{odd:?}");
            Ok(())
        });
        outcome.unwrap_or_else(|e| panic!("{e}"));
    });
}
