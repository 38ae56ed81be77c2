//! What the documents tell users about behaviour that surprises them and that no message can explain.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::{fs, path::Path};

/// Returns a document with single spaces in place of line ends.
fn document(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(root.join(path)).unwrap();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn expect(path: &str, sentences: &[&str]) {
    let text = document(path);
    for sentence in sentences {
        assert!(text.contains(sentence), "{path} has no '{sentence}'");
    }
}

#[test]
fn the_answer_to_a_half_closed_connection_is_lost_after_a_minute_without_keepalives() {
    expect(
        "docs/modes/nat.md",
        &[
            "waits more than 60 s for the answer loses it",
            "a `net.ipv4.tcp_keepalive_time` below `tcpSeconds`",
        ],
    );
    expect(
        "docs/operations.md",
        &["closed on its side after 60 s: let servers send TCP keepalives more often than that"],
    );
}

#[test]
fn persistence_over_several_ports_needs_a_firewall_mark() {
    expect(
        "docs/api.md",
        &["for one real server on several ports (80 and 443), use `fwmark`"],
    );
}

#[test]
fn restored_objects_may_get_other_vips() {
    expect(
        "docs/operations.md",
        &[
            "deleted and made again, VIPs are allocated in the order in which the controller sees the objects",
        ],
    );
}

#[test]
fn with_files_a_real_server_lets_go_before_a_director_that_does_not_run() {
    expect(
        "docs/operations.md",
        &[
            "all of them while the director's agent does not run",
            "In a cluster the director lets go first",
        ],
    );
}
