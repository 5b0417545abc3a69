//! Whether everything that was acknowledged ended once, and whether nothing was paid for twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use nightcrew::protocol::layout::{BoundName, Shelf};
use nightcrew::protocol::ledger::Fact;
use nightcrew::protocol::name::TaskId;
use nightcrew::protocol::task::TaskRecord;

use crate::crew::{Crew, name, text_of};
use crate::faults::kills::judge::{belongs, files_below, judge_tokens, read_facts};

use super::cast::{CHILD, DEEDS, Fate, Planned};

const SHELVES: [(Shelf, Fate); 3] =
    [(Shelf::Done, Fate::Done), (Shelf::Dead, Fate::Dead), (Shelf::Review, Fate::Review)];

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Figures {
    ended: usize,
    children: usize,
    tried_again: usize,
    /// Steps that began and did not come to their end, and those that were run once more.
    cut_off: usize,
    begun_again: usize,
    asked_yes: usize,
    asked_no: usize,
}

impl Figures {
    /// A storm that met nobody in the midst of his work shows nothing.
    #[track_caller]
    pub(super) fn show_that_it_was_a_storm(&self) {
        let met = [self.tried_again, self.cut_off, self.begun_again, self.asked_yes + self.asked_no];
        assert!(met.iter().all(|count| *count > 0), "{self:?}");
    }
}

/// All that is wrong with the crew at rest.
pub(super) fn judge(
    crew: &Crew,
    acknowledged: &BTreeMap<String, Planned>,
    unsure: &BTreeMap<String, Planned>,
) -> (Figures, Vec<String>) {
    let (mut figures, mut wrong) = (Figures::default(), Vec::new());
    let facts = read_facts(crew, &mut wrong);
    judge_tokens(&facts, &mut wrong);
    let told = Told::by(&facts);
    let families = Families::of(crew);
    let works = works(crew, &mut wrong);
    for task in acknowledged.values() {
        judge_task(crew, &told, task, &mut wrong);
    }
    for task in unsure.values().filter(|task| told.admitted.contains_key(&name(&task.id)) || lies(crew, task))
    {
        judge_task(crew, &told, task, &mut wrong);
    }
    for task in acknowledged.values().chain(unsure.values()) {
        judge_family(&families, crew, task, &mut wrong);
        judge_work(crew, works.get(&task.id), task, &mut wrong);
    }
    if told.children != families.children {
        wrong.push(format!("{} children were admitted, {} are there", told.children, families.children));
    }
    figures.ended = acknowledged.len();
    figures.children = families.children;
    for (task, work) in &works {
        figures.add(work);
        // Nobody does a task again without a reason that the ledger gives.
        let again = told.times(&name(task), "again");
        if work.tries > 1 + again {
            wrong.push(format!("{task} was tried {} times, and taken back {again} times", work.tries));
        }
    }
    wrong.extend(crew.processes().into_iter().map(|(pid, command)| format!("left running: {pid} {command}")));
    for path in files_below(&crew.layout.state()) {
        let below = path.strip_prefix(crew.layout.state()).expect("below").to_string_lossy().into_owned();
        if !(belongs(&below, |_| false) || ended_here(crew, &below)) {
            wrong.push(format!("left behind: state/{below}"));
        }
    }
    (figures, wrong)
}

impl Figures {
    fn add(&mut self, work: &Work) {
        self.tried_again += work.tries.saturating_sub(1);
        self.cut_off += work.begun.len() - work.ended.len();
        self.begun_again += work.begun.len().saturating_sub(1);
        self.asked_yes += work.asked_yes;
        self.asked_no += work.asked_no;
    }
}

/// True for what is kept of tasks that failed, that are to be reviewed, with what they submitted, and that had steps.
fn ended_here(crew: &Crew, below: &str) -> bool {
    let parts: Vec<&str> = below.split('/').collect();
    match parts[..] {
        ["tasks", "dead" | "review", _] => true,
        ["tasks", "bound", _, file] => {
            BoundName::parse(file).is_some_and(|name| crew.layout.ended(Shelf::Review, &name.task).exists())
        }
        // A lock that nobody holds is left where its holder was killed, and goes with the step.
        ["steps", "tasks", _, file] => {
            file.split_once('.').is_some_and(|(_, ending)| ["step", "lock"].contains(&ending))
        }
        _ => false,
    }
}

/// What the ledger tells of tasks.
#[derive(Default)]
struct Told {
    admitted: BTreeMap<TaskId, usize>,
    /// How often each outcome was accepted.
    outcomes: BTreeMap<(TaskId, &'static str), usize>,
    children: usize,
}

impl Told {
    fn by(facts: &[Fact]) -> Self {
        let mut told = Self::default();
        for fact in facts {
            match fact {
                Fact::Submitted { task, kind, .. } => {
                    *told.admitted.entry(task.clone()).or_default() += 1;
                    told.children += usize::from(kind.as_str() == CHILD);
                }
                Fact::Outcome { task, status, next, .. } => {
                    let which = if status == "done" {
                        "done"
                    } else if next == "dead" {
                        "dead"
                    } else {
                        "again"
                    };
                    *told.outcomes.entry((task.clone(), which)).or_default() += 1;
                }
                Fact::Vacated { task, .. } => {
                    *told.outcomes.entry((task.clone(), "again")).or_default() += 1;
                }
                _ => {}
            }
        }
        told
    }

    fn times(&self, task: &TaskId, outcome: &'static str) -> usize {
        self.outcomes.get(&(task.clone(), outcome)).copied().unwrap_or_default()
    }
}

/// On which shelves a task lies.
fn shelves(crew: &Crew, task: &Planned) -> Vec<Fate> {
    let is_on = |shelf: &Shelf| crew.layout.ended(*shelf, &name(&task.id)).exists();
    SHELVES.iter().filter(|(shelf, _)| is_on(shelf)).map(|(_, fate)| *fate).collect()
}

/// True if there is anything of a task.
fn lies(crew: &Crew, task: &Planned) -> bool {
    let id = name(&task.id);
    crew.layout.task(&id).exists() || crew.layout.new_task(&id).exists() || !shelves(crew, task).is_empty()
}

/// It was admitted once, ended once, as it should, and lies where it should and nowhere else.
fn judge_task(crew: &Crew, told: &Told, task: &Planned, wrong: &mut Vec<String>) {
    let id = name(&task.id);
    let admitted = told.admitted.get(&id).copied().unwrap_or_default();
    if admitted != 1 {
        wrong.push(format!("{id} was admitted {admitted} times"));
    }
    let found = shelves(crew, task);
    if found != [task.fate] || crew.layout.task(&id).exists() || crew.layout.lock(&id).exists() {
        wrong.push(format!("{id} should be {:?} and is {found:?}", task.fate));
        return;
    }
    let accepted = (told.times(&id, "done"), told.times(&id, "dead"));
    let expected = if task.fate == Fate::Dead { (0, 1) } else { (1, 0) };
    if accepted != expected {
        wrong.push(format!("{id}: accepted as done and as dead {accepted:?} times instead of {expected:?}"));
    }
    let (shelf, _) = SHELVES.into_iter().find(|(_, fate)| *fate == task.fate).expect("each has one");
    match serde_json::from_str::<TaskRecord>(&text_of(&crew.layout.ended(shelf, &id))) {
        Ok(record)
            if record.id == id
                && record.kind.as_str() == task.kind
                && record.payload.get() == task.payload() => {}
        Ok(record) => wrong.push(format!("{id} is another's record: {record:?}")),
        Err(error) => wrong.push(format!("{id}: its record: {error}")),
    }
    let result = text_of(&crew.layout.result_on(shelf, &id));
    if task.result().is_some_and(|expected| expected != result) {
        wrong.push(format!("the result of {id} is {result:?}"));
    }
}

/// How many children each parent has.
struct Families {
    of: BTreeMap<String, usize>,
    children: usize,
}

impl Families {
    fn of(crew: &Crew) -> Self {
        let mut families = Self { of: BTreeMap::new(), children: 0 };
        for path in files_below(&crew.layout.shelf(Shelf::Done)) {
            let text =
                if path.extension().is_some_and(|is| is == "json") { text_of(&path) } else { continue };
            let Ok(record) = serde_json::from_str::<TaskRecord>(&text) else { continue };
            if record.kind.as_str() == CHILD {
                *families.of.entry(record.payload.get().trim_matches('"').to_owned()).or_default() += 1;
                families.children += 1;
            }
        }
        families
    }
}

/// A parent that is done has one child, any other none.
fn judge_family(families: &Families, crew: &Crew, task: &Planned, wrong: &mut Vec<String>) {
    let is_done = task.is_parent() && crew.is_done(&name(&task.id));
    let children = families.of.get(&task.id).copied().unwrap_or_default();
    if children != usize::from(is_done) {
        wrong.push(format!("{} is done: {is_done}, and has {children} children", task.id));
    }
}

/// What happened in a task's tries, up to where the notes are read.
#[derive(Default)]
struct Work {
    tries: usize,
    /// Each run of its step, by its nonce.
    begun: Vec<String>,
    deeds: Vec<String>,
    ended: BTreeSet<String>,
    asked_yes: usize,
    asked_no: usize,
    /// It was asked since its step began last, and what was said.
    asked: Option<bool>,
    /// What the step printed, once it is recorded.
    told: Option<String>,
}

/// What happened to each task, told in the order in which it happened.
fn works(crew: &Crew, wrong: &mut Vec<String>) -> BTreeMap<String, Work> {
    let mut works: BTreeMap<String, Work> = BTreeMap::new();
    let text = fs::read_to_string(crew.path(DEEDS)).expect("notes");
    for (number, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split(' ').collect();
        let [verb, task, more @ ..] = &words[..] else {
            wrong.push(format!("{DEEDS}:{}: {line}", number + 1));
            continue;
        };
        let said = works.entry((*task).to_owned()).or_default().see(verb, more, task.starts_with("letter"));
        if let Err(why) = said {
            wrong.push(format!("{DEEDS}:{}: {line}: {why}", number + 1));
        }
    }
    works
}

impl Work {
    fn see(&mut self, verb: &str, more: &[&str], is_effect: bool) -> Result<(), String> {
        let is_begun = !self.begun.is_empty();
        match (verb, more) {
            ("try", []) => self.tries += 1,
            ("begin", [nonce, found]) => {
                let is_unasked = is_effect && is_begun && self.asked != Some(false);
                let done = self.deeds.last().filter(|_| is_effect).cloned();
                let told = self.told.clone();
                self.begun.push((*nonce).to_owned());
                self.asked = None;
                let expected = if is_effect { "begun" } else { "nothing" };
                if let Some(told) = told {
                    return Err(format!("its result is recorded: {told}"));
                }
                if *found != expected {
                    return Err(format!("recorded of it should be {expected}"));
                }
                if is_unasked || done.is_some() {
                    return Err(format!("begun again, asked: {:?}, done: {done:?}", self.asked));
                }
                if self.begun.len() > self.tries {
                    return Err("it began more often than it was tried".to_owned());
                }
            }
            ("deed", [nonce]) => {
                self.deeds.push((*nonce).to_owned());
                if is_effect && self.deeds.len() > 1 {
                    return Err("done twice".to_owned());
                }
            }
            ("end", [nonce]) => drop(self.ended.insert((*nonce).to_owned())),
            ("asked", [answer]) => {
                let yes = *answer == "yes";
                self.asked = Some(yes);
                *(if yes { &mut self.asked_yes } else { &mut self.asked_no }) += 1;
                if self.told.is_some() {
                    return Err("asked though its result is recorded".to_owned());
                }
            }
            ("told", [nonce]) => return self.is_told(nonce),
            _ => return Err("a line of nobody's".to_owned()),
        }
        Ok(())
    }

    /// What was told is what the last run printed, or what the check found.
    fn is_told(&mut self, nonce: &str) -> Result<(), String> {
        let before = self.told.replace(nonce.to_owned());
        if before.is_some_and(|before| before != nonce) {
            return Err("told otherwise before".to_owned());
        }
        if self.begun.last().is_none_or(|last| last != nonce) {
            return Err(format!("not of its last run: {:?}", self.begun));
        }
        if !(self.ended.contains(nonce) || self.asked == Some(true)) {
            return Err("it was cut off, and nobody asked".to_owned());
        }
        Ok(())
    }
}

/// The record of a done task's step is what it told and what its result is.
fn judge_work(crew: &Crew, work: Option<&Work>, task: &Planned, wrong: &mut Vec<String>) {
    let step = match task.kind {
        "paid" => "pay",
        "letter" => "send",
        _ => return,
    };
    let id = name(&task.id);
    if !crew.is_done(&id) {
        return;
    }
    let record = text_of(&crew.layout.steps_of(Some(&id)).join(format!("{step}.step")));
    let recorded = record.split_once('\n').map(|(_, output)| output.to_owned()).unwrap_or_default();
    let told = work.and_then(|work| work.told.clone()).unwrap_or_default();
    let result = text_of(&crew.layout.result(&id));
    if result != format!("{told}\n") || recorded != result {
        wrong.push(format!("{id}: told {told:?}, recorded {recorded:?}, result {result:?}"));
    }
}
