//! From a place in generated JavaScript to the place in the TypeScript it was made of.

use serde::{Deserialize, Serialize};

/// Places in ascending order of the generated side. Lines and columns are from 1.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LineMap {
    /// `[generated line, generated column, line, column]`.
    places: Vec<[u32; 4]>,
}

impl LineMap {
    /// Of places in any order.
    pub(super) fn new(mut places: Vec<[u32; 4]>) -> LineMap {
        places.sort_unstable();
        LineMap { places }
    }

    /// The line and column behind a place in the generated code: those of the nearest piece that begins at it or before it on
    /// the same line. Without one, the place itself: the file was taken as it is.
    pub fn original(&self, line: u32, column: u32) -> (u32, u32) {
        let after = self.places.partition_point(|&[l, c, _, _]| (l, c) <= (line, column));
        match after.checked_sub(1).map(|index| self.places[index]) {
            Some([l, _, source_line, source_column]) if l == line => (source_line, source_column),
            _ => match self.places.get(after) {
                Some(&[l, _, source_line, source_column]) if l == line => (source_line, source_column),
                _ => (line, column),
            },
        }
    }
}

/// Line and column of a byte of a text, both from 1; columns count UTF-16 units, as editors do.
pub(super) fn place(text: &str, offset: usize) -> (u32, u32) {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line = before.bytes().filter(|&byte| byte == b'\n').count() as u32 + 1;
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let column = before[start..].encode_utf16().count() as u32 + 1;
    (line, column)
}
