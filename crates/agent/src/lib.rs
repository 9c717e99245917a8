//! limosa-agent
