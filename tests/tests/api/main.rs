//! The tests that start a Kubernetes API server. They are one program, so that they run in parallel: each of them mostly
//! waits. They start in the order of their names, and the longest should be among the first.

mod absence;
mod agents;
mod allocation;
mod bindings;
mod conditions;
mod control_plane;
mod crashes;
mod dead_watch;
mod editor;
mod endpoints;
mod events;
mod every_write;
mod examples;
mod gate;
mod hints;
mod incumbents;
mod leader;
mod rules;
mod second_chance;
mod shop;
mod silence;
mod tenants;
mod truth;
mod unconcerned;
mod upgrade;
