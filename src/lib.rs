//! nightcrew supervises a small fleet of scripts on one machine and coordinates them by files alone. This
//! page is its architecture; README.md is for those who use it, and docs/protocol.md specifies every file.
//!
//! # The promise
//!
//! What a command said it took survives `kill -9`, a power cut and a full disk, or the command said that it
//! failed. A task has one owner at a time, and a late owner's result is refused, always. Whatever fails, be it
//! an agent, a file, a clock or the supervisor itself, is contained, explained, and costs the others nothing.
//!
//! # The map
//!
//! | room | what it is | imports |
//! |---|---|---|
//! | [`protocol`] | bytes to records and back; each format has one module, and [`protocol::layout`] spells every path. Pure | – |
//! | [`machine`] | what is to be done, decided: [`State::step`](machine::State::step) takes the time and an [`Event`](machine::Event), and returns [`Effect`](machine::Effect)s. Pure: no clock, no I/O, no threads, no randomness but a seeded generator | `protocol` |
//! | [`edge`] | the world touched: [`store`](edge::store) and [`files`](edge::files), [`processes`](edge::processes), [`watches`](edge::watches), [`watchdog`](edge::watchdog), [`pump`](edge::pump), [`log`](edge::log) and [`writer`](edge::writer), locks, signals, the clock, the rules of [`zones`](edge::zones). It decides nothing | `protocol` |
//! | [`app`] | the only translator: the [`supervisor`](app::supervisor) between machine and edge; the [`catalog`](app::catalog) of `agents/`; the [`steward`](app::steward), the one writer of shared memory; the [`client`](app::client), what commands do by files; [`steps`](app::steps), which are paid for once; [`pull`](app::pull), [`work`](app::work) and [`outlast`](app::outlast), which wait on files. Generic over [`Store`](edge::store::Store), [`Clock`](edge::clock::Clock), [`Processes`](edge::processes::Processes) and [`Helpers`](app::supervisor::Helpers) | all above |
//! | `cli` | one file a verb; exit codes; words for people | `app`, `protocol` |
//!
//! `protocol ← machine ← app ← cli` and `protocol ← edge ← app`: what decides cannot see what acts.
//! `tests/it/layers.rs` reads the sources for it.
//!
//! # The threads and the one queue
//!
//! One thread owns all that the supervisor knows. A [turn](app::supervisor::Supervisor::turn) collects up to
//! [`BATCH_MAX`](app::supervisor::BATCH_MAX) messages, looks where they point, steps the machine, performs its
//! effects, and shows what changed; then it sleeps until a message or the next deadline. The others only do as
//! they are told and report into its queue ([`Message`](app::supervisor::Message)):
//!
//! | thread | does | woken by |
//! |---|---|---|
//! | processes | spawns, signals, reaps, proves trees gone ([`edge::processes`]) | `SIGCHLD`, orders, its deadlines |
//! | writer | makes records and ledger durable, many jobs in one commit ([`edge::writer_thread`]) | jobs |
//! | steward | applies memory updates ([`app::steward`]) | hints, 30 s |
//! | pump | moves output from pipes to logs by `splice` ([`edge::pump`]) | the pipes |
//! | watchdog | samples heartbeats, lock ages, memory of trees ([`edge::watchdog`]) | its pace, which is that of the shortest interval |
//! | watches | says where something changed ([`edge::watches`]) | inotify |
//! | signals | TERM, INT, HUP, CHLD ([`edge::signals`]) | the kernel |
//!
//! The queue has no bound, because a helper that waited for room could wait for the loop that waits for it; each
//! source is bounded by what it watches. What is looked at, listed, read, written, retried and waited for has a
//! bound in every place, a constant whose name ends in `_MAX`, `_LEN` or `_MS`. Files are the truth and messages
//! are hints: everything is looked at again every 30 s, so that a hint that was lost costs time and nothing else.
//!
//! # Invariants
//!
//! | what always holds | where it is kept |
//! |---|---|
//! | A record is published whole: temporary file, fsync, rename or link, fsync of the directory | the provided methods of [`Store`](edge::store::Store) |
//! | Nothing is acknowledged before it is durable; a task about which a record is being written is decided no further | [`edge::writer`]'s phases; tickets, and the stage `Pending` in `machine/state.rs` |
//! | Only the supervisor removes a lock, and only once the task's next token is durable | `conclude` in `machine/claims.rs` makes one job of it; the order of a [`Job`](edge::writer::Job)'s parts |
//! | No token is given out twice | a block is reserved with, and before, the first record that bears one of it: `fresh_token` in `machine/tasks.rs` |
//! | An owner's death is proved before its task is given away, and its outcomes are looked for before that | `owner_gone` and `outcomes_looked` in `machine/claims.rs`; `TreeGone` of the process thread |
//! | What an earlier supervisor left is known before anything is given out | the order of steps in [`Supervisor::recover`](app::supervisor::Supervisor::recover) |
//! | An update applies once, whatever is killed when | ids in `applied/AGENT` and hashes in the journal: [`machine::memory`], [`app::steward`] |
//! | A recorded step is never paid for again, nor is a part of one believed; an effect that may have been done is not done again unasked | one file published by one rename under a lock: [`protocol::step`], [`app::steps`], [`edge::steplock`] |
//! | A process is told by pid, start time, boot and namespace, never by its pid alone | [`Identity`](protocol::process::Identity) |
//! | No silence is judged by a wall clock, nor one that our own standstill explains | `read_clock` in [`app::supervisor`]; the watchdog's canary |
//! | No string from outside becomes part of a path unless it is a [`Name`](protocol::name::Name) or a [`Key`](protocol::name::Key) | their parsers, and [`protocol::layout`], which takes nothing else |
//! | What others wrote is opened without following links or blocking, and read only if it is a regular file of an accepted owner within its cap | [`Store::read`](edge::store::Store::read) |
//! | Pure rooms stay pure | `.clippy.toml` bans clock, files, processes and sleep outside `edge`, each with its replacement; `tests/it/layers.rs`; `unsafe_code` is forbidden |
//!
//! # When it crashes
//!
//! Every change of several files is one [`Job`](edge::writer::Job) in four phases: what must be durable before
//! the ledger tells of it, the ledger's commit, the records that follow from it, and removals. A crash between
//! two phases leaves what a later start recognises: the ledger's last commits name outcomes that a record may not
//! show yet, tokens tell which of two records for one task is the later, and a removal that did not happen
//! is done again. Logs are framed with checksums, a commit counts only with its commit line, and what lies behind
//! the last one is kept aside and cut ([`protocol::framing`], [`edge::log`]). After a failed fsync nothing is tried
//! again: the store latches and says so. The table of truths in docs/protocol.md goes through all of it.
//!
//! All of this is tried: docs/reliability.md says by which faults and which tests. `tests/sim` runs the rooms above but
//! for the threads over a simulated machine, where one seed decides everything, and has controls: the wrong decisions
//! of the feature `mutants`, which exist in no other build.
//!
//! # What is deliberately absent
//!
//! No async runtime: a handful of threads, each blocked on one thing. No shared state behind a mutex: what is
//! known has one owner. No socket and no port: commands write files, and work without a supervisor. No
//! database: `ls`, `cat` and `mv` read and mend everything. No polling, but for the watchdog's samples and
//! the second for which a start tries to take the crew's lock. No `unsafe`, hence no `pre_exec`: what needs a
//! directory of its own is started through our own binary ([`edge::launcher`], [`edge::processes`]). Not yet,
//! and nothing here stands in their way: cgroups, users and sandboxes for agents, adopting survivors,
//! schedules, retries of one's own, an index over the ledger.

// Before all else: its macro is seen by what comes after it.
#[macro_use]
pub mod mutants;

pub mod app;
mod cli;
pub mod edge;
pub mod machine;
pub mod protocol;

pub use cli::main;
