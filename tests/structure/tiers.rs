//! Rule: where one test of a package needs a feature, every test does.

use crate::finding::Finding;
use crate::targets::Package;

/// Returns a finding for each test that plain `cargo test` would build although it belongs to a tier.
pub(crate) fn check(package: &Package) -> Vec<Finding> {
    if package.tests().all(|test| !test.needs_a_feature()) {
        return Vec::new();
    }
    let forgotten = package.tests().filter(|test| !test.needs_a_feature());
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
        let plain = r#"{"name": "plain", "kind": ["test"], "src_path": "a/tests/plain.rs"}"#;
        let tier = r#"{"name": "tier", "kind": ["test"], "src_path": "a/tests/tier.rs", "required-features": ["tier"]}"#;
        assert_eq!(messages(plain), [""; 0]);
        assert_eq!(messages(tier), [""; 0]);
        let found = messages(&format!("{plain}, {tier}"));
        assert!(
            found.len() == 1 && found[0].contains("`plain`"),
            "{found:?}"
        );
    }
}
