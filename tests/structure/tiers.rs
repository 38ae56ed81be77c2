//! Rule: where one test of a tier needs a feature, every test of the tier does. The first word of its name tells the tier.

use std::collections::BTreeSet;

use crate::finding::Finding;
use crate::targets::Package;

/// Returns a finding for each test that plain `cargo test` would build although it belongs to a tier.
pub(crate) fn check(package: &Package) -> Vec<Finding> {
    let needing = package.tests().filter(|test| test.needs_a_feature());
    let tiers: BTreeSet<&str> = needing.map(|test| tier(&test.name)).collect();
    let forgotten = package.tests().filter(|test| !test.needs_a_feature());
    let forgotten = forgotten.filter(|test| tiers.contains(tier(&test.name)));
    forgotten
        .map(|test| Finding {
            file: package.manifest_path.clone(),
            line: 1,
            message: format!(
                "the test `{}` has no `required-features`, so plain `cargo test` runs it; list it with the feature of its tier",
                test.name
            ),
        })
        .collect()
}

fn tier(name: &str) -> &str {
    name.split('_').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(tests: &str) -> Vec<String> {
        let package = format!(
            r#"{{"name": "a", "manifest_path": "a/Cargo.toml", "targets": [
                {{"name": "a", "kind": ["lib"], "src_path": "a/src/lib.rs"}}, {tests}]}}"#
        );
        let found = check(&serde_json::from_str(&package).unwrap());
        found.into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn a_test_beside_others_that_need_a_feature_needs_one_too() {
        let plain =
            r#"{"name": "kernel_arp", "kind": ["test"], "src_path": "a/tests/kernel_arp.rs"}"#;
        let other = r#"{"name": "plain", "kind": ["test"], "src_path": "a/tests/plain.rs"}"#;
        let tier = r#"{"name": "kernel_lab", "kind": ["test"], "src_path": "a/tests/kernel_lab.rs", "required-features": ["kernel"]}"#;
        assert_eq!(messages(plain), [""; 0]);
        assert_eq!(messages(&format!("{tier}, {other}")), [""; 0]);
        let found = messages(&format!("{plain}, {tier}"));
        assert!(
            found.len() == 1 && found[0].contains("`kernel_arp`"),
            "{found:?}"
        );
    }
}
