//! limosa-testkit
