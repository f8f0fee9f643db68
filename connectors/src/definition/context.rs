//! What the parts of a file need to know of the file around them.

use super::read::KnownNames;
use super::request::Level;
use crate::config_text::Reference;

/// What a stream needs to know of the file around it.
pub(super) struct StreamContext<'a> {
    pub(super) level: &'a Level,
    pub(super) names: &'a KnownNames,
    pub(super) conditional: bool,
    pub(super) lookup: &'a dyn Fn(&Reference) -> Result<String, String>,
}
