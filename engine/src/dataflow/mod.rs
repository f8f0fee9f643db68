//! THINK: timely workers that merge, sweep, classify and maintain views. No IO, no clock.
