//! From where a key works: addresses and CIDR blocks. An empty list is everywhere.

use limosa_model::wire::account::AccessListEntry;
use std::net::IpAddr;

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
pub(crate) fn admits(list: &[String], address: IpAddr) -> bool {
    list.is_empty() || list.iter().any(|entry| parse(entry).is_some_and(|(base, bits)| covers(base, bits, address)))
}

fn covers(base: IpAddr, bits: u8, address: IpAddr) -> bool {
    let number = |address: IpAddr| match address.to_canonical() {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, true),
        IpAddr::V6(v6) => (u128::from(v6), false),
    };
    let ((base, base_v4), (address, address_v4)) = (number(base), number(address));
    base_v4 == address_v4 && (bits == 0 || (base ^ address) >> (128 - u32::from(bits)) == 0)
}

/// As clients read it.
pub(crate) fn shown(entry: &str) -> AccessListEntry {
    if entry.contains('/') {
        AccessListEntry { cidr_block: Some(entry.to_owned()), ip_address: None }
    } else {
        AccessListEntry { cidr_block: None, ip_address: Some(entry.to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_covers_its_addresses_only() {
        let from = |list: &[&str], address: &str| {
            let list: Vec<String> = list.iter().map(|e| (*e).to_owned()).collect();
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
