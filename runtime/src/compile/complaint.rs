//! What is wrong with a file, and where.

use std::fmt;

/// One thing that is wrong with a function, at one place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Complaint {
    /// Path within the folder of functions.
    pub file: String,
    /// From 1; 0 where the whole file is meant.
    pub line: u32,
    /// From 1; 0 where the whole line is meant.
    pub column: u32,
    /// One of a fixed list: `syntax`, `unknown_package`, …
    pub code: &'static str,
    /// What is wrong and what to do, in a sentence.
    pub message: String,
}

impl Complaint {
    /// About a whole file.
    pub fn of_file(file: &str, code: &'static str, message: impl Into<String>) -> Complaint {
        Complaint { file: file.to_owned(), line: 0, column: 0, code, message: message.into() }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if self.column > 0 {
            write!(f, ":{}", self.column)?;
        }
        write!(f, " {} {}", self.code, self.message)
    }
}
