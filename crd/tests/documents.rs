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
fn nat_md_and_operations_md_document_the_timeout_of_half_closed_connections() {
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
fn api_md_documents_persistence_over_several_ports() {
    expect(
        "docs/api.md",
        &["for one real server on several ports (80 and 443), use `fwmark`"],
    );
}

#[test]
fn operations_md_documents_the_vips_of_restored_objects() {
    expect(
        "docs/operations.md",
        &[
            "deleted and made again, VIPs are allocated in the order in which the controller sees the objects",
        ],
    );
}

#[test]
fn operations_md_documents_the_order_in_which_machines_let_go() {
    expect(
        "docs/operations.md",
        &[
            "all of them while the director's agent does not run",
            "In a cluster the director lets go first",
        ],
    );
}
