//! Tests that share neither the process nor the machine's time with others: one recorder of metrics for a process, and attacks
//! beside which another tenant's answers are timed.

mod attacks;
mod metrics;
