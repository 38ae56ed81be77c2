//! Prints the CustomResourceDefinitions as YAML, for `kubectl apply -f -`.

fn main() -> Result<(), serde_saphyr::ser::Error> {
    for crd in lvs_crd::crds() {
        print!("---\n{}", serde_saphyr::to_string(&crd)?);
    }
    Ok(())
}
