//! The revision of the API: whether the CustomResourceDefinitions of a cluster fit a program.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use thiserror::Error;

/// The revision of the API types. It rises with each release that changes a definition.
pub const API_REVISION: u32 = 1;

/// The annotation with the revision of a CustomResourceDefinition.
pub const API_REVISION_ANNOTATION: &str = "lvs-operator.io/api-revision";

/// Why a CustomResourceDefinition does not fit this program.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnfitDefinition {
    /// It is not there.
    #[error(
        "CustomResourceDefinition {0} is not installed; install it with the chart, or run `kubectl apply --server-side --force-conflicts -f dist/crds.yaml` with the file of version {VERSION}"
    )]
    Missing(String),
    /// It is older than the program: the API server would drop fields that the program reads or writes.
    #[error(
        "CustomResourceDefinition {name} has API revision {found}, and this program needs {API_REVISION}; run `helm upgrade`, or `kubectl apply --server-side --force-conflicts -f dist/crds.yaml` with the file of version {VERSION}"
    )]
    Outdated {
        /// The name of the definition.
        name: String,
        /// Its revision; 0 if it has none.
        found: u32,
    },
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Checks a definition by its annotations; `None` if it does not exist. A newer definition fits.
///
/// # Errors
/// The definition is missing or outdated.
pub fn check(
    name: &str,
    annotations: Option<&BTreeMap<String, String>>,
) -> Result<(), UnfitDefinition> {
    let Some(annotations) = annotations else {
        return Err(UnfitDefinition::Missing(name.to_owned()));
    };
    let revision = annotations.get(API_REVISION_ANNOTATION);
    let found = revision.and_then(|text| text.parse().ok()).unwrap_or(0);
    if found < API_REVISION {
        return Err(UnfitDefinition::Outdated {
            name: name.to_owned(),
            found,
        });
    }
    Ok(())
}

/// Writes the revision into a definition.
pub(crate) fn annotate(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let annotations = crd.metadata.annotations.get_or_insert_default();
    annotations.insert(API_REVISION_ANNOTATION.to_owned(), API_REVISION.to_string());
    crd
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotated(revision: &str) -> BTreeMap<String, String> {
        [(API_REVISION_ANNOTATION.to_owned(), revision.to_owned())].into()
    }

    #[test]
    fn a_definition_of_this_or_a_newer_revision_fits() {
        for crd in crate::crds() {
            let name = crd.metadata.name.unwrap();
            assert_eq!(check(&name, crd.metadata.annotations.as_ref()), Ok(()));
        }
        let newer = annotated(&(API_REVISION + 1).to_string());
        assert_eq!(check("things.example.net", Some(&newer)), Ok(()));
    }

    #[test]
    fn an_older_definition_and_one_without_a_revision_are_outdated() {
        for annotations in [BTreeMap::new(), annotated("0"), annotated("first")] {
            let error = check("things.example.net", Some(&annotations)).unwrap_err();
            assert!(
                error.to_string().starts_with(
                    "CustomResourceDefinition things.example.net has API revision 0, and this program needs"
                ),
                "{error}"
            );
        }
    }

    #[test]
    fn a_missing_definition_is_named_with_the_command_that_installs_it() {
        let error = check("things.example.net", None).unwrap_err().to_string();
        assert!(
            error.contains("things.example.net is not installed"),
            "{error}"
        );
        assert!(error.contains("kubectl apply --server-side"), "{error}");
    }
}
