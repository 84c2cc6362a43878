//! What a place in a source file is: the function that it lies in, its text, whether it refuses something, whether it is a test's.
//!
//! Nothing here understands Rust; it relies on `cargo fmt` and on the habits of `redo/`, and its tests say on which.

use std::path::Path;

use anyhow::{Context as _, Result};

/// Where some code lies: from line and column (from 1) up to line and column.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Span {
    pub line: usize,
    pub column: usize,
    pub end_line: usize,
    pub end_column: usize,
}

/// Files that hold nothing but tests.
const TEST_FILES: [&str; 2] = ["testing.rs", "damage.rs"];
/// What an error return is made of.
const REFUSALS: [&str; 8] =
    ["Err(", "Fault::", "EffectError", "MaskError", "ImageError", "ChangeError", "cut_short", "return None"];

pub struct Source {
    lines: Vec<String>,
    /// The first line of the tests at the file's end, from 1.
    tests_at: usize,
}

impl Source {
    /// `None` for a file of tests.
    pub fn read(root: &Path, name: &str) -> Result<Option<Source>> {
        if name.ends_with("_test.rs") || TEST_FILES.contains(&name) {
            return Ok(None);
        }
        let text = std::fs::read_to_string(root.join(name)).with_context(|| name.to_owned())?;
        Ok(Some(Source::new(&text)))
    }

    pub fn new(text: &str) -> Source {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let tests_at = lines.iter().position(|line| line == "mod tests {").map_or(usize::MAX, |at| at + 1);
        Source { lines, tests_at }
    }

    /// Whether code at `line` is there in tests only.
    pub fn is_test(&self, line: usize) -> bool {
        let hook = line >= 2 && self.line(line - 1) == "#[cfg(test)]";
        hook || line >= self.tests_at
    }

    /// A line without its indentation.
    pub fn line(&self, number: usize) -> &str {
        self.lines.get(number - 1).map_or("", |line| line.trim())
    }

    /// The code of a span, as far as it lies in its first line.
    pub fn text(&self, span: Span) -> &str {
        let Some(line) = self.lines.get(span.line - 1) else { return "" };
        let end = if span.end_line == span.line { span.end_column - 1 } else { line.len() };
        line.get(span.column - 1..end).unwrap_or("").trim()
    }

    /// The name behind the last `fn` up to `line`.
    pub fn function(&self, line: usize) -> &str {
        let name = |line: &'_ String| -> Option<(usize, usize)> {
            let code = line.split("//").next().unwrap_or("");
            let at = code.find("fn ").filter(|&at| at == 0 || code.as_bytes()[at - 1] == b' ')? + 3;
            let length = code[at..].find(|c: char| !c.is_alphanumeric() && c != '_')?;
            (length > 0).then_some((at, at + length))
        };
        let found =
            self.lines[..line.min(self.lines.len())].iter().rev().find_map(|l| name(l).map(|at| (l, at)));
        found.map_or("", |(line, (from, to))| &line[from..to])
    }

    /// Whether the code of a span is an error return, or a part of one.
    pub fn refuses(&self, span: Span) -> bool {
        let text = self.text(span);
        let line = self.line(span.line);
        // A block that begins with an error return.
        let block = text == "{" && self.starts_refusal(&self.rest(span.end_line, span.end_column));
        text == "?" || block || REFUSALS.iter().any(|mark| line.contains(mark)) && self.ends_in_refusal(span)
    }

    /// Of a line such as `let Some(x) = y else { return Err(…) };` only what comes behind the mark refuses.
    fn ends_in_refusal(&self, span: Span) -> bool {
        let Some(line) = self.lines.get(span.line - 1) else { return false };
        // An arm that does nothing else, its pattern included.
        if ["=> Err(", "=> return Err("].iter().any(|arm| line.contains(arm)) {
            return true;
        }
        let first = REFUSALS.iter().filter_map(|mark| line.find(mark)).min();
        first.is_some_and(|at| span.end_line > span.line || span.end_column > at)
    }

    /// Whether an error return follows if the condition at `span` comes out as `outcome`.
    pub fn leads_to_refusal(&self, span: Span, outcome: bool) -> bool {
        let rest = self.rest(span.end_line, span.end_column);
        let first_line = rest.lines().next().unwrap_or("");
        let is_let_else = self.line(span.line).starts_with("let ") && !self.line(span.line).contains("= if ");
        // What the statement says if the condition holds, and if not.
        let end_of_let = rest.find(';').unwrap_or(rest.len());
        let (then, otherwise) = if is_let_else {
            (None, rest.find("else {").filter(|at| *at < end_of_let).map(|at| at + 6))
        } else {
            let then = rest.find('{').map(|at| at + 1);
            let block_end =
                if first_line.ends_with('{') { rest.find("\n}").map(|at| at + 1) } else { rest.find('}') };
            let after = block_end.filter(|at| rest[*at..].starts_with("} else {"));
            (then, after.map(|at| at + 8))
        };
        let chosen = if outcome { then } else { otherwise };
        chosen.is_some_and(|at| self.starts_refusal(&rest[at..]))
    }

    fn starts_refusal(&self, text: &str) -> bool {
        let text = text.trim_start();
        let text = text.strip_prefix("return ").unwrap_or(text);
        ["Err(", "None;", "None\n"].iter().any(|start| text.starts_with(start))
    }

    /// What follows a place, some lines of it.
    fn rest(&self, line: usize, column: usize) -> String {
        const LINES: usize = 8;
        let first = self.lines.get(line - 1).and_then(|line| line.get(column - 1..)).unwrap_or("");
        let next = self.lines.iter().skip(line).take(LINES).map(|line| format!("\n{}", line.trim()));
        std::iter::once(first.to_owned()).chain(next).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
/// Words.
pub fn first(page: &Page) -> Result<(), Fault> {
    if bad(page) || worse(page) {
        return Err(Fault::Unknown);
    }
    let Some(item) = item(page) else { return Err(Fault::Unknown) };
    let count = number()?;
    if count == 0 { Ok(()) } else { Err(Fault::Unknown) }
}

pub fn second() {
    #[cfg(test)]
    damage();
}

#[cfg(test)]
mod tests {
    fn third() {}
}
";

    fn span(line: usize, code: &str) -> Span {
        let column =
            TEXT.lines().nth(line - 1).and_then(|line| line.find(code)).expect("the code is there") + 1;
        Span { line, column, end_line: line, end_column: column + code.len() }
    }

    #[test]
    fn functions_and_tests_are_told() {
        let source = Source::new(TEXT);
        assert_eq!([3, 7, 12].map(|line| source.function(line)), ["first", "first", "second"]);
        assert_eq!([3, 13, 16, 17, 18].map(|line| source.is_test(line)), [false, true, false, true, true]);
    }

    #[test]
    fn refusals_are_told() {
        let source = Source::new(TEXT);
        assert!(source.refuses(span(4, "Err(Fault::Unknown)")) && source.refuses(span(7, "?")));
        assert!(!source.refuses(span(6, "item")) && source.refuses(span(6, "return Err(Fault::Unknown)")));
        assert!(source.leads_to_refusal(span(3, "bad(page)"), true));
        assert!(!source.leads_to_refusal(span(3, "worse(page)"), false));
        assert!(source.leads_to_refusal(span(6, "Some(item)"), false));
        assert!(source.leads_to_refusal(span(8, "count == 0"), false));
        assert!(!source.leads_to_refusal(span(8, "count == 0"), true));
    }
}
