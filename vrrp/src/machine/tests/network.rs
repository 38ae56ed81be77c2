//! Several routers on a simulated link that loses, delays, reorders and repeats packets, with clocks that jump and machines that
//! pause.

use proptest::prelude::*;

use super::*;

mod link;
mod properties;
mod scenario;

use link::{Link as Network, Quality};
use scenario::{Op, Scenario};
