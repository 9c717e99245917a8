//! Lists: a page of them, with links to the others.

use crate::{
    call::Call,
    render::{ApiError, Reply},
};
use serde::Serialize;
use serde_json::{Value, json};

/// The page that the query asks for. `pageNum` counts from 1, and 0 is taken for 1 as some clients send it.
pub(crate) fn page<T: Serialize>(call: &Call, all: &[T]) -> Result<Reply, ApiError> {
    let number = call.number("pageNum", 1, 0, 1_000_000)?.max(1);
    let size = call.number("itemsPerPage", 100, 1, 500)?;
    let count = call.flag("includeCount", true)?;
    let first = (number - 1).saturating_mul(size).min(all.len());
    let last = (first + size).min(all.len());
    let address = |number: usize| format!("{}{}?pageNum={number}&itemsPerPage={size}", call.base, call.path);
    let mut links = vec![json!({"href": address(number), "rel": "self"})];
    if last < all.len() {
        links.push(json!({"href": address(number + 1), "rel": "next"}));
    }
    if number > 1 {
        links.push(json!({"href": address(number - 1), "rel": "previous"}));
    }
    let results: Vec<Value> =
        all[first..last].iter().map(|item| serde_json::to_value(item).unwrap_or(Value::Null)).collect();
    Ok(Reply::ok(json!({"links": links, "results": results, "totalCount": if count { all.len() } else { 0 }})))
}
