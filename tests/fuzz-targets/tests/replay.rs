//! Every file of the corpora, by the targets that they are for: what fuzzing has found holds on every compiler.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use gkd_fuzz_targets::TARGETS;

/// A corpus with fewer files was forgotten.
const LEAST: usize = 5;

fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus")
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

#[test]
fn every_file_of_the_corpora_is_survived() {
    let mut broken = Vec::new();
    for (name, target) in TARGETS {
        let files = files(&corpora().join(name));
        assert!(files.len() >= LEAST, "the corpus of {name} has {} files", files.len());
        for file in files {
            let data = fs::read(&file).expect("a file");
            if catch_unwind(|| target(&data)).is_err() {
                broken.push(file.display().to_string());
            }
        }
    }
    assert!(broken.is_empty(), "a target panics at {broken:#?}");
}

#[test]
fn each_target_has_a_program_and_a_corpus() {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets");
    let named = |directory: &Path| -> Vec<String> {
        let stem =
            |file: &PathBuf| file.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
        files(directory).iter().map(stem).collect()
    };
    let targets = TARGETS.map(|(name, _)| name.to_owned());
    assert_eq!(named(&programs), targets);
    assert_eq!(named(&corpora()), targets);
}
