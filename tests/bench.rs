//! `gkd-client bench` against a server: which figures there are, and how it ends. No figure is judged.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Output;

use gkd_tests::{Program, Serving, free_port, run, wait_for_port};
use serde_json::Value;

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn assert_fails(output: &Output, status: i32, part: &str) {
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    assert!(stderr.contains(part), "{stderr}");
    assert!(stdout.is_empty(), "{stdout}");
    let key = |rest: &str| rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric()).count() > 20;
    assert!(!stderr.split("gkd://").skip(1).any(key), "it shows the link: {stderr}");
}

/// A server whose `server.toml` says this in front of all else.
fn serving_with(setting: &str) -> Serving {
    let Serving { server, port, link, folder } = Serving::with(&[]);
    drop(server);
    let dir = folder.path().join("server");
    let config = dir.join("server.toml");
    let before = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{setting}\n{before}")).unwrap();
    let another = free_port();
    let listen = format!("127.0.0.1:{another}");
    let args = ["run", "--dir", dir.to_str().unwrap(), "--listen", &listen];
    let server = Program::start("gkd-server", folder.path(), &args);
    wait_for_port(another);
    let link = link.replace(&format!(":{port}"), &format!(":{another}"));
    Serving { server, port: another, link, folder }
}

#[test]
fn all_figures_are_there_as_json() {
    let serving = Serving::with(&[]);
    let output = run("gkd-client", &["bench", "--seconds", "1", "-n", "3", "--json", &serving.link]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&figures["seconds"], &figures["rounds"]), (&1.into(), &2.into()));
    let positive = |value: &Value| value.as_f64().is_some_and(|value| value > 0.0 && value.is_finite());
    for (side, tunnels) in [("one", 1), ("many", 3)] {
        let side = &figures[side];
        assert_eq!(side["tunnels"], tunnels);
        assert!(positive(&side["download_bit_s"]) && positive(&side["upload_bit_s"]), "{figures}");
        for load in ["idle", "downloading", "uploading"] {
            let (half, almost) = (&side[load]["p50_ms"], &side[load]["p99_ms"]);
            assert!(side[load]["messages"].as_u64() > Some(1), "{load}: {figures}");
            assert!(positive(half) && half.as_f64() <= almost.as_f64(), "{load}: {figures}");
        }
        let paths = side["paths"].as_array().unwrap();
        assert_eq!(paths.len(), tunnels, "{figures}");
        for tunnel in paths {
            assert_eq!(tunnel["remote"], format!("127.0.0.1:{}", serving.port));
            assert!(tunnel["sent"].as_u64() > Some(0) && tunnel["received"].as_u64() > Some(0), "{tunnel}");
        }
    }
    let ratio = figures["ratio"].as_object().unwrap();
    assert_eq!(ratio.len(), 8);
    assert!(ratio.values().all(positive), "{figures}");
    // The load went over every one of the tunnels: more than what opening and messages are.
    let least = figures["many"]["paths"].as_array().unwrap().iter().map(|tunnel| tunnel["received"].as_u64());
    assert!(least.min().unwrap() > Some(100_000), "{figures}");
    // Without a terminal it says how far it is in lines.
    assert!(text(&output.stderr).contains("bench: "), "{}", text(&output.stderr));
    assert!(!serving.server.log().contains("was refused"), "{}", serving.server.log());
}

#[test]
fn the_table_has_a_line_for_each_figure_and_each_tunnel() {
    let serving = Serving::with(&["--plain"]);
    let output = run("gkd-client", &["bench", "--seconds", "1", "-n", "2", "--plain", "-q", &serving.link]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    let lines: Vec<_> = stdout.lines().collect();
    for (line, part) in
        lines.iter().zip(["2 over 1", "download", "upload", "p50", "p99", "p50", "p99", "p50", "p99"])
    {
        assert!(line.contains(part) && !line.contains('?'), "{line:?}: no {part:?} in\n{stdout}");
    }
    let port = format!(" to 127.0.0.1:{}: round trip ", serving.port);
    assert_eq!(
        lines.iter().filter(|line| line.contains("  tunnel ") && line.contains(&port)).count(),
        3,
        "{stdout}"
    );
}

#[test]
fn a_command_line_that_makes_no_sense_is_64() {
    let link = "gkd://AAAA@127.0.0.1:1";
    for (args, part) in [
        (&["bench"][..], "no link"),
        (&["bench", "-n", "1", "--bind", "lo"], "write 2 to 64"),
        (&["bench", "-n", "65"], "write 1 to 64"),
        (&["bench", "--seconds", "0"], "--seconds"),
        (&["bench", "--seconds", "31"], "--seconds"),
        (&["bench", "-L", "mixed://1080"], "'-L'"),
        (&["bench", link], "the link's key is cut"),
    ] {
        assert_fails(&run("gkd-client", args), 64, part);
    }
    assert_fails(&run("gkd-client", &["bench", "--config", "/nowhere/client.toml"]), 78, "cannot be read");
}

#[test]
fn a_server_that_is_not_there_is_69_and_one_that_refuses_77() {
    let serving = Serving::with(&[]);
    let nobody = free_port();
    let elsewhere = serving.link.replace(&format!(":{}", serving.port), &format!(":{nobody}"));
    assert_fails(&run("gkd-client", &["bench", &elsewhere]), 69, "cannot be reached");
    assert_fails(&run("gkd-client", &["bench", "--plain", &serving.link]), 77, "encrypted");
    let other = Serving::with(&[]);
    let stranger = other.link.replace(&format!(":{}", other.port), &format!(":{}", serving.port));
    assert_fails(&run("gkd-client", &["bench", &stranger]), 77, "another key");
}

#[test]
fn a_server_where_it_is_switched_off_says_so() {
    let serving = serving_with("bench = false");
    assert_fails(
        &run("gkd-client", &["bench", &serving.link]),
        77,
        "measuring is switched off at the server",
    );
    serving.server.wait_for_log("a measurement was refused: it is switched off here");
}
