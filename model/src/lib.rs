//! Decides what every machine must have.
