//! Expressions such as `0 4 * * *`.
//!
//! The library `croner` reads them; what they mean is tabulated here once and for all. Beyond what it does:
//!
//! - Nothing is read that was hardly meant: names stand for months and weekdays only in their fields, and whole;
//!   a list has no empty member; there is no field for years; an expression that never matches is refused.
//! - Where day of month and day of week are both given, a day matches if either does, unless one of the two begins
//!   with `*` (as `*/2`): then both must. This is what crontab(5) says on Debian.

use croner::Cron as Parsed;
use croner::parser::{CronParser, Seconds, Year};

use super::days::Days;
use super::{Civil, DAY_S, Refusal};

/// The longest expression, in bytes.
pub const CRON_LEN_MAX: usize = 256;

const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
const FIELDS: [&str; 6] = ["second", "minute", "hour", "day of month", "month", "day of week"];
/// The place of each of them in a list of six.
const DAY_OF_MONTH: usize = 3;
const MONTH: usize = 4;
const DAY_OF_WEEK: usize = 5;

const REMEDY: &str = "write it like \"30 4 * * mon-fri\": minute, hour, day of month, month, day of week \
                      (and seconds before them, if you want), or like \"@daily\"";

/// An expression, and which points of the calendar match it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    /// As it was written.
    text: String,
    words: String,
    /// Bit 0 is second 0. None of the three sets is empty.
    seconds: u64,
    minutes: u64,
    hours: u64,
    days: Days,
    keeps_pace: bool,
}

impl Cron {
    /// Reads an expression.
    ///
    /// # Errors
    /// If it is none, or never matches.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        if text.len() > CRON_LEN_MAX || !text.is_ascii() {
            return Err(Refusal::new("is not a schedule", REMEDY));
        }
        let fields = fields(text)?;
        for (place, field) in fields.iter().enumerate() {
            check_field(place, field)?;
        }
        let [day, weekday] = [&fields[DAY_OF_MONTH], &fields[DAY_OF_WEEK]];
        let both = [day, weekday].iter().any(|field| field.starts_with(['*', '?']));
        let pattern = parse(&fields, both).map_err(|why| Refusal::new(why, REMEDY))?.pattern;
        let days = Days::tabulate(&pattern).map_err(|error| Refusal::new(error.to_string(), REMEDY))?;
        let [seconds, minutes, hours] =
            [&pattern.seconds, &pattern.minutes, &pattern.hours].map(|field| set(&field.values()));
        if !days.are_any() || [seconds, minutes, hours].contains(&0) {
            let remedy = "name a day that there is, like the last one of a month: \"0 0 L 2 *\"";
            return Err(Refusal::new("never comes", remedy));
        }
        let keeps_pace = fields.iter().take(DAY_OF_MONTH).any(|field| field.starts_with('*'));
        let words = pattern.describe();
        Ok(Self {
            text: text.to_owned(),
            words: as_fragment(&words),
            seconds,
            minutes,
            hours,
            days,
            keeps_pace,
        })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// In English.
    #[must_use]
    pub fn words(&self) -> &str {
        &self.words
    }

    /// True if its second, minute or hour begins with `*` (`*/5` does, `0-59` does not): then it goes by the time
    /// that really passes, and what the clock repeats or leaves out when it is put back or forward, it repeats and
    /// leaves out too. Else it names times of day, which come once a day even then.
    #[must_use]
    pub fn keeps_pace(&self) -> bool {
        self.keeps_pace
    }

    /// The first match that is not before `from` and is before `end`.
    #[must_use]
    pub fn first(&self, from: Civil, end: Civil) -> Option<Civil> {
        let (mut day, second) = from.split();
        let mut second = Some(second);
        while day.checked_mul(DAY_S)? < end.0 {
            let (month, place) = self.days.month_of(day)?;
            // Of the day that the search begins on, only what is left of it.
            let today = second.filter(|_| month.days & 1 << place != 0);
            if let Some(time) = today.and_then(|second| self.first_time(second)) {
                return Some(Civil(day * DAY_S + time)).filter(|found| *found < end);
            }
            let begun = u32::from(second.is_some());
            second = None;
            if let Some(place) = lowest(month.days.into(), place + begun) {
                let time = self.first_time(0)?;
                return Some(Civil((month.first_day + i64::from(place)) * DAY_S + time))
                    .filter(|found| *found < end);
            }
            day = month.first_day + month.len;
        }
        None
    }

    /// The last match that is not after `until` and not before `from`.
    #[must_use]
    pub fn last(&self, from: Civil, until: Civil) -> Option<Civil> {
        let (mut day, second) = until.split();
        let mut second = Some(second);
        while day.checked_add(1)?.checked_mul(DAY_S)? > from.0 {
            let (month, place) = self.days.month_of(day)?;
            let today = second.filter(|_| month.days & 1 << place != 0);
            if let Some(time) = today.and_then(|second| self.last_time(second)) {
                return Some(Civil(day * DAY_S + time)).filter(|found| *found >= from);
            }
            let earlier = if second.is_some() { place.checked_sub(1) } else { Some(place) };
            second = None;
            if let Some(place) = earlier.and_then(|place| highest(month.days.into(), place)) {
                let time = self.last_time(DAY_S - 1)?;
                return Some(Civil((month.first_day + i64::from(place)) * DAY_S + time))
                    .filter(|found| *found >= from);
            }
            day = month.first_day - 1;
        }
        None
    }

    /// The first matching second of a day that is not before `second`.
    fn first_time(&self, second: i64) -> Option<i64> {
        let (hour, minute, second) = clock(second)?;
        if lowest(self.hours, hour) == Some(hour) {
            let here = (lowest(self.minutes, minute) == Some(minute)).then(|| lowest(self.seconds, second));
            if let Some(second) = here.flatten() {
                return Some(time(hour, minute, second));
            }
            if let Some(minute) = lowest(self.minutes, minute + 1) {
                return Some(time(hour, minute, lowest(self.seconds, 0)?));
            }
        }
        let hour = lowest(self.hours, hour + 1)?;
        Some(time(hour, lowest(self.minutes, 0)?, lowest(self.seconds, 0)?))
    }

    /// The last matching second of a day that is not after `second`.
    fn last_time(&self, second: i64) -> Option<i64> {
        let (hour, minute, second) = clock(second)?;
        if lowest(self.hours, hour) == Some(hour) {
            let here = (lowest(self.minutes, minute) == Some(minute)).then(|| highest(self.seconds, second));
            if let Some(second) = here.flatten() {
                return Some(time(hour, minute, second));
            }
            if let Some(minute) = minute.checked_sub(1).and_then(|minute| highest(self.minutes, minute)) {
                return Some(time(hour, minute, highest(self.seconds, 59)?));
            }
        }
        let hour = highest(self.hours, hour.checked_sub(1)?)?;
        Some(time(hour, highest(self.minutes, 59)?, highest(self.seconds, 59)?))
    }
}

fn clock(second: i64) -> Option<(u32, u32, u32)> {
    let second = u32::try_from(second).ok()?;
    Some((second / 3600, second / 60 % 60, second % 60))
}

fn time(hour: u32, minute: u32, second: u32) -> i64 {
    i64::from(hour * 3600 + minute * 60 + second)
}

/// The lowest member of the set that is not below `from`.
fn lowest(set: u64, from: u32) -> Option<u32> {
    let left = u64::MAX.checked_shl(from).unwrap_or(0) & set;
    (left != 0).then(|| left.trailing_zeros())
}

/// The highest member of the set that is not above `upto`.
fn highest(set: u64, upto: u32) -> Option<u32> {
    let left = set & !u64::MAX.checked_shl(upto + 1).unwrap_or(0);
    left.checked_ilog2()
}

fn set(values: &[u16]) -> u64 {
    values.iter().fold(0, |set, value| set | 1_u64.checked_shl(u32::from(*value)).unwrap_or(0))
}

/// The six fields of an expression, in capitals.
fn fields(text: &str) -> Result<Vec<String>, Refusal> {
    let upper = text.trim().to_ascii_uppercase();
    let long = match upper.as_str() {
        "@YEARLY" | "@ANNUALLY" => "0 0 1 1 *",
        "@MONTHLY" => "0 0 1 * *",
        "@WEEKLY" => "0 0 * * SUN",
        "@DAILY" | "@MIDNIGHT" => "0 0 * * *",
        "@HOURLY" => "0 * * * *",
        nickname if nickname.starts_with('@') => {
            let remedy = "use @hourly, @daily, @weekly, @monthly or @yearly, or fields like \"0 4 * * *\"";
            return Err(Refusal::new("is not a time", remedy));
        }
        fields => fields,
    };
    let mut fields: Vec<String> = long.split_whitespace().map(str::to_owned).collect();
    match fields.len() {
        5 => fields.insert(0, "0".into()),
        6 => {}
        count => return Err(Refusal::new(format!("has {count} fields, not 5 or 6"), REMEDY)),
    }
    Ok(fields)
}

/// Refuses a field that the library would misread, or that is wrong by itself.
fn check_field(place: usize, field: &str) -> Result<(), Refusal> {
    let name = FIELDS.get(place).copied().unwrap_or_default();
    let refuse = |why: &str| Err(Refusal::new(format!("its {name} {field:?} {why}"), REMEDY));
    let known = |word: &str| match place {
        DAY_OF_MONTH => matches!(word, "L" | "W" | "LW"),
        MONTH => MONTHS.contains(&word),
        DAY_OF_WEEK => {
            let named = word.strip_suffix('L').filter(|name| !name.is_empty()).unwrap_or(word);
            WEEKDAYS.contains(&named)
        }
        _ => false,
    };
    // `15W`, `5L`: a number may go before a letter, and nothing may come behind one.
    let word_of = |part: &str| part.trim_start_matches(|c: char| c.is_ascii_digit()).to_owned();
    let suffixed = |part: &str, word: &str| match place {
        DAY_OF_MONTH => word == "W",
        DAY_OF_WEEK => word == "L" && part.len() > 1,
        _ => false,
    };
    for part in field.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty()) {
        let word = word_of(part);
        let right =
            if word.len() == part.len() { known(&word) } else { word.is_empty() || suffixed(part, &word) };
        if !right {
            return refuse(&format!("has {part:?}, which means nothing there"));
        }
    }
    if field.split(',').any(str::is_empty) {
        return refuse("has an empty place in its list");
    }
    let mut alone = vec!["*".to_owned(); FIELDS.len()];
    if let Some(slot) = alone.get_mut(place) {
        field.clone_into(slot);
    }
    parse(&alone, false).map(|_| ()).or_else(|why| refuse(&format!("is wrong: {why}")))
}

fn parse(fields: &[String], both_days: bool) -> Result<Parsed, String> {
    CronParser::builder()
        .seconds(Seconds::Required)
        .year(Year::Disallowed)
        .dom_and_dow(both_days)
        .build()
        .parse(&fields.join(" "))
        .map_err(|error| as_fragment(&error.to_string().replace("Component error: ", "")))
}

/// The library's sentences, to go within others.
fn as_fragment(sentence: &str) -> String {
    let sentence = sentence.trim_end_matches('.');
    let mut letters = sentence.chars();
    let first = letters.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Cron::parse(text).expect_err(text).message
    }

    #[test]
    fn what_was_hardly_meant_is_refused_and_the_field_is_named() {
        for (text, message) in [
            ("", "has 0 fields, not 5 or 6"),
            ("0 4 * *", "has 4 fields, not 5 or 6"),
            ("0 0 4 * * * 2027", "has 7 fields, not 5 or 6"),
            ("61 * * * *", "its minute \"61\" is wrong: number out of bounds"),
            ("0 24 * * *", "its hour \"24\" is wrong: number out of bounds"),
            ("0 4 0 * *", "its day of month \"0\" is wrong: number out of bounds"),
            ("0 4 * * 5-1", "its day of week \"5-1\" is wrong: range out of bounds"),
            ("0 4 * * mon-fir", "its day of week \"MON-FIR\" has \"FIR\", which means nothing there"),
            ("mon 4 * * *", "its minute \"MON\" has \"MON\", which means nothing there"),
            ("0 4 * jan1 *", "its month \"JAN1\" has \"JAN1\", which means nothing there"),
            ("0 4 * * 5W", "its day of week \"5W\" has \"5W\", which means nothing there"),
            ("0 4 1,,2 * *", "its day of month \"1,,2\" has an empty place in its list"),
            ("0 4 1, * *", "its day of month \"1,\" has an empty place in its list"),
            ("0 4 * * L", "its day of week \"L\" has \"L\", which means nothing there"),
            ("@reboot", "is not a time"),
            ("@every 5m", "is not a time"),
            ("0 4 * * \u{fc}", "is not a schedule"),
        ] {
            assert_eq!(refused(text), message, "{text}");
        }
        assert!(refused("*/0 * * * *").starts_with("its minute \"*/0\" is wrong: step cannot be zero"));
        assert!(refused("0/10 * * * *").contains("single number steps like \"0/10\" are not allowed"));
        assert_eq!(refused(&"* ".repeat(200)), "is not a schedule");
    }

    #[test]
    fn what_never_comes_is_refused() {
        for text in ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 30 2 +mon", "0 0 1 1 +6#2"] {
            assert_eq!(refused(text), "never comes", "{text}");
        }
        for text in
            ["0 0 29 2 *", "0 0 29 2 +mon", "0 0 * 2 mon#5", "0 0 31W 1 *", "0 0 30 2 mon", "0 0 L * *"]
        {
            assert!(Cron::parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn which_entries_keep_their_pace() {
        for (text, paced) in [
            ("0 4 * * *", false),
            ("0,30 1-3 * * *", false),
            ("0-59 0-23 * * *", false),
            ("30 0 4 * * *", false),
            ("@daily", false),
            ("@hourly", true),
            ("*/15 4 * * *", true),
            ("0 */2 * * *", true),
            ("* 0 4 * * *", true),
        ] {
            assert_eq!(Cron::parse(text).unwrap().keeps_pace(), paced, "{text}");
        }
    }

    #[test]
    fn it_is_told_in_words() {
        for (text, words) in [
            ("0 4 * * *", "at 04:00"),
            ("*/5 * * * *", "at every 5 minutes"),
            ("30 7 * * mon-fri", "at 07:30, on Monday, Tuesday, Wednesday, Thursday, and Friday"),
            ("0 0 L * *", "at 00:00, on the last day of the month"),
        ] {
            assert_eq!(Cron::parse(text).unwrap().words(), words, "{text}");
        }
    }
}
