//! Atomic replacement of folders and files, with interruptions at every step.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crisol_hub::{
    HubError, recover_folder, resolve_folder, write_file_atomically, write_folder_atomically,
};

fn write(path: &Path, text: &str) -> Result<(), HubError> {
    write_folder_atomically(path, |folder| {
        fs::write(folder.join("text"), text).expect("writable");
        fs::create_dir(folder.join("sub")).expect("writable");
        fs::write(folder.join("sub").join(text), "").expect("writable");
        Ok(())
    })
}

fn text(folder: &Path) -> String {
    fs::read_to_string(folder.join("text")).expect("the folder is whole")
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("it exists");
    let mut names: Vec<String> =
        entries.map(|e| e.expect("readable").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_folder_is_written_and_replaced_as_a_whole() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("deep").join("model");
    write(&path, "one").expect("nothing in the way");
    assert_eq!(text(&path), "one");
    write(&path, "two").expect("it is ours");
    assert_eq!(text(&path), "two");
    assert_eq!(names(&path.join("sub")), ["two"], "nothing of the old folder stays");
    assert_eq!(names(path.parent().expect("deep")), ["model"], "nothing is left beside it");
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).expect("writable");
    write(&empty, "three").expect("an empty folder holds nothing to lose");
    assert_eq!(text(&empty), "three");
}

#[test]
fn a_failure_leaves_the_old_version() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("model");
    write(&path, "one").expect("nothing in the way");
    let failed = write_folder_atomically(&path, |folder| {
        fs::write(folder.join("text"), "half").expect("writable");
        // Linux's device that is always full.
        let full = PathBuf::from("/dev/full");
        let out =
            fs::OpenOptions::new().write(true).open(&full).and_then(|mut f| f.write_all(b"x"));
        out.map_err(|e| HubError::io("write", &full, e))
    });
    let error = failed.expect_err("the disk is full");
    if cfg!(target_os = "linux") {
        assert!(matches!(error, HubError::DiskFull { .. }), "{error}");
        assert!(error.to_string().contains("disk is full"), "{error}");
    }
    assert_eq!(text(&path), "one");
    assert_eq!(names(dir.path()), ["model"]);
}

#[test]
fn foreign_folders_are_not_replaced() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().join("thesis");
    fs::create_dir(&folder).expect("writable");
    fs::write(folder.join("text"), "years of work").expect("writable");
    assert!(matches!(write(&folder, "one"), Err(HubError::ForeignFolder { .. })));
    assert_eq!(text(&folder), "years of work");
    let file = dir.path().join("notes.txt");
    fs::write(&file, "notes").expect("writable");
    assert!(matches!(write(&file, "one"), Err(HubError::ForeignFolder { .. })));
    assert_eq!(fs::read_to_string(&file).expect("still there"), "notes");
}

/// Every state that a killed writer can leave: the version that readers find, and the version after
/// recovery.
#[test]
fn a_complete_folder_is_found_after_a_kill_at_any_step() {
    for (existing, found) in [
        // First version: nothing, then the new one.
        (&[".m.writing"][..], None),
        (&[".m.new"], Some(".m.new")),
        // Replacement.
        (&["m", ".m.writing"], Some("m")),
        (&["m", ".m.new"], Some("m")),
        (&[".m.old", ".m.new"], Some(".m.new")),
        (&["m", ".m.old"], Some("m")),
    ] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("m");
        for name in existing {
            write(&dir.path().join("source"), name).expect("nothing in the way");
            fs::rename(dir.path().join("source"), dir.path().join(name)).expect("same place");
        }
        let resolved = resolve_folder(&path).expect("readable");
        assert_eq!(resolved.exists().then(|| text(&resolved)).as_deref(), found, "{existing:?}");
        recover_folder(&path).expect("writable");
        // A complete new version takes precedence over the old one.
        let newest = if existing.contains(&".m.new") { Some(".m.new") } else { found };
        assert_eq!(path.exists().then(|| text(&path)).as_deref(), newest, "{existing:?}");
        assert!(names(dir.path()).iter().all(|name| name == "m"), "{existing:?}");
        write(&path, "next").expect("settled");
        assert_eq!(text(&path), "next");
    }
}

#[test]
fn a_file_is_replaced_in_one_step() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("report.json");
    write_file_atomically(&path, b"one").expect("writable");
    write_file_atomically(&path, b"two").expect("writable");
    assert_eq!(fs::read(&path).expect("just written"), b"two");
    assert_eq!(names(dir.path()), ["report.json"]);
    let nowhere = dir.path().join("no").join("where");
    assert!(matches!(write_file_atomically(&nowhere, b"x"), Err(HubError::Io { .. })));
    assert!(write_file_atomically(Path::new("/"), b"x").is_err());
}
