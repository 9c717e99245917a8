//! From where a key works: addresses and CIDR blocks. An empty list is everywhere.

use crate::store::Allowed;
use limosa_model::{Timestamp, wire::account::AccessListEntry, wire::live_migration::Link};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

/// Entries whose uses are counted, at most.
const COUNTED: usize = 10_000;

/// Reads an address or a block, as `address/bits`.
fn parse(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Some(most), |bits| bits.parse().ok().filter(|bits| *bits <= most))?;
    Some((address, bits))
}

/// Whether `text` is an address or a block.
pub(crate) fn is_valid(text: &str) -> bool {
    parse(text).is_some()
}

/// Whether a key with this list works from `address`.
pub(crate) fn admits(list: &[Allowed], address: IpAddr) -> bool {
    list.is_empty() || admitting(list, address).is_some()
}

/// The entry that lets `address` in.
fn admitting(list: &[Allowed], address: IpAddr) -> Option<&str> {
    let covered = |entry: &str| parse(entry).is_some_and(|(base, bits)| covers(base, bits, address));
    list.iter().map(|allowed| allowed.entry.as_str()).find(|entry| covered(entry))
}

/// How often an entry let someone in, when last, and from where then.
type Use = (i64, Timestamp, IpAddr);

/// What entries let in since the server's start, by key and entry.
#[derive(Default)]
pub(crate) struct Uses(Mutex<HashMap<(String, String), Use>>);

impl Uses {
    /// Counts a request of the key `name` from `address`.
    pub fn count(&self, name: &str, list: &[Allowed], address: IpAddr, now: Timestamp) {
        let Some(entry) = admitting(list, address) else { return };
        let mut uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (name.to_owned(), entry.to_owned());
        if uses.len() < COUNTED || uses.contains_key(&place) {
            let known = uses.entry(place).or_insert((0, now, address));
            *known = (known.0 + 1, now, address);
        }
    }

    fn of(&self, name: &str, entry: &str) -> Option<(i64, Timestamp, IpAddr)> {
        let uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        uses.get(&(name.to_owned(), entry.to_owned())).copied()
    }
}

fn covers(base: IpAddr, bits: u8, address: IpAddr) -> bool {
    let number = |address: IpAddr| match address.to_canonical() {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, true),
        IpAddr::V6(v6) => (u128::from(v6), false),
    };
    let ((base, base_v4), (address, address_v4)) = (number(base), number(address));
    base_v4 == address_v4 && (bits == 0 || (base ^ address) >> (128 - u32::from(bits)) == 0)
}

/// An entry of the key `name` as clients read it.
pub(crate) fn shown(uses: &Uses, name: &str, allowed: &Allowed, links: Vec<Link>) -> AccessListEntry {
    let entry = allowed.entry.as_str();
    let (is_block, most) = (entry.contains('/'), if entry.contains(':') { 128 } else { 32 });
    let used = uses.of(name, entry);
    AccessListEntry {
        cidr_block: if is_block { entry.to_owned() } else { format!("{entry}/{most}") },
        count: used.map_or(0, |(count, ..)| count),
        created: allowed.created_at.map(Timestamp::rfc3339),
        ip_address: (!is_block).then(|| entry.to_owned()),
        last_used: used.map(|(_, at, _)| at.rfc3339()),
        last_used_address: used.map(|(.., address)| address.to_string()),
        links,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_covers_its_addresses_only() {
        let from = |list: &[&str], address: &str| {
            let allowed = |entry: &&str| Allowed { entry: (*entry).to_owned(), created_at: None };
            let list: Vec<Allowed> = list.iter().map(allowed).collect();
            admits(&list, address.parse().expect("an address"))
        };
        assert!(from(&[], "10.0.0.1"));
        assert!(from(&["10.0.0.1"], "10.0.0.1") && !from(&["10.0.0.1"], "10.0.0.2"));
        assert!(from(&["10.0.0.0/8"], "10.200.0.2") && !from(&["10.0.0.0/8"], "11.0.0.1"));
        assert!(from(&["0.0.0.0/0"], "1.2.3.4") && !from(&["0.0.0.0/0"], "::1"));
        assert!(from(&["2001:db8::/32"], "2001:db8:1::2") && !from(&["2001:db8::/32"], "2001:db9::1"));
        assert!(from(&["127.0.0.1"], "::ffff:127.0.0.1"));
        assert!(is_valid("::/0") && !is_valid("10.0.0.1/33") && !is_valid("10.0.0") && !is_valid(""));
    }
}
