//! Prints the CustomResourceDefinitions as YAML, for `kubectl apply --server-side -f -`. With `--write DIR` it writes
//! every file that is generated from the API types into the repository at DIR instead.

use std::{env, error::Error, fs, path::Path, process::ExitCode};

use lvs_crd::generated;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => print!("{}", generated::yaml()?),
        ["--write", root] => write(Path::new(root))?,
        _ => {
            eprintln!("usage: crdgen [--write DIR]");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn write(root: &Path) -> Result<(), Box<dyn Error>> {
    for file in generated::files()? {
        let path = root.join(&file.path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, file.text)?;
        eprintln!("{}", path.display());
    }
    Ok(())
}
