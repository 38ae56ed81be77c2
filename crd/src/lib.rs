//! The API types of lvs-operator.io.
