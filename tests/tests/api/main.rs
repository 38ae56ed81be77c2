//! The tests that start a Kubernetes API server. They are one program, so that they run beside each other: each waits for
//! most of its time.

mod agents;
mod allocation;
mod conditions;
mod control_plane;
mod crashes;
mod endpoints;
mod events;
mod examples;
mod leader;
mod outage;
mod rules;
