//! Having a person edit a file: their editor, in their terminal.

use std::io;
use std::path::Path;
use std::process::Command;

use signal_hook::consts::{SIGINT, SIGQUIT};
use signal_hook::iterator::Signals;

/// Opens `file` in `editor`, a command line for the shell as `$EDITOR` holds one, and waits for its end; false if
/// that says that the file is not to be used.
///
/// # Errors
/// If it could not be started or waited for.
pub fn edit(editor: &str, file: &Path) -> io::Result<bool> {
    // What the terminal sends to all of us (Ctrl-C) is for the editor to understand.
    let _caught = Signals::new([SIGINT, SIGQUIT])?;
    let status =
        Command::new("/bin/sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("editor").arg(file).status()?;
    Ok(status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_editor_may_have_arguments_and_a_file_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("it's a \"file\" $x");
        std::fs::write(&file, "old\n").unwrap();
        assert!(edit("sed -i s/old/new/", &file).unwrap());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new\n");
        assert!(!edit("false", &file).unwrap());
        assert!(!edit("/no/such/editor", &file).unwrap());
    }
}
