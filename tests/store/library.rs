//! The RocksDB that is linked: `contrib/rocksdb.sh` compiles it, and repeats what the build script
//! of the crate `librocksdb-sys` would tell the compiler. Here that build script is run with a
//! compiler that only writes down how it is called, and both are compared.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// What `contrib/rocksdb.sh` says more than the crate; its head gives the reasons.
const ADDED: [&str; 5] = [
    "-DROCKSDB_MALLOC_USABLE_SIZE",
    "-msse4.2",
    "-mpclmul",
    "-march=armv8-a+crc+aes+crypto",
    "-w",
];

/// A compiler for the crate's build script: notes its arguments for files of RocksDB, and lets the
/// real one answer the questions that the script asks before.
const NOTING_COMPILER: &str = r#"#!/bin/sh
source=
for argument in "$@"; do case $argument in *.cc) source=$argument ;; esac; done
case $source in
rocksdb/* | build_version.cc)
    printf '%s\n' "$*" >>"$NOTES"
    while [ $# -gt 0 ]; do
        [ "$1" != -o ] || : >"$2"
        shift
    done
    ;;
*) exec c++ "$@" ;;
esac
"#;

#[test]
fn rocksdb_is_compiled_with_the_flags_and_files_of_the_crates_own_build_script() {
    let crate_folder = crate_folder();
    let commands = commands_of_the_crate(&crate_folder);
    let theirs: BTreeSet<String> = flags(&commands[0]);
    let script = Command::new(repository().join("contrib/rocksdb.sh"))
        .arg("flags")
        .output()
        .expect("contrib/rocksdb.sh runs");
    assert!(script.status.success(), "{script:?}");
    let ours = String::from_utf8(script.stdout).expect("flags are text");
    let ours: BTreeSet<String> = flags(&ours.lines().collect::<Vec<_>>().join(" "))
        .into_iter()
        .filter(|flag| !ADDED.contains(&flag.as_str()))
        .collect();
    assert_eq!(
        ours, theirs,
        "flags() of contrib/rocksdb.sh differs from what the crate's build script says now"
    );

    for command in &commands {
        assert_eq!(flags(command), theirs, "files with flags of their own");
    }
    let compiled: BTreeSet<&str> = commands
        .iter()
        .map(|command| command.rsplit(' ').next().expect("not empty"))
        .collect();
    let list = fs::read_to_string(crate_folder.join("rocksdb_lib_sources.txt"))
        .expect("the crate lists its sources");
    let listed: Vec<String> = list
        .split_whitespace()
        .filter(|file| *file != "util/build_version.cc")
        .map(|file| format!("rocksdb/{file}"))
        .chain(["build_version.cc".to_owned()])
        .collect();
    assert_eq!(
        compiled,
        listed.iter().map(String::as_str).collect(),
        "contrib/rocksdb.sh compiles the crate's list; the build script compiles something else"
    );
}

#[test]
fn rocksdb_calculates_checksums_in_hardware_where_this_machine_can() {
    let features = fs::read_to_string("/proc/cpuinfo").expect("Linux says what its processor has");
    let can = |name: &str| features.split_whitespace().any(|feature| feature == name);
    if cfg!(target_arch = "x86_64") && !(can("sse4_2") && can("pclmulqdq")) {
        return;
    }
    let folder = TempDir::new().expect("a folder");
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    options.set_log_level(rocksdb::LogLevel::Info);
    drop(rocksdb::DB::open(&options, folder.path()).expect("a database opens"));
    let log = fs::read_to_string(folder.path().join("LOG")).expect("RocksDB keeps a log");
    assert!(
        log.contains("Fast CRC32 supported: Supported"),
        "RocksDB was not compiled by contrib/setup.sh, or without the processor's instructions"
    );
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The folder of the crate `librocksdb-sys` that this build uses.
fn crate_folder() -> PathBuf {
    let cargo = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--locked"])
        .current_dir(repository())
        .output()
        .expect("cargo runs");
    assert!(cargo.status.success(), "{cargo:?}");
    let metadata: serde_json::Value = serde_json::from_slice(&cargo.stdout).expect("JSON");
    let package = metadata["packages"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|package| package["name"] == "librocksdb-sys")
        .expect("RocksDB's crate is among the packages");
    let manifest = package["manifest_path"].as_str().expect("a path");
    Path::new(manifest).parent().expect("a folder").to_owned()
}

/// The build script of `librocksdb-sys` as cargo compiled it for this test.
fn build_script() -> PathBuf {
    let profile = Path::new(env!("CARGO_BIN_EXE_satwatch"))
        .parent()
        .expect("the daemon is in the folder of its profile");
    let built = fs::read_dir(profile.join("build")).expect("cargo keeps build scripts there");
    built
        .filter_map(|entry| {
            let folder = entry.expect("the folder reads").path();
            let named = folder.file_name()?.to_str()?.starts_with("librocksdb-sys-");
            let script = folder.join("build-script-build");
            let changed = fs::metadata(&script).ok()?.modified().ok()?;
            named.then_some((changed, script))
        })
        .max()
        .expect("cargo built the crate's build script")
        .1
}

/// The compiler's command lines of the crate's own build script, one for each file.
fn commands_of_the_crate(crate_folder: &Path) -> Vec<String> {
    let folder = TempDir::new().expect("a folder");
    let (compiler, notes) = (folder.path().join("c++"), folder.path().join("notes"));
    fs::write(&compiler, NOTING_COMPILER).expect("a file is written");
    fs::set_permissions(&compiler, fs::Permissions::from_mode(0o755))
        .expect("it becomes a program");
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut script = Command::new(build_script());
    script
        .current_dir(crate_folder)
        .env_remove("ROCKSDB_LIB_DIR")
        .env_remove("ROCKSDB_STATIC")
        .env("NOTES", &notes)
        .env("CXX", &compiler)
        .env("AR", "true")
        .env("OUT_DIR", folder.path())
        .env("TARGET", &triple)
        .env("HOST", &triple)
        .env("OPT_LEVEL", "3")
        .env("DEBUG", "false")
        .env("PROFILE", "release")
        .env("NUM_JOBS", "2")
        .env("CARGO_MANIFEST_DIR", crate_folder)
        .env("CARGO_CFG_TARGET_ARCH", std::env::consts::ARCH)
        .env("CARGO_CFG_TARGET_OS", "linux")
        .env("CARGO_CFG_TARGET_ENV", "gnu")
        .env("CARGO_CFG_TARGET_ENDIAN", "little")
        .env("CARGO_CFG_TARGET_POINTER_WIDTH", "64")
        .env("CARGO_CFG_TARGET_FEATURE", "fxsr,sse,sse2");
    let done = script.output().expect("the crate's build script runs");
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let notes = fs::read_to_string(notes).expect("the compiler was called");
    notes.lines().map(str::to_owned).collect()
}

/// What of a command line decides the code that comes out: not folders, file names, warnings, nor
/// what every compiler for the machine does anyway.
fn flags(command: &str) -> BTreeSet<String> {
    let mut flags = BTreeSet::new();
    let mut words = command.split_whitespace();
    while let Some(word) = words.next() {
        match word {
            "-I" | "-o" => drop(words.next()),
            "-include" => drop(flags.insert(format!("-include {}", words.next().unwrap_or("")))),
            "-c" | "-m64" | "-march=x86-64" | "-msse2" => {}
            _ if word.starts_with("-W") || !word.starts_with('-') => {}
            _ => drop(flags.insert(word.to_owned())),
        }
    }
    flags
}
