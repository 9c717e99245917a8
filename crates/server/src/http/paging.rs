//! Lists: a page of them, with links to the others.

use crate::http::{
    context::Call,
    render::{ApiError, Reply},
};
use serde::Serialize;
use serde_json::json;

/// The part of a list that the query asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    number: usize,
    pub size: usize,
    count: bool,
}

impl Window {
    /// `pageNum` counts from 1, and 0 is taken for 1 as some clients send it.
    pub fn of(call: &Call) -> Result<Self, ApiError> {
        let number = call.number("pageNum", 1, 0, 1_000_000)?.max(1);
        let size = call.number("itemsPerPage", 100, 1, 500)?;
        Ok(Self { number, size, count: call.flag("includeCount", true)? })
    }

    /// How many come before it.
    pub fn first(&self) -> usize {
        (self.number - 1).saturating_mul(self.size)
    }

    /// The answer with this page's items, of `total`.
    pub fn reply<T: Serialize>(&self, call: &Call, items: &[T], total: usize) -> Reply {
        let address = |number: usize| call.address_with(number, self.size);
        let mut links = vec![json!({"href": address(self.number), "rel": "self"})];
        if self.first().saturating_add(self.size) < total {
            links.push(json!({"href": address(self.number + 1), "rel": "next"}));
        }
        if self.number > 1 {
            links.push(json!({"href": address(self.number - 1), "rel": "previous"}));
        }
        Reply::ok(json!({"links": links, "results": items, "totalCount": if self.count { total } else { 0 }}))
    }
}

/// The page that the query asks for, of a list that is short.
pub(crate) fn page<T: Serialize>(call: &Call, all: &[T]) -> Result<Reply, ApiError> {
    let window = Window::of(call)?;
    let first = window.first().min(all.len());
    let last = (first + window.size).min(all.len());
    Ok(window.reply(call, &all[first..last], all.len()))
}
