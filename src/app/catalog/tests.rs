//! The catalogue over real files: a directory for each case.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::edge::files::FsStore;
use crate::edge::store::{Blob, Entry, ReadError, Signature};
use crate::edge::watches::Scope;
use crate::protocol::crewfile::CrewFile;

use super::*;

/// A crew in a directory of its own.
struct Crew {
    dir: tempfile::TempDir,
    us: u32,
}

impl Crew {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let us = dir.path().metadata().unwrap().uid();
        let crew = Self { dir, us };
        DirBuilder::new().create(crew.layout().agents()).unwrap();
        crew
    }

    fn layout(&self) -> Layout {
        Layout::new(self.dir.path())
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn put(&self, file: &str, text: &str, mode: u32) -> &Self {
        let path = self.path(file);
        DirBuilder::new().recursive(true).create(path.parent().unwrap()).unwrap();
        let mut opened = OpenOptions::new().write(true).create(true).truncate(true).open(&path).unwrap();
        opened.write_all(text.as_bytes()).unwrap();
        opened.set_permissions(Permissions::from_mode(mode)).unwrap();
        self
    }

    fn terms() -> Terms {
        let inherited = [("PATH".into(), "/usr/bin:/bin".into())].into();
        Terms { crew_file: CrewFile::default(), inherited, binary_dir: "/nowhere".into() }
    }

    fn catalog_as(&self, us: u32) -> Catalog<FsStore> {
        let owners = Owners { us, crew: self.us };
        Catalog::new(FsStore::new(vec![0, us, self.us]), self.layout(), owners, Self::terms())
    }

    fn catalog(&self) -> Catalog<FsStore> {
        self.catalog_as(self.us)
    }

    fn scan(&self) -> Vec<Finding> {
        self.catalog().scan().unwrap()
    }
}

const SCRIPT: &str = "#!/bin/sh\nexit 0\n";

fn offers(findings: &[Finding]) -> Vec<&Offer> {
    findings
        .iter()
        .filter_map(|finding| match finding {
            Finding::Offer(offer) => Some(offer.as_ref()),
            Finding::Refused { .. } | Finding::Gone { .. } | Finding::Cleared { .. } => None,
        })
        .collect()
}

fn refusals(findings: &[Finding]) -> Vec<&Refusal> {
    findings
        .iter()
        .filter_map(|finding| match finding {
            Finding::Refused { refusal, .. } => Some(refusal),
            Finding::Offer(_) | Finding::Gone { .. } | Finding::Cleared { .. } => None,
        })
        .collect()
}

/// What lies in the crew, then which file is refused, a part of the reason, a part of the remedy.
type Case = (&'static [(&'static str, &'static str, u32)], &'static str, &'static str, &'static str);

const REFUSED: &[Case] = &[
    (&[("agents/a.sh", SCRIPT, 0o644)], "agents/a.sh", "not executable", "chmod +x agents/a.sh"),
    (&[("agents/a.sh", "echo\n", 0o755)], "agents/a.sh", "missing shebang", "add #!/bin/sh"),
    (&[("agents/a.sh", "#!/bin/sh\r\n", 0o755)], "agents/a.sh", "CR", "sed -i 's/\\r$//' agents/a.sh"),
    (&[("agents/a.sh", "\u{feff}#!/bin/sh\n", 0o755)], "agents/a.sh", "byte order", "sed -i"),
    (&[("agents/a.sh", "", 0o755)], "agents/a.sh", "empty", "rm agents/a.sh"),
    (&[("agents/a.sh", "#!\n", 0o755)], "agents/a.sh", "no interpreter", "#!/bin/sh"),
    (&[("agents/a.sh", "#!/no/such\n", 0o755)], "agents/a.sh", "/no/such is not there", "install /no/such"),
    (
        &[("agents/a.py", "#!/usr/bin/env no-such-snake\n", 0o755)],
        "agents/a.py",
        "no-such-snake is not on the PATH",
        "install no-such-snake",
    ),
    (&[("agents/a.sh", SCRIPT, 0o757)], "agents/a.sh", "everybody may write", "chmod o-w agents/a.sh"),
    (&[("agents/a.b.sh", SCRIPT, 0o755)], "agents/a.b.sh", "not a name", "mv -- agents/a.b.sh agents/a-b.sh"),
    (
        &[("agents/a.sh", "#!/bin/sh\n# /// agent\n# tmeout = \"5m\"\n# ///\n", 0o755)],
        "agents/a.sh",
        "line 3: unknown key \"tmeout\"",
        "timeout",
    ),
    (
        &[("agents/a.toml", "budget = 3\ncommand = [\"sh\"]\n", 0o644)],
        "agents/a.toml",
        "line 1: \"budget\" is not in this version",
        "remove it",
    ),
    (
        &[("agents/a.sh", "#!/bin/sh\n# /// agent\n# tmeout = \"5m\"\n# depends = [\"x\"]\n# ///\n", 0o755)],
        "agents/a.sh",
        "line 3: unknown key \"tmeout\"; line 4: \"depends\" is not in this version",
        "did you mean \"timeout\"?; ",
    ),
    (&[("agents/a.toml", "about = \"x\"\n", 0o644)], "agents/a.toml", "no command", "add command ="),
    (
        &[("agents/a.toml", "command = [\"no-such-program\"]\n", 0o644)],
        "agents/a.toml",
        "no-such-program is not on the PATH",
        "install",
    ),
    (&[("agents/a.toml", "command = [\"./run\"]\n", 0o644)], "agents/a.toml", "run is not there", "ls -l"),
    (
        &[("agents/a.toml", "command = [\"bin/x\"]\n", 0o644), ("bin/x", SCRIPT, 0o644)],
        "agents/a.toml",
        "bin/x is not executable",
        "chmod +x",
    ),
    (
        &[("agents/a.toml", "command = [\"sh\"]\nworkdir = \"w\"\n", 0o644)],
        "agents/a.toml",
        "workdir: w is not there",
        "mkdir -p",
    ),
    (
        &[("agents/a.toml", "command = [\"sh\"]\n", 0o644), ("agents/a.sh", SCRIPT, 0o755)],
        "agents/a.toml",
        "agents/a.sh lies beside it",
        "remove command",
    ),
    (&[("agents/a.toml", "command = [\"sh\"]\n", 0o646)], "agents/a.toml", "everybody", "chmod o-w"),
    (&[("agents/a.sh", SCRIPT, 0o755), (".env", "A=1\n", 0o644)], ".env", "may read", "chmod o-r .env"),
    (&[("agents/a.sh", SCRIPT, 0o755), (".env", "oops\n", 0o600)], ".env", "line 1: not of the shape", "#"),
    (
        &[("agents/a.sh", "#!/bin/sh\n# /// agent\n# env_file = \"x.env\"\n# ///\n", 0o755)],
        "x.env",
        "is not there",
        "chmod 600 x.env",
    ),
];

#[test]
fn each_refusal_has_its_reason_and_its_remedy() {
    for (files, refused, reason, remedy) in REFUSED {
        let crew = Crew::new();
        for (file, text, mode) in *files {
            crew.put(file, text, *mode);
        }
        let findings = crew.scan();
        let refusals = refusals(&findings);
        let [refusal] = refusals.as_slice() else { panic!("{files:?}: {findings:?}") };
        assert_eq!(refusal.file, *refused, "{refusal:?}");
        assert!(refusal.reason.contains(reason), "{reason:?} is not in {refusal:?}");
        assert!(refusal.remedy.contains(remedy), "{remedy:?} is not in {refusal:?}");
        assert!(offers(&findings).is_empty(), "{findings:?}");
    }
}

#[test]
fn a_group_that_may_write_is_a_warning_but_no_way_to_become_root() {
    let crew = Crew::new();
    crew.put("agents/a.sh", SCRIPT, 0o775);
    let as_root = crew.catalog_as(0).scan().unwrap();
    assert!(refusals(&as_root)[0].remedy.contains("chmod g-w agents/a.sh"), "{as_root:?}");
    let as_user = crew.catalog_as(12345).scan().unwrap();
    assert!(offers(&as_user)[0].warnings[0].contains("chmod g-w"), "{as_user:?}");
}

#[test]
fn a_file_of_somebody_else_is_refused() {
    let crew = Crew::new();
    crew.put("agents/a.sh", SCRIPT, 0o755);
    if std::os::unix::fs::chown(crew.path("agents/a.sh"), Some(12345), None).is_err() {
        println!("skipped: only root can give a file away");
        return;
    }
    let findings = crew.scan();
    assert!(refusals(&findings)[0].reason.contains("uid 12345"), "{findings:?}");
    assert_eq!(refusals(&findings)[0].remedy, format!("chown {} agents/a.sh", crew.us));
}

#[test]
fn what_is_no_agent_is_passed_over() {
    let crew = Crew::new();
    for file in
        ["a~", "a.sh.bak", "a.orig", "a.swp", "a.tmp", "README.md", "notes.txt", ".hidden.sh", "d/x.sh"]
    {
        crew.put(&format!("agents/{file}"), SCRIPT, 0o755);
    }
    crew.put("agents/data.json", "{}", 0o644).put("agents/my data", "", 0o644);
    assert_eq!(crew.scan(), []);
}

#[test]
fn a_symlink_is_judged_by_its_target() {
    let crew = Crew::new();
    crew.put("elsewhere/good", SCRIPT, 0o755).put("elsewhere/open", SCRIPT, 0o777);
    for (target, link) in [
        ("../elsewhere/good", "good.sh"),
        ("../elsewhere/open", "open.sh"),
        ("../nowhere", "lost.sh"),
        ("..", "dir"),
    ] {
        symlink(target, crew.path("agents").join(link)).unwrap();
    }
    let mut catalog = crew.catalog();
    let findings = catalog.scan().unwrap();
    let [offer] = offers(&findings)[..] else { panic!("{findings:?}") };
    assert_eq!(offer.argv, [crew.path("agents/good.sh").into_os_string()]);
    let reasons: Vec<&str> = refusals(&findings).iter().map(|refusal| refusal.reason.as_str()).collect();
    assert!(reasons[0].contains("symlink to nothing") && reasons[1].contains("everybody"), "{reasons:?}");

    assert_eq!(catalog.scan().unwrap(), []);
    crew.put("elsewhere/good", "#!/bin/sh\nexit 1\n", 0o755);
    assert_eq!(offers(&catalog.scan().unwrap()).len(), 1, "the target's change counts");
}

#[test]
fn a_fifo_is_refused_and_never_opened() {
    let crew = Crew::new();
    nix::unistd::mkfifo(&crew.path("agents/a.sh"), nix::sys::stat::Mode::from_bits_truncate(0o755)).unwrap();
    assert!(refusals(&crew.scan())[0].reason.contains("no regular file"));
}

#[test]
fn a_manifest_beside_a_script_wins_over_the_block_inside() {
    let crew = Crew::new();
    crew.put("agents/a.sh", "#!/bin/sh\n# /// agent\n# about = \"inside\"\n# ///\n", 0o755);
    let mut catalog = crew.catalog();
    assert_eq!(offers(&catalog.scan().unwrap())[0].manifest.about, "inside");
    crew.put("agents/a.toml", "about = \"beside\"\nargs = [\"-v\"]\n", 0o644);
    let findings = catalog.scan().unwrap();
    let offer = offers(&findings)[0];
    assert_eq!((offer.manifest.about.as_str(), offer.file.as_str()), ("beside", "agents/a.sh"));
    assert_eq!(offer.argv, [crew.path("agents/a.sh").into_os_string(), "-v".into()]);
}

#[test]
fn a_command_is_looked_up_where_the_agent_would() {
    let crew = Crew::new();
    crew.put("proj/bin/run", SCRIPT, 0o755);
    crew.put("agents/near.toml", "command = [\"bin/run\", \"x\"]\nworkdir = \"proj\"\n", 0o644);
    crew.put("agents/path.toml", "command = [\"sh\", \"-c\", \"true\"]\n", 0o644);
    crew.put(
        "agents/own.toml",
        &format!("command = [\"run\"]\nenv = {{ PATH = \"{}\" }}\n", crew.path("proj/bin").display()),
        0o644,
    );
    let findings = crew.scan();
    let argv: Vec<&[OsString]> = offers(&findings).iter().map(|offer| offer.argv.as_slice()).collect();
    let run = crew.path("proj/bin/run").into_os_string();
    assert_eq!(argv[0], [run.clone(), "x".into()]);
    assert_eq!(argv[1], [run]);
    assert!(argv[2][0] == "/usr/bin/sh" || argv[2][0] == "/bin/sh", "{argv:?}");
    assert_eq!(offers(&findings)[0].workdir, Some(crew.path("proj")));
}

#[test]
fn of_two_files_with_one_name_the_one_that_runs_stays() {
    let crew = Crew::new();
    crew.put("agents/w.py", SCRIPT, 0o755);
    let mut catalog = crew.catalog();
    assert_eq!(offers(&catalog.scan().unwrap())[0].file, "agents/w.py");
    crew.put("agents/w.a", SCRIPT, 0o755);
    let findings = catalog.scan().unwrap();
    assert_eq!(offers(&findings)[0].file, "agents/w.py");
    assert_eq!(refusals(&findings)[0].file, "agents/w.a");
    // Even while its file cannot run, the other one does not take the name.
    crew.put("agents/w.py", "", 0o755);
    let findings = catalog.scan().unwrap();
    assert!(offers(&findings).is_empty() && refusals(&findings).len() == 2, "{findings:?}");
    // A catalogue that knows neither takes the first in order of name.
    crew.put("agents/w.py", SCRIPT, 0o755);
    assert_eq!(offers(&crew.scan())[0].file, "agents/w.a");
}

#[test]
fn only_changes_are_told() {
    let crew = Crew::new();
    crew.put("agents/a.sh", SCRIPT, 0o755).put("agents/b.sh", SCRIPT, 0o755).put(
        "agents/c d.sh",
        SCRIPT,
        0o755,
    );
    let mut catalog = crew.catalog();
    assert_eq!(catalog.scan().unwrap().len(), 3);
    assert_eq!(catalog.scan().unwrap(), []);

    let digest = |findings: &[Finding]| offers(findings)[0].digest.clone();
    crew.put("agents/a.sh", "#!/bin/sh\nexit 1\n", 0o755);
    let changed = catalog.scan().unwrap();
    assert_eq!((changed.len(), offers(&changed)[0].agent.as_str()), (1, "a"));
    crew.put("agents/a.sh", "#!/bin/sh\nexit 1\n", 0o700);
    let mode = catalog.scan().unwrap();
    assert_ne!(digest(&changed), digest(&mode), "the mode is part of the version");

    crew.put("agents/a.sh", "echo\n", 0o700);
    assert!(matches!(&catalog.scan().unwrap()[..], [Finding::Refused { agent: Some(_), .. }]));
    crew.put("agents/a.sh", "#!/bin/sh\nexit 1\n", 0o700);
    let back = catalog.scan().unwrap();
    assert_eq!(digest(&back), digest(&mode), "an offer withdraws the refusal, with the digest of before");

    let touched = OpenOptions::new().append(true).open(crew.path("agents/a.sh")).unwrap();
    touched.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(catalog.scan().unwrap(), [], "a touch changes nothing");

    let store = FsStore::new(vec![crew.us]);
    store.unlink(&crew.path("agents/a.sh")).unwrap();
    store.unlink(&crew.path("agents/c d.sh")).unwrap();
    assert_eq!(
        catalog.scan().unwrap(),
        [Finding::Gone { agent: "a".parse().unwrap() }, Finding::Cleared { file: "agents/c d.sh".into() }]
    );
}

#[test]
fn a_version_covers_environment_files_and_what_reload_on_names() {
    let crew = Crew::new();
    crew.put("agents/a.toml", "command = [\"sh\"]\nreload_on = [\"lib/**/*.py\"]\n", 0o644);
    crew.put("lib/deep/x.py", "1", 0o644);
    let mut catalog = crew.catalog();
    let mut digests = vec![offers(&catalog.scan().unwrap())[0].digest.clone()];
    for (file, text) in [("lib/deep/x.py", "22"), ("lib/new.py", "3"), (".env", "A=1\n"), (".env", "A=2\n")] {
        crew.put(file, text, 0o600);
        let findings = catalog.scan().unwrap();
        digests.push(offers(&findings)[0].digest.clone());
    }
    crew.put("lib/other.txt", "no match", 0o644);
    assert_eq!(catalog.scan().unwrap(), []);
    let count = digests.len();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), count, "each change made another version");
    let watched = catalog.watched();
    assert!(watched.contains(&(crew.path("lib"), Scope::Tree)), "{watched:?}");
    assert!(
        watched.contains(&(crew.path(".env"), Scope::File)),
        "the file alone, not all that is written beside it"
    );
}

#[test]
fn globs_over_too_many_files_are_refused() {
    let crew = Crew::new();
    crew.put("agents/a.toml", "command = [\"sh\"]\nreload_on = [\"**/*.js\"]\n", 0o644);
    DirBuilder::new().create(crew.path("node_modules")).unwrap();
    for n in 0..10_001 {
        File::create_new(crew.path(&format!("node_modules/{n}.js"))).unwrap();
    }
    let findings = crew.scan();
    assert!(refusals(&findings)[0].reason.contains("more than 10000 files"), "{findings:?}");
    assert!(refusals(&findings)[0].remedy.contains("narrower"));
}

#[test]
fn another_nightcrew_toml_judges_every_agent_anew() {
    let crew = Crew::new();
    crew.put("agents/a.toml", "command = [\"tool\"]\n", 0o644).put("bin/tool", SCRIPT, 0o755);
    let mut catalog = crew.catalog();
    assert_eq!(refusals(&catalog.scan().unwrap()).len(), 1);
    let mut terms = Crew::terms();
    terms.crew_file.path = Some(crew.path("bin").display().to_string());
    catalog.configure(terms.clone());
    assert_eq!(offers(&catalog.scan().unwrap()).len(), 1);
    catalog.configure(terms);
    assert_eq!(catalog.scan().unwrap(), []);
}

#[test]
fn a_missing_agents_directory_is_an_error_and_takes_nothing_away() {
    let crew = Crew::new();
    crew.put("agents/a.sh", SCRIPT, 0o755);
    let mut catalog = crew.catalog();
    catalog.scan().unwrap();
    let store = FsStore::new(vec![crew.us]);
    store.rename(&crew.path("agents"), &crew.path("away")).unwrap();
    assert_eq!(catalog.scan().unwrap_err().kind(), io::ErrorKind::NotFound);
    store.rename(&crew.path("away"), &crew.path("agents")).unwrap();
    assert_eq!(catalog.scan().unwrap(), []);
}

/// A store that counts how often a file is opened.
#[derive(Clone)]
struct Counting {
    inner: FsStore,
    opened: Arc<AtomicUsize>,
}

impl Counting {
    fn count(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }
}

impl Store for Counting {
    type File = File;
    fn create_new(&self, path: &Path) -> io::Result<File> {
        self.inner.create_new(path)
    }
    fn open_append(&self, path: &Path) -> io::Result<(File, u64)> {
        self.inner.open_append(path)
    }
    fn append(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        self.inner.append(file, bytes)
    }
    fn rewrite(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.inner.rewrite(path, offset, bytes)
    }
    fn sync(&self, file: &File) -> io::Result<()> {
        self.inner.sync(file)
    }
    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        self.inner.set_len(file, len)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.sync_dir(dir)
    }
    fn read(&self, path: &Path, max: u64) -> Result<Blob, ReadError> {
        self.count();
        self.inner.read(path, max)
    }
    fn read_at(&self, path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.count();
        self.inner.read_at(path, offset, len)
    }
    fn stat(&self, path: &Path) -> io::Result<Option<Signature>> {
        self.inner.stat(path)
    }
    fn touch(&self, path: &Path) -> io::Result<bool> {
        self.inner.touch(path)
    }
    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.inner.set_mode(path, mode)
    }
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        self.inner.resolve(path)
    }
    fn list(&self, dir: &Path, max: usize) -> io::Result<Vec<Entry>> {
        self.inner.list(dir, max)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.link(from, to)
    }
    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.inner.unlink(path)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir(dir)
    }
    fn copy_durably(&self, from: &Path, to: &Path, max: u64) -> Result<u64, ReadError> {
        self.inner.copy_durably(from, to, max)
    }
}

#[test]
fn what_did_not_change_is_not_opened() {
    let crew = Crew::new();
    for n in 0..10 {
        crew.put(&format!("agents/a{n}.sh"), SCRIPT, 0o755);
    }
    crew.put("agents/bad.sh", SCRIPT, 0o644).put("agents/data.json", "{}", 0o644).put(".env", "A=1\n", 0o600);
    crew.put("agents/t.toml", "command = [\"sh\"]\nreload_on = [\"lib/*\"]\n", 0o644).put("lib/x", "", 0o644);
    symlink("../lib/x", crew.path("agents/linked")).unwrap();
    let opened = Arc::new(AtomicUsize::new(0));
    let store = Counting { inner: FsStore::new(vec![0, crew.us]), opened: opened.clone() };
    let owners = Owners { us: crew.us, crew: crew.us };
    let mut catalog = Catalog::new(store, crew.layout(), owners, Crew::terms());
    assert_eq!(catalog.scan().unwrap().len(), 12);
    assert!(opened.swap(0, Ordering::Relaxed) > 12);

    assert_eq!(catalog.scan().unwrap(), []);
    assert_eq!(opened.load(Ordering::Relaxed), 0, "nothing changed, so nothing is opened");

    crew.put("agents/a3.sh", "#!/bin/sh\nexit 3\n", 0o755);
    assert_eq!(catalog.scan().unwrap().len(), 1);
    assert_eq!(opened.load(Ordering::Relaxed), 2, "the one that changed, and its environment file");
}
