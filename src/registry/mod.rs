//! What is configured: definitions of sources, their connections, and what cursors are bound to.
//!
//! | file | what |
//! |---|---|
//! | [`definitions`] | definition files of the settings, read and checked: all complaints at once |
//! | [`functions`] | functions in TypeScript, laid into the definitions of their sources; `no_functions` in a program without them |
//! | [`connections`] | connections with their credentials and metadata, from files and from the API |
//! | [`reload`] | functions whose files change while the program runs |
//! | [`scope`] | which streams a cursor belongs to |
//! | `source_state` | what sources read back of what was committed |

pub mod connections;
pub mod definitions;
#[cfg(feature = "functions")]
pub mod functions;
#[cfg(not(feature = "functions"))]
#[path = "no_functions.rs"]
pub mod functions;
#[cfg(feature = "functions")]
pub mod reload;
pub mod scope;
mod source_state;
