//! The engine as a library, without the program.

mod engine;
mod feed;
mod journal;
mod program;
mod run;
mod views;
