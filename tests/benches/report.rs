//! Tables, for the terminal and for `docs/benchmarks.md`.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

/// A figure with a target.
#[derive(Debug)]
struct Verdict {
    what: String,
    measured: String,
    target: String,
    /// `None` if this run does not decide it.
    met: Option<bool>,
}

/// One part of the benchmark.
#[derive(Debug)]
pub(crate) struct Section {
    title: String,
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    verdicts: Vec<Verdict>,
    notes: Vec<String>,
}

impl Section {
    /// A table with these columns and without rows.
    pub(crate) fn new(title: &str, columns: &[&'static str]) -> Self {
        Self {
            title: title.to_owned(),
            columns: columns.to_vec(),
            rows: Vec::new(),
            verdicts: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// A part that could not be measured.
    pub(crate) fn skipped(name: &str, lack: &str) -> Self {
        let mut section = Self::new(name, &[]);
        section.note(format!("Not measured: needs {lack}."));
        section
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.columns.len(), "a cell for each column of {}", self.title);
        self.rows.push(cells.into());
    }

    pub(crate) fn verdict(&mut self, what: &str, measured: String, target: &str, met: bool) {
        let (what, target) = (what.to_owned(), target.to_owned());
        self.verdicts.push(Verdict { what, measured, target, met: Some(met) });
    }

    /// Adds a figure whose condition did not hold in this run.
    pub(crate) fn undecided(&mut self, what: &str, measured: String, target: &str) {
        let (what, target) = (what.to_owned(), target.to_owned());
        self.verdicts.push(Verdict { what, measured, target, met: None });
    }

    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// The part for a terminal.
    pub(crate) fn plain(&self) -> String {
        let mut text = format!("\n== {}\n", self.title);
        text += &table(&self.columns, &self.rows, Style::Plain);
        for note in &self.notes {
            let _ = writeln!(text, "   {note}");
        }
        text
    }

    fn markdown(&self) -> String {
        let mut text = format!("\n## {}\n\n", self.title);
        text += &table(&self.columns, &self.rows, Style::Markdown);
        for note in &self.notes {
            let _ = write!(text, "\n{note}\n");
        }
        text
    }
}

/// The whole result of one program. It is a chapter of the file in `docs/`.
#[derive(Debug)]
pub(crate) struct Report {
    chapter: &'static str,
    machine: Vec<(&'static str, String)>,
    rounds: usize,
    sections: Vec<Section>,
}

impl Report {
    pub(crate) fn new(
        chapter: &'static str,
        machine: Vec<(&'static str, String)>,
        rounds: usize,
    ) -> Self {
        Self { chapter, machine, rounds, sections: Vec::new() }
    }

    pub(crate) fn add(&mut self, section: Section) {
        self.sections.push(section);
    }

    /// The machine and the versions, for a terminal.
    pub(crate) fn head(&self) -> String {
        let lines: Vec<_> =
            self.machine.iter().map(|(what, value)| format!("{what:<10} {value}")).collect();
        lines.join("\n")
    }

    fn verdict_table(&self, style: Style) -> String {
        let rows: Vec<_> = self
            .sections
            .iter()
            .flat_map(|section| &section.verdicts)
            .map(|verdict| {
                let met = verdict.met.map_or("undecided", |met| if met { "met" } else { "missed" });
                vec![
                    verdict.what.clone(),
                    verdict.measured.clone(),
                    verdict.target.clone(),
                    met.to_owned(),
                ]
            })
            .collect();
        table(&["what", "measured", "target", ""], &rows, style)
    }

    /// Targets and the figures measured, for a terminal.
    pub(crate) fn verdicts(&self) -> String {
        format!("\n== Targets\n{}", self.verdict_table(Style::Plain))
    }

    /// Writes the chapter into the file in `docs/`, in place of the earlier one.
    ///
    /// # Errors
    /// The file system's error.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let before = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read?,
        };
        fs::write(path, with_chapter(&before, self.chapter, &self.markdown()))
    }

    fn markdown(&self) -> String {
        let mut text = format!(
            "# {}\n\n\
             Written by `make bench`; `tests/benches/` says how each figure is taken. What is\n\
             compared was run alternately in the same run on the same machine. Absolute figures\n\
             are those of this machine; the ratios carry over.\n\n",
            self.chapter
        );
        let _ = writeln!(
            text,
            "Each figure is the median of {} rounds, followed by the smallest and the largest.\n",
            self.rounds
        );
        let machine: Vec<_> = self
            .machine
            .iter()
            .map(|(what, value)| vec![(*what).to_owned(), value.clone()])
            .collect();
        text += &table(&["machine", ""], &machine, Style::Markdown);
        text += "\n## Targets\n\n";
        text += &self.verdict_table(Style::Markdown);
        for section in &self.sections {
            text += &section.markdown();
        }
        text
    }
}

/// A file of chapters with one chapter replaced, or appended if it is new.
fn with_chapter(before: &str, title: &str, chapter: &str) -> String {
    let mut chapters: Vec<String> = Vec::new();
    for line in before.split_inclusive('\n') {
        if line.starts_with("# ") || chapters.is_empty() {
            chapters.push(String::new());
        }
        if let Some(last) = chapters.last_mut() {
            last.push_str(line);
        }
    }
    let heading = format!("# {title}\n");
    match chapters.iter_mut().find(|known| known.starts_with(&heading)) {
        Some(known) => chapter.clone_into(known),
        None => chapters.push(chapter.to_owned()),
    }
    let trimmed: Vec<&str> = chapters.iter().map(|chapter| chapter.trim_end()).collect();
    trimmed.join("\n\n") + "\n"
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Plain,
    Markdown,
}

fn table(columns: &[&str], rows: &[Vec<String>], style: Style) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([columns[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded: Vec<_> =
            cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        match style {
            Style::Plain => format!("   {}\n", padded.join("  ").trim_end()),
            Style::Markdown => format!("| {} |\n", padded.join(" | ")),
        }
    };
    if columns.is_empty() {
        return String::new();
    }
    let mut text = line(&columns.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
    if style == Style::Markdown {
        text += &line(&widths.iter().map(|&width| "-".repeat(width.max(3))).collect::<Vec<_>>());
    }
    rows.iter().for_each(|row| text += &line(row));
    text
}
