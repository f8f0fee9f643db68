//! What is configured: definitions of sources, their connections, and what cursors are bound to.
//!
//! | file | what |
//! |---|---|
//! | [`definitions`] | definition files of the settings, read and checked: all complaints at once |
//! | [`connections`] | connections with their credentials and metadata, from files and from the API |
//! | [`scope`] | which streams a cursor belongs to |
//! | `source_state` | what sources read back of what was committed |

pub mod connections;
pub mod definitions;
pub mod scope;
mod source_state;
