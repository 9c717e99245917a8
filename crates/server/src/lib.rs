//! limosa-server
