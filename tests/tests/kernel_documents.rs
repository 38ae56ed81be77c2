//! The documents show the agent's real output.

use anyhow::{Context, Result, ensure};
use lab::{Protocol, Site};

const README: &str = include_str!("../../README.md");
const NAT: &str = include_str!("../lab/demo/nat.yaml");
const DR: &str = include_str!("../lab/demo/dr.yaml");
const TUN: &str = include_str!("../lab/demo/tun.yaml");

/// The sysctls that the documents assume. A new namespace may inherit other values from the machine.
const AS_BOOTED: [(&str, &str); 5] = [
    ("net.ipv4.ip_forward", "0"),
    ("net.ipv4.conf.all.arp_ignore", "0"),
    ("net.ipv4.conf.all.arp_announce", "0"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
];

#[test]
fn the_first_use_in_the_readme_works_as_written() -> Result<()> {
    let (_, chapter) = README
        .split_once("\n## First use without Kubernetes")
        .context("the README has no such chapter")?;
    let blocks = blocks(chapter);
    let starting_with = |start: &str| {
        let found = blocks.iter().find_map(|block| block.strip_prefix(start));
        found.with_context(|| format!("no block starts with `{start}`"))
    };
    let plan = starting_with("# lvs-agent plan --config web.yaml\n")?;
    let site = lay_out(NAT, 80)?;
    let yaml = starting_with("apiVersion: ")?;
    site.write(&format!("apiVersion: {yaml}"))?;
    for name in ["rs1", "rs2"] {
        assert_eq!(site.agent(name)?.plan()?, "");
    }
    let director = site.agent("director")?;
    assert_eq!(director.plan()?, plan);

    director.converge()?;
    site.ask_both(Protocol::Tcp, "192.168.220.100:80".parse()?)?;
    let shown = director.call(&["show"])?.stdout;
    assert_eq!(shown, starting_with("# lvs-agent show\n")?);
    let undone = director.cleanup()?.stdout;
    assert_eq!(undone, starting_with("# lvs-agent cleanup\n")?);
    assert_eq!(director.plan()?, plan);
    Ok(())
}

#[test]
fn the_documents_of_the_modes_show_the_plans_of_the_examples() -> Result<()> {
    let nat = include_str!("../../docs/modes/nat.md");
    let example = include_str!("../../examples/nat.yaml");
    let site = lay_out(NAT, 80)?;
    site.write(example)?;
    shows_the_plans(nat, &site, &["director"])?;
    site.write(&example.replace("DefaultGateway", "PolicyRoute"))?;
    shows_the_plans(nat, &site, &["director", "rs1"])?;

    let dr = include_str!("../../docs/modes/dr.md");
    let site = lay_out(DR, 81)?;
    site.write(include_str!("../../examples/dr.yaml"))?;
    shows_the_plans(dr, &site, &["director", "rs1"])?;

    let tun = include_str!("../../docs/modes/tun.md");
    let site = lay_out(TUN, 82)?;
    site.write(include_str!("../../examples/tun.yaml"))?;
    shows_the_plans(tun, &site, &["director", "rs1"])
}

fn lay_out(topology: &str, port: u16) -> Result<Site> {
    let site = Site::lay_out(topology, port)?;
    for agent in site.agents() {
        for (key, value) in AS_BOOTED {
            agent.host().set_sysctl(key, value)?;
        }
    }
    Ok(site)
}

fn shows_the_plans(document: &str, site: &Site, machines: &[&str]) -> Result<()> {
    for name in machines {
        let plan = site.agent(name)?.plan()?;
        ensure!(
            blocks(document).contains(&plan),
            "the document lacks the plan of {name}:\n{plan}"
        );
    }
    Ok(())
}

/// Returns the code blocks of a Markdown document.
fn blocks(document: &str) -> Vec<String> {
    let fenced = document.split("\n```").skip(1).step_by(2);
    fenced
        .filter_map(|block| block.split_once('\n'))
        .map(|(_language, text)| format!("{text}\n"))
        .collect()
}
