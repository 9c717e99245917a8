//! Programs and packages that some tests drive the product with: the browser, a terminal, clients in other languages.
//! Debian has most of them; in CI, where they may be installed, they are.

use crate::{Error, mongod::cache_of};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Program and the Debian package that has it.
const PROGRAMS: &[(&str, &str)] = &[
    ("chromium", "chromium"),
    ("chromedriver", "chromium-driver"),
    ("tmux", "tmux"),
    ("promtool", "prometheus"),
    ("systemd-analyze", "systemd"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("curl", "curl"),
    ("docker-compose", "docker-compose"),
];

/// Those that only the long tests drive.
const PROGRAMS_IN_FULL: &[(&str, &str)] = &[("debootstrap", "debootstrap"), ("buildah", "buildah")];

/// The checker of accessibility, and its version.
const AXE: &str = "axe-core@4.14.1";

/// Whether this runs where nothing may be left out.
pub fn in_ci() -> bool {
    env::var("CI").is_ok_and(|value| value == "true")
}

/// Whether the long tests were asked for.
pub fn in_full() -> bool {
    env::var("LIMOSA_FULL").is_ok_and(|value| value == "1")
}

/// Whether `program` can be run: `arguments` make it say its version. Without it the calling test is left out, which
/// is said, and fails under `CI=true`.
pub fn is_there(program: &str, arguments: &[&str]) -> bool {
    let tried = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let there = tried.is_ok_and(|status| status.success());
    assert!(there || !in_ci(), "{program} is not installed, and CI=true wants every test run");
    if !there {
        eprintln!("SKIPPED: {program} is not installed");
    }
    there
}

/// A Python with the packages of `requirements`, a file of pinned versions: made once, in this user's cache. Processes
/// that ask at once make it once.
pub fn python(requirements: &Path) -> Result<PathBuf, Error> {
    let wanted = fs::read_to_string(requirements)?;
    let name = requirements.file_stem().ok_or("the requirements have no name")?;
    let cache = cache_of("python");
    fs::create_dir_all(&cache)?;
    let lock = fs::File::create(cache.join(".lock"))?;
    lock.lock()?;
    let home = cache.join(name);
    let (python, made) = (home.join("bin/python"), home.join("requirements.txt"));
    if fs::read_to_string(&made).is_ok_and(|text| text == wanted) {
        return Ok(python);
    }
    eprintln!("making {}", home.display());
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home))?;
    let install = ["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--requirement"];
    run(Command::new(&python).args(install).arg(requirements))?;
    fs::write(made, wanted)?;
    Ok(python)
}

fn run(command: &mut Command) -> Result<(), Error> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} failed").into()) }
}

/// The program's file, if `PATH` has it.
pub fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Whether all of `programs` are there. In CI they must be; elsewhere it says that `test` is skipped.
pub fn have(test: &str, programs: &[&str]) -> bool {
    let missing: Vec<&str> = programs.iter().copied().filter(|program| find(program).is_none()).collect();
    assert!(missing.is_empty() || !in_ci(), "{test} needs {}", missing.join(", "));
    if !missing.is_empty() {
        eprintln!("SKIPPED {test}: needs {}", missing.join(", "));
    }
    missing.is_empty()
}

/// In CI on Debian, as root: installs what is missing.
pub fn install() -> Result<(), Error> {
    let wanted = PROGRAMS.iter().chain(PROGRAMS_IN_FULL.iter().filter(|_| in_full()));
    let missing: Vec<&str> = wanted.filter(|(program, _)| find(program).is_none()).map(|(_, p)| *p).collect();
    if !in_ci() || missing.is_empty() || find("apt-get").is_none() {
        return Ok(());
    }
    for arguments in [&["update"][..], &[&["install", "--yes", "--no-install-recommends"], &missing[..]].concat()] {
        let status = Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").status()?;
        if !status.success() {
            return Err(format!("apt-get {arguments:?} failed").into());
        }
    }
    Ok(())
}

/// The workspace's build directory.
pub fn target() -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    env::var_os("CARGO_TARGET_DIR").map_or(dir, PathBuf::from)
}

/// The accessibility checker's script; npm fetches it once.
pub fn axe() -> Result<String, Error> {
    let home = target().join("npm");
    let script = home.join("node_modules/axe-core/axe.min.js");
    let wanted = format!("\"version\": \"{}\"", AXE.split_once('@').map_or("", |(_, version)| version));
    let known = || std::fs::read_to_string(home.join("node_modules/axe-core/package.json")).unwrap_or_default();
    std::fs::create_dir_all(&home)?;
    let lock = std::fs::File::create(home.join(".lock"))?;
    lock.lock()?;
    if !known().contains(&wanted) {
        let mut command = Command::new("npm");
        command.args(["install", "--no-save", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", AXE]);
        let done = command.arg("--prefix").arg(&home).output()?;
        if !done.status.success() {
            return Err(format!("npm could not install {AXE}: {}", String::from_utf8_lossy(&done.stderr)).into());
        }
    }
    Ok(std::fs::read_to_string(script)?)
}
