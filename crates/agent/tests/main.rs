//! An agent as its control plane meets it.

mod hostile;
