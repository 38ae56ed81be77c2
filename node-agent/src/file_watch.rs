//! Watches files with inotify.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    pin::Pin,
};

use futures::{Stream, StreamExt};
use inotify::{Inotify, WatchMask};

/// Notices of changes.
pub(crate) type Notices = Pin<Box<dyn Stream<Item = io::Result<()>>>>;

/// Yields an item whenever one of these files, or a file in one of these directories, may have changed.
///
/// Directories are watched, not files: an editor replaces a file by renaming another over it, and a mounted ConfigMap
/// swaps a symbolic link beside it. The parent of a directory is watched too, in case the directory itself is replaced.
///
/// # Errors
/// If inotify is not available, or a directory cannot be watched.
pub(crate) fn watch(paths: &[PathBuf]) -> io::Result<Notices> {
    let inotify = Inotify::init()?;
    let mask = WatchMask::CLOSE_WRITE
        | WatchMask::MOVE
        | WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::ATTRIB;
    for directory in paths
        .iter()
        .flat_map(|path| directories(path))
        .collect::<BTreeSet<_>>()
    {
        inotify.watches().add(&directory, mask).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("watching {}: {error}", directory.display()),
            )
        })?;
    }
    let events = inotify.into_event_stream(vec![0; 4096])?;
    Ok(Box::pin(events.map(|event| event.map(drop))))
}

/// The directories to watch for a path.
fn directories(path: &Path) -> Vec<PathBuf> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    };
    if path.is_dir() {
        vec![path.to_owned(), parent]
    } else {
        vec![parent]
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, time::Duration};

    use super::*;

    async fn expect_notice(notices: &mut (impl Stream<Item = io::Result<()>> + Unpin)) {
        let notice = tokio::time::timeout(Duration::from_secs(10), notices.next()).await;
        notice.expect("no notice").expect("end of stream").unwrap();
    }

    #[tokio::test]
    async fn a_file_replaced_by_renaming_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("web.yaml");
        fs::write(&file, "a").unwrap();
        let mut notices = watch(std::slice::from_ref(&file)).unwrap();
        let other = tempfile::tempdir_in(directory.path().parent().unwrap()).unwrap();
        fs::write(other.path().join("new"), "b").unwrap();
        fs::rename(other.path().join("new"), &file).unwrap();
        expect_notice(&mut notices).await;
    }

    #[tokio::test]
    async fn the_symbolic_links_of_a_config_map_are_noticed() {
        let directory = tempfile::tempdir().unwrap();
        for version in ["..1", "..2"] {
            fs::create_dir(directory.path().join(version)).unwrap();
            fs::write(directory.path().join(version).join("web.yaml"), version).unwrap();
        }
        symlink("..1", directory.path().join("..data")).unwrap();
        symlink("..data/web.yaml", directory.path().join("web.yaml")).unwrap();
        let mut notices = watch(&[directory.path().to_owned()]).unwrap();
        symlink("..2", directory.path().join("..data_tmp")).unwrap();
        fs::rename(
            directory.path().join("..data_tmp"),
            directory.path().join("..data"),
        )
        .unwrap();
        expect_notice(&mut notices).await;
        assert_eq!(
            fs::read_to_string(directory.path().join("web.yaml")).unwrap(),
            "..2"
        );
    }
}
