//! What the controller decides, for any order and history of changes.

mod allocation;
mod claims;
mod following;
mod history;
mod objects;
mod pools;
mod programming;
mod queue;
mod real_servers;
mod refusals;
mod remember;
mod server_order;
mod several;
mod shared_load;
mod silence;
mod sliced;
mod states;
mod tenants;
mod world;
