//! The words that the control plane, the agents and the command line share. No I/O happens here: every function takes
//! values and returns values, time included.

pub mod clock;
pub mod digest;
pub mod error_code;
pub mod filter;
pub mod ids;
pub mod progress;
pub mod protocol;
pub mod secret;
pub mod state;
pub mod status;
pub mod transition;
pub mod version;
pub mod wire;

pub use clock::Timestamp;
pub use error_code::{ErrorCode, Failure};
pub use filter::{Namespace, NamespaceFilter};
pub use ids::{AgentId, DeploymentId, Epoch, GroupId, MigrationId, OrgId, ValidationId};
pub use progress::Progress;
pub use secret::Secret;
pub use state::{Migration, Phase, PhaseKind};
pub use status::Status;
pub use version::ApiVersion;
