//! One table of a declaration: its keys, and what is wrong with them.

use toml::de::DeTable;

use super::keys::nearest;
use super::report::{ManifestError, Report};
use super::values::{Reading, Value};

/// The largest declaration, in bytes.
pub const DECLARATION_LEN_MAX: usize = 64 * 1024;

/// Reads TOML, whose first line is line `first_line` of `file`, and hands its table to `read`.
///
/// Where the TOML itself is broken, all that is broken is reported and nothing else: what a parser
/// made of the rest is not what was meant.
pub(crate) fn read<T>(
    file: &str,
    text: &str,
    first_line: u32,
    read: impl FnOnce(&mut Section<'_, '_>) -> T,
) -> Result<T, Vec<ManifestError>> {
    let mut report = Report::new(file, text, first_line);
    let (table, broken) = DeTable::parse_recoverable(text);
    if broken.is_empty() {
        let value = read(&mut Section { table: table.get_ref(), report: &mut report });
        return report.conclude(value);
    }
    for error in broken {
        let at = error.span().map_or(0, |span| span.start);
        let remedy = "write keys like `timeout = \"10m\"`, each once".into();
        report.refuse(at, None, format!("not TOML: {}", error.message()), remedy);
    }
    Err(report.into_errors())
}

/// The text of a declaration, if it is text and not too long.
pub(crate) fn decode<'t>(file: &'t str, bytes: &'t [u8]) -> Result<&'t str, Vec<ManifestError>> {
    if bytes.len() > DECLARATION_LEN_MAX {
        let mut report = Report::new(file, "", 1);
        let message = format!("{} bytes are too many for a declaration", bytes.len());
        report.refuse(0, None, message, format!("use at most {DECLARATION_LEN_MAX}"));
        return Err(report.into_errors());
    }
    str::from_utf8(bytes).map_err(|error| {
        let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let text = str::from_utf8(valid).unwrap_or_default();
        let mut report = Report::new(file, text, 1);
        report.refuse(text.len(), None, "not UTF-8".into(), "save the file as UTF-8".into());
        report.into_errors()
    })
}

/// A table, read key by key.
pub(crate) struct Section<'s, 't> {
    table: &'s DeTable<'t>,
    report: &'s mut Report<'t>,
}

/// The keys that a section may have, and those it may not.
pub(crate) struct Vocabulary<'v> {
    /// What it may have.
    pub(crate) known: &'v [&'static str],
    /// What later versions will have here.
    pub(crate) reserved: &'v [&'static str],
    /// What belongs elsewhere, and where that is.
    pub(crate) elsewhere: &'v [(&'v [&'static str], &'static str)],
}

impl<'t> Section<'_, 't> {
    /// True if the section has this key.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Refuses a key that the section has.
    pub(crate) fn refuse(&mut self, key: &str, message: &str, remedy: &str) {
        if let Some((name, _)) = self.table.get_key_value(key) {
            self.report.refuse(name.span().start, Some(key), format!("{key}: {message}"), remedy.into());
        }
    }

    /// Reads the value of a key; `None` if it is missing or wrong (which is then reported).
    pub(crate) fn get<T>(&mut self, key: &str, read: impl FnOnce(&Value<'t>) -> Reading<T>) -> Option<T> {
        match read(self.table.get(key)?) {
            Ok(value) => Some(value),
            Err(wrongs) => {
                for wrong in wrongs {
                    let message = format!("{key}: {}", wrong.message);
                    self.report.refuse(wrong.at, Some(key), message, wrong.remedy);
                }
                None
            }
        }
    }

    /// Hands a table within this one to `read`.
    pub(crate) fn within<T>(
        &mut self,
        key: &str,
        example: &str,
        read: impl FnOnce(&mut Section<'_, 't>) -> T,
    ) -> Option<T> {
        let value = self.table.get(key)?;
        let Some(table) = value.get_ref().as_table() else {
            self.refuse(key, "expected a table", &format!("write it like {example}"));
            return None;
        };
        Some(read(&mut Section { table, report: self.report }))
    }

    /// Refuses every key that is not known here, each with the reason that fits it.
    pub(crate) fn check_keys(&mut self, vocabulary: &Vocabulary<'_>) {
        for name in self.table.keys() {
            // A file of nothing but unknown keys would cost a second of comparing them, for nothing kept.
            if self.report.is_full() {
                break;
            }
            let key = name.get_ref().as_ref();
            if let Some((message, remedy)) = vocabulary.judge(key) {
                self.report.refuse(name.span().start, Some(key), message, remedy);
            }
        }
    }
}

impl Vocabulary<'_> {
    /// What is wrong with this key here, and what to do; `None` if nothing is.
    fn judge(&self, key: &str) -> Option<(String, String)> {
        if self.known.contains(&key) {
            return None;
        }
        if self.reserved.contains(&key) {
            return Some((
                format!("{key:?} is not in this version"),
                "remove it: nothing here would act on it".into(),
            ));
        }
        if let Some((_, place)) = self.elsewhere.iter().find(|(keys, _)| keys.contains(&key)) {
            return Some((format!("{key:?} does not belong here"), format!("set it {place}")));
        }
        let all = || self.known.iter().chain(self.reserved).copied();
        let remedy = match nearest(key, all()) {
            Some(meant) if self.reserved.contains(&meant) => {
                format!("did you mean {meant:?}? it is not in this version")
            }
            Some(meant) => format!("did you mean {meant:?}?"),
            None => format!("the keys here are {}", self.known.join(", ")),
        };
        Some((format!("unknown key {}", super::report::quote(key)), remedy))
    }
}
