//! The Debian packages: built, unpacked, their units held against systemd's own checks.

use limosa_testkit::tool;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging")
}

fn run(command: &mut Command) -> String {
    let done = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{command:?}: {said}");
    said
}

#[test]
fn the_packages_unpack_and_their_units_are_sound() {
    if !tool::have("the Debian packages", &["dpkg-deb", "systemd-analyze"]) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut build = Command::new(packaging().join("debian/build"));
    // The test's program is large with its symbols; what is tested is the package.
    build.arg(env!("CARGO_BIN_EXE_limosa")).arg(dir.path().join("out")).env("STRIP", "").env("COMPRESSION", "none");
    run(&mut build);
    let root = dir.path().join("root");
    let packages: Vec<PathBuf> =
        fs::read_dir(dir.path().join("out")).expect("is there").map(|e| e.expect("is readable").path()).collect();
    assert_eq!(packages.len(), 3, "{packages:?}");
    for package in &packages {
        run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&root));
        let control = run(Command::new("dpkg-deb").arg("--info").arg(package));
        assert!(control.contains("Depends: ") && control.contains(env!("CARGO_PKG_VERSION")), "{control}");
    }
    assert!(run(Command::new(root.join("usr/bin/limosa")).arg("--version")).contains(env!("CARGO_PKG_VERSION")));
    for file in [
        "usr/share/man/man1/limosa.1.gz",
        "usr/share/man/man1/limosa-migrations-cutover.1.gz",
        "usr/share/bash-completion/completions/limosa",
        "usr/share/zsh/vendor-completions/_limosa",
        "usr/share/fish/vendor_completions.d/limosa.fish",
        "usr/lib/sysusers.d/limosa-server.conf",
        "usr/lib/sysusers.d/limosa-agent.conf",
    ] {
        assert!(root.join(file).is_file(), "{file}");
    }
    for role in ["server", "agent"] {
        let settings = root.join(format!("etc/limosa/{role}.env"));
        assert_eq!(fs::metadata(settings).expect("is there").permissions().mode() & 0o777, 0o640);
        let unit = root.join(format!("usr/lib/systemd/system/limosa-{role}.service"));
        let text = fs::read_to_string(&unit).expect("is there");
        // The program lies where the packages would put it, below this root.
        let here = text.replace("/usr/bin/limosa", &root.join("usr/bin/limosa").display().to_string());
        let checked = dir.path().join(format!("limosa-{role}.service"));
        fs::write(&checked, here).expect("writes");
        let said = run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&checked));
        assert!(!said.contains("limosa-"), "{said}");
        // Of 100, in tenths: 20 and less is what systemd calls OK.
        run(Command::new("systemd-analyze").args(["security", "--offline=true", "--threshold=20"]).arg(&checked));
    }
}

/// The options in the example settings are ones that there are.
#[test]
fn the_example_settings_name_options_that_there_are() {
    for role in ["server", "agent"] {
        let text = fs::read_to_string(packaging().join(format!("examples/{role}.env"))).expect("is there");
        let help = run(Command::new(env!("CARGO_BIN_EXE_limosa")).args([role, "--help"]));
        let options = text.split(['"', '\'', ' ', '\n']).filter(|word| word.starts_with("--") && *word != "--help");
        for option in options {
            assert!(help.contains(option), "{role} has no {option}");
        }
    }
}

/// Not run: there is no engine of containers in a test. The schema of compose files is what it is held against.
#[test]
fn the_compose_file_is_one() {
    if !tool::have("the compose file", &["docker-compose"]) {
        return;
    }
    let file = packaging().join("container/compose.yaml");
    let mut command = Command::new("docker-compose");
    let read = run(command.arg("--file").arg(file).arg("config").env("LIMOSA_LINK_TOKEN", "a-token"));
    assert!(read.contains("LIMOSA_LINK_TOKEN: a-token") && read.contains("network_mode: service:server"), "{read}");
    // Its commands are ones that the program takes.
    for (role, options) in
        [("server", ["--data-dir", "--listen", "--plain-http"]), ("agent", ["--server", "--host-name", "--source"])]
    {
        let help = run(Command::new(env!("CARGO_BIN_EXE_limosa")).args([role, "--help"]));
        assert!(options.iter().all(|option| read.contains(option) && help.contains(option)), "{role}: {read}");
    }
}

/// Every series that the alerts and the board ask for is one that a server gives; the rules do what they say.
#[tokio::test(flavor = "multi_thread")]
async fn alerts_and_board_ask_for_series_that_there_are() {
    let server = crate::dashboard::Served::start(&[]);
    let keys = format!("{}:{}", server.key("publicKey"), server.key("privateKey"));
    let given = run(Command::new("curl")
        .args(["--silent", "--fail", "--digest", "--user", &keys])
        .arg(format!("{}/metrics", server.url)));
    let types = given.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let known: Vec<String> =
        types.map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.to_owned() }).collect();
    assert!(known.len() > 10, "{given}");
    let open = Command::new("curl")
        .args(["--silent", "--write-out", "%{http_code}"])
        .arg(format!("{}/metrics", server.url))
        .output();
    assert!(String::from_utf8_lossy(&open.expect("runs").stdout).ends_with("401"), "metrics are given to everyone");
    for file in ["prometheus/limosa.rules.yml", "grafana/limosa.json"] {
        let text = fs::read_to_string(packaging().join(file)).expect("is there");
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for asked in words.filter(|word| word.starts_with("limosa_")) {
            assert!(known.iter().any(|known| known == asked), "{file} asks for {asked}");
        }
    }
    let board = fs::read_to_string(packaging().join("grafana/limosa.json")).expect("is there");
    let board: serde_json::Value = serde_json::from_str(&board).expect("JSON");
    assert_eq!(board["panels"].as_array().map(Vec::len), Some(7));
    if tool::have("the alert rules", &["promtool"]) {
        let promtool = |arguments: &[&str]| {
            run(Command::new("promtool").args(arguments).current_dir(packaging().join("prometheus")))
        };
        promtool(&["check", "rules", "limosa.rules.yml"]);
        promtool(&["test", "rules", "limosa.test.yml"]);
    }
}
