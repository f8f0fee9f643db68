//! Marks: small values the program stores with its batches.

use super::{Family, Result, Store, StoreBatch, keys};

impl Store {
    /// A mark.
    pub(crate) fn mark(&self, table: u8, parts: &[&str]) -> Result<Option<Vec<u8>>> {
        Ok(self.get(Family::Marks, keys::mark(table, parts))?.map(|value| value.to_vec()))
    }

    /// Marks below a prefix, in order of (length, text) part by part: (remaining parts, value).
    pub(crate) fn marks(&self, table: u8, prefix: &[&str]) -> Result<Vec<(Vec<String>, Vec<u8>)>> {
        let start = keys::mark(table, prefix);
        let mut found = Vec::new();
        self.scan_from(Family::Marks, &start).each(|key, value| {
            let is_below = key.starts_with(&start);
            if is_below {
                found.push((keys::parts(key, start.len()), value.to_vec()));
            }
            Ok(is_below)
        })?;
        Ok(found)
    }

    /// Marks below a prefix behind the one with these remaining parts, each handed to `each` until it returns false.
    pub(crate) fn marks_after(
        &self,
        table: u8,
        prefix: &[&str],
        after: &[&str],
        each: &mut dyn FnMut(Vec<String>, &[u8]) -> bool,
    ) -> Result<()> {
        let below = keys::mark(table, prefix);
        let start = keys::mark(table, &[prefix, after].concat());
        self.scan_from(Family::Marks, &start).each(|key, value| {
            let passed = key == start && !after.is_empty();
            Ok(key.starts_with(&below) && (passed || each(keys::parts(key, below.len()), value)))
        })
    }

    /// Puts or removes a mark in a batch.
    pub(crate) fn set_mark(&self, batch: &mut StoreBatch, table: u8, parts: &[String], value: Option<&[u8]>) {
        let key = keys::mark(table, parts);
        match value {
            Some(value) => self.put(batch, Family::Marks, key, value),
            None => self.delete(batch, Family::Marks, key),
        }
    }
}
