//! Kills, damage, full disks, failpoints and planted bugs: nothing that was acknowledged may be lost or doubled, and the tests
//! themselves have to notice bugs.

mod corruption;
mod crash;
mod crash_events;
mod crash_functions;
mod crash_program;
mod crash_steps;
mod crash_views;
mod faults;
mod plants;
