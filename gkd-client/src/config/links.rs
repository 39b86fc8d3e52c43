//! Files of links: one a line; blank lines and those that begin with `#` do not count.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use gkd_core::link::Link;
use gkd_proxy::program::Failure;

use super::layer::{Origin, Text};
use super::note_mode;

/// The most bytes that are read: more links than any client has paths for.
const MAX_FILE: u64 = 256 * 1024;

/// Reads the file that `named` names.
pub(super) fn read(named: &Text, notes: &mut Vec<String>) -> Result<Vec<Text>, Failure> {
    let path = PathBuf::from(&named.text);
    let shown = path.display();
    // A file that is not there is no error of form, so it is one of configuration wherever it was named.
    let wrong = |error| {
        Failure::config(format_args!(
            "{}: the link file {shown} cannot be read: {error}: it holds the line that the server printed",
            named.origin
        ))
    };
    let file = File::open(&path).map_err(wrong)?;
    note_mode(&path, &file, "a key", notes);
    let mut content = String::new();
    file.take(MAX_FILE).read_to_string(&mut content).map_err(wrong)?;
    let lines = content.lines().zip(1..).map(|(line, number)| (line.trim(), number));
    let texts: Vec<_> = lines
        .filter(|(line, _)| !line.is_empty() && !line.starts_with('#'))
        .map(|(line, number)| Text { text: line.to_owned(), origin: Origin::Line(path.clone(), number) })
        .collect();
    if texts.is_empty() {
        let message = format_args!("{shown} holds no link: put the line into it that the server printed");
        return Err(Failure::config(message));
    }
    Ok(texts)
}

/// Several links are paths of one session, which is with one server and of one user.
pub(super) fn check_alike(links: &[Link], texts: &[Text]) -> Result<(), Failure> {
    let Some(first) = links.first() else { return Ok(()) };
    for (link, text) in links.iter().zip(texts) {
        let other = match (link.server == first.server, link.user == first.user) {
            (true, true) => continue,
            (false, _) => "server",
            (true, false) => "user",
        };
        return Err(text.wrong(format!(
            "this link is of another {other} than the first, and all links of one client are paths of one session: start a \
             client for each"
        )));
    }
    Ok(())
}
