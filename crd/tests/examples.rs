//! Every example for files converts. The examples in `cluster` are for an API server.

use std::{fs, path::Path};

use lvs_crd::{
    convert,
    manifest::{self, Entry, Object},
};

#[test]
fn every_example_converts_without_a_rejection() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let manifest = manifest::parse(&name, &fs::read(&path).unwrap());
        assert_eq!(manifest.rejections, [], "{name}");
        for Entry { object, .. } in &manifest.objects {
            match object {
                Object::VirtualService(object) => drop(convert::virtual_service(object).unwrap()),
                Object::AddressPool(object) => drop(convert::address_pool(object).unwrap()),
                Object::DirectorGroup(object) => drop(convert::director_group(object).unwrap()),
            }
        }
        names.push(name);
    }
    names.sort();
    for name in ["dr.yaml", "edge.yaml", "nat.yaml", "tun.yaml"] {
        assert!(names.iter().any(|found| found == name), "{name} is missing");
    }
}
