//! The words that the control plane, the agents and the command line share. No I/O happens here: every function takes
//! values and returns values, time included.

pub mod clock;
pub mod cutover;
pub mod digest;
pub mod error_code;
pub mod filter;
pub mod finding;
pub mod history;
pub mod identity;
pub mod ids;
pub mod limits;
pub mod plain;
pub mod progress;
pub mod protocol;
pub mod report;
pub mod secret;
pub mod state;
pub mod status;
pub mod transition;
pub mod uri;
pub mod verification;
pub mod version;
pub mod wire;

pub use clock::Timestamp;
pub use error_code::{ErrorCode, Failure};
pub use filter::{Namespace, NamespaceFilter};
pub use finding::{Finding, Severity};
pub use identity::{ClusterIdentity, Identities};
pub use ids::{AgentId, DeploymentId, Epoch, GroupId, MigrationId, OrgId, ValidationId};
pub use limits::Limits;
pub use progress::{NamespaceProgress, Progress};
pub use secret::Secret;
pub use state::{Migration, Phase, PhaseKind};
pub use status::Status;
pub use uri::{Uri, UriFault};
pub use version::ApiVersion;
