//! Figures as they come: a line each on the screen, all of them in `bench.json`.

use crate::Fault;
use serde_json::{Value, json};
use std::path::Path;

/// All figures of one run.
pub struct Report {
    records: u64,
    workers: usize,
    figures: Vec<Value>,
}

impl Report {
    /// Prints the head of the table.
    pub fn new(records: u64, workers: usize) -> Self {
        println!("{records} records in {} connections, {workers} workers\n", crate::feed::CONNECTIONS);
        println!("{:<4} {:<60} {:>16}", "work", "figure", "value");
        Report { records, workers, figures: Vec::new() }
    }

    /// Adds a figure; shown with as many digits as it deserves.
    pub fn add(&mut self, work: &str, figure: &str, value: f64, unit: &str) {
        let digits = if value.fract() == 0.0 || value >= 1_000.0 {
            0
        } else if value >= 10.0 {
            1
        } else {
            3
        };
        println!("{work:<4} {figure:<60} {value:>16.digits$} {unit}");
        // Through text: serde_json keeps numbers as written here, and a figure is to be read, not to be exact.
        let number = format!("{value:.3}").parse::<serde_json::Number>().map_or(Value::Null, Value::Number);
        self.figures.push(json!({"work": work, "figure": figure, "value": number, "unit": unit}));
    }

    /// Writes the figures as JSON.
    pub fn write(&self, path: &Path) -> Result<(), Fault> {
        let all = json!({"records": self.records, "workers": self.workers, "figures": self.figures});
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(path, serde_json::to_vec_pretty(&all)?)?;
        Ok(())
    }
}
