//! Several routers on a simulated link that loses, delays, reorders and repeats packets, with clocks that jump and machines that
//! pause.

use proptest::prelude::*;

use super::*;

mod properties;
mod restarts;
mod scenario;
mod simulation;

use scenario::{Op, Scenario};
use simulation::{Quality, Simulation};
