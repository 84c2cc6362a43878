//! What a verb returns: the same facts as a JSON document and as text for people.

use std::io::Write;
use std::process::ExitCode;

use serde_json::Value;

pub struct Output {
    pub json: Value,
    pub text: String,
    pub code: ExitCode,
}

impl Output {
    pub fn new(json: Value, text: impl Into<String>) -> Output {
        Output { json, text: text.into(), code: ExitCode::SUCCESS }
    }

    /// Prints one or the other on stdout.
    pub fn print(&self, json: bool) -> ExitCode {
        let document = if json { format!("{:#}", self.json) } else { self.text.clone() };
        if document.is_empty() {
            return self.code;
        }
        // A reader that went away (`| head`) is no error of ours.
        let _ = writeln!(std::io::stdout(), "{}", document.trim_end());
        self.code
    }
}

/// One line for people who watch: errors and progress.
pub fn to_stderr(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Rows under a heading, columns as wide as their widest cell.
pub fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|cell| cell.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(heading.to_vec())];
    lines.extend(rows.iter().map(|row| line(row.iter().map(String::as_str).collect())));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["longer".to_owned(), "2".to_owned()]];
        assert_eq!(super::table(&["name", "n"], &rows), "name    n\na       1\nlonger  2");
    }
}
