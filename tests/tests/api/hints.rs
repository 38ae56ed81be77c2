//! What the API server answers to the mistakes that people make, and that what the answer or the document says instead is
//! accepted.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use lab::{ControlPlane, wait_until};

const OPERATIONS: &str = include_str!("../../../docs/operations.md");

/// A mistake and its answers.
struct Mistake {
    /// Fields of a spec.
    written: String,
    /// What `kubectl apply` says.
    applied: String,
    /// What server-side apply says.
    server_side: String,
    /// What to write instead.
    instead: String,
}

#[test]
fn a_rule_says_what_to_write_instead() -> Result<()> {
    let range = "a range of ports, or all of them, is served by `fwmark`";
    let ports: Vec<String> = (1..=65).map(|port| format!("{{port: {port}}}")).collect();
    let many = format!("ports: [{}]", ports.join(", "));
    let cases = [
        ("ports: [{port: 0}]", range, "fwmark: 7"),
        (&many, range, "fwmark: 7"),
        (
            "persistence: {timeoutSeconds: 0}",
            "leave `persistence` out",
            "onePacket: false",
        ),
        (
            "addresses: [192.168.220.100, 192.168.220.101]",
            "write an object for each",
            "addresses: [192.168.220.101]",
        ),
        (
            "addresses: [www.example.net]",
            "must hold canonical unicast addresses",
            "addresses: [192.168.220.100]",
        ),
        (
            "backends: [{address: rs1.example.net}]",
            "must be a canonical unicast address",
            "backends: [{address: 192.168.220.132}]",
        ),
    ];
    let server = Server::start()?;
    cases.iter().try_for_each(|(written, says, instead)| {
        server.try_one(&Mistake {
            written: (*written).to_owned(),
            applied: (*says).to_owned(),
            server_side: (*says).to_owned(),
            instead: (*instead).to_owned(),
        })
    })
}

#[test]
fn the_api_server_answers_values_of_another_type_as_the_document_says() -> Result<()> {
    let mistakes = documented()?;
    ensure!(mistakes.len() >= 9, "only {} rows", mistakes.len());
    let server = Server::start()?;
    mistakes.iter().try_for_each(|row| server.try_one(row))
}

/// The rows of the table in the document.
fn documented() -> Result<Vec<Mistake>> {
    let heading = "\n### Manifests that the API server refuses\n";
    let (_, section) = OPERATIONS.split_once(heading).context("no such section")?;
    let (section, _) = section.split_once("\n### ").context("no next section")?;
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let mistakes = rows.map(|row| {
        // What is in back quotes: the first of each column.
        let columns = row.split(" | ").map(|column| column.split('`').nth(1));
        let columns: Option<Vec<&str>> = columns.collect();
        let [written, applied, server_side, instead] = columns.as_deref()? else {
            return None;
        };
        Some(Mistake {
            written: (*written).to_owned(),
            applied: (*applied).to_owned(),
            server_side: (*server_side).to_owned(),
            instead: (*instead).to_owned(),
        })
    });
    mistakes
        .collect::<Option<_>>()
        .context("a row has not four columns")
}

/// An API server with the definitions.
struct Server(ControlPlane);

impl Server {
    fn start() -> Result<Self> {
        let control_plane = ControlPlane::start()?;
        let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/crds.yaml");
        let crds = crds.to_str().context("a path that is no text")?;
        control_plane.kubectl(&["apply", "--server-side", "-f", crds])?;
        let server = Self(control_plane);
        wait_until("the kind to be served", Duration::from_secs(20), || {
            Ok(server.apply("onePacket: false", &[]).ok())
        })?;
        Ok(server)
    }

    fn try_one(&self, mistake: &Mistake) -> Result<()> {
        let Mistake {
            written,
            applied,
            server_side,
            instead,
        } = mistake;
        for (options, says) in [(&[][..], applied), (&["--server-side"], server_side)] {
            let error = self.apply(written, options).err();
            let error = error.with_context(|| format!("{written}: not refused"))?;
            let error = format!("{error:#}");
            ensure!(error.contains(says), "{written}: {options:?}: {error}");
            self.apply(instead, options)
                .with_context(|| format!("{written}: {instead}"))?;
        }
        Ok(())
    }

    /// Applies a virtual service with a VIP, a port and other fields, by a dry run. The fields replace those of the same name,
    /// and a mark replaces both.
    fn apply(&self, fields: &str, options: &[&str]) -> Result<()> {
        let others = ["addresses: [192.168.220.100]", "ports: [{port: 80}]"];
        let others = others.iter().filter(|other| {
            let key = other.split(':').next().unwrap_or_default();
            !fields.starts_with(key) && !fields.starts_with("fwmark")
        });
        let fields: Vec<&str> = others.copied().chain([fields]).collect();
        let manifest = format!(
            "apiVersion: lvs-operator.io/v1alpha1
kind: VirtualService
metadata: {{name: tried, namespace: default}}
spec: {{{}}}
",
            fields.join(", ")
        );
        let file = self.0.directory().join("tried.yaml");
        fs::write(&file, manifest)?;
        let file = file.to_str().context("a path that is no text")?;
        let arguments = ["apply", "--dry-run=server", "-f", file];
        self.0.kubectl(&[&arguments, options].concat()).map(drop)
    }
}
