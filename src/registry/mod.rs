//! What is configured: definitions of sources, their connections, and what cursors are bound to.
//!
//! | file | what |
//! |---|---|
//! | [`definitions`] | definition files of the settings, read and checked: all complaints at once |
//! | [`functions`] | functions in TypeScript, laid into the definitions of their sources; `no_functions` in a program without them |
//! | [`connections`] | connections with their credentials and metadata, from files and from the API |
//! | [`integrations`] | what the app is known by at each provider; those that stand in no file |
//! | [`end_user`] | whose connection it is |
//! | [`reload`] | functions whose files change while the program runs |
//! | [`sources`] | what makes requests for each definition |
//! | [`scope`] | which streams a cursor belongs to |
//! | `source_state` | what sources read back of what was committed |

pub mod connections;
pub mod definitions;
pub mod end_user;
#[cfg(feature = "functions")]
pub mod functions;
#[cfg(not(feature = "functions"))]
#[path = "no_functions.rs"]
pub mod functions;
pub mod integrations;
#[cfg(feature = "functions")]
pub mod reload;
pub mod scope;
mod source_state;
pub mod sources;
