//! What the servers' versions allow.

use crate::mongo::{calls::Release, capabilities::Capabilities, cluster::Cluster, side::Side};
use limosa_model::{ErrorCode, Finding};

pub(super) fn versions(source: Capabilities, destination: Capabilities) -> Vec<Finding> {
    let show = |Capabilities { version: (major, minor, patch), .. }| format!("{major}.{minor}.{patch}");
    let mut findings = Vec::new();
    for (side, server) in [(Side::Source, source), (Side::Destination, destination)] {
        if server.is_too_old() {
            let evidence = format!("the {side} is MongoDB {}; the oldest supported is 4.4", show(server));
            findings.push(Finding::error(ErrorCode::UnsupportedVersion, side.to_string(), evidence));
        }
        if server.is_untested() {
            let evidence = format!("the {side} is MongoDB {}, which this program was not held against", show(server));
            findings.push(Finding::warning(ErrorCode::UnsupportedVersion, side.to_string(), evidence));
        }
    }
    if destination.is_older_than(source) {
        let evidence = format!("the destination ({}) is older than the source ({})", show(destination), show(source));
        findings.push(Finding::error(ErrorCode::UnsupportedVersion, "destination", evidence));
    }
    findings
}

/// The destination takes everything that the source's feature compatibility version allows; and one that is lower than
/// the server's version has consequences.
pub(super) fn compatibility(source: &Cluster, destination: &Cluster) -> Vec<Finding> {
    let show = |release: Release| format!("{}.{}", release.0, release.1);
    let mut findings = Vec::new();
    if destination.can().allow_less_than(source.can()) {
        let evidence = format!(
            "the destination's featureCompatibilityVersion is {}, the source's is {}: collections may not be creatable",
            show(destination.level),
            show(source.level)
        );
        findings.push(Finding::error(ErrorCode::UnsupportedVersion, "destination", evidence));
    }
    for cluster in [source, destination] {
        if cluster.can().is_upgrading() {
            let evidence = format!(
                "the {} is MongoDB {} with the featureCompatibilityVersion {}: it is treated as a server of {}; don't change it \
                 while the migration runs",
                cluster.side,
                show(cluster.can().release()),
                show(cluster.level),
                show(cluster.level)
            );
            findings.push(Finding::warning(ErrorCode::UnsupportedVersion, cluster.side.to_string(), evidence));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use limosa_model::Severity;

    fn codes(findings: &[Finding]) -> Vec<(ErrorCode, Severity)> {
        findings.iter().map(|f| (f.code, f.severity)).collect()
    }

    #[test]
    fn versions_are_refused_or_warned_about() {
        let refused = (ErrorCode::UnsupportedVersion, Severity::Error);
        let told = |source, destination| codes(&versions(Capabilities::of(source), Capabilities::of(destination)));
        assert_eq!(told((4, 4, 2), (6, 0, 5)), []);
        assert_eq!(told((4, 2, 9), (6, 0, 5)), [refused]);
        assert_eq!(told((6, 0, 5), (5, 0, 4)), [refused]);
        assert_eq!(told((8, 0, 1), (9, 0, 0)), [(ErrorCode::UnsupportedVersion, Severity::Warning)]);
    }
}
