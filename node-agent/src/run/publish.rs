//! Publishes the results of passes as statuses of the API server's objects. Files have no statuses.

use crate::{
    holder::Holder,
    pass::{Applied, PassError},
    source::{Source, SourceError},
};

#[cfg(feature = "kube")]
use crate::status::Statuses;

/// Publishes the results of passes.
pub(super) struct Publishing {
    #[cfg(feature = "kube")]
    statuses: Option<Statuses>,
}

impl Publishing {
    /// Starts watching files, or publishing statuses if the source is an API server.
    #[cfg_attr(
        not(feature = "kube"),
        expect(unused_variables, reason = "files have no status")
    )]
    pub(super) fn start(source: &mut Source, holder: &Holder) -> Result<Self, SourceError> {
        match source {
            Source::Files(files) => {
                files.watch()?;
                Ok(Self {
                    #[cfg(feature = "kube")]
                    statuses: None,
                })
            }
            #[cfg(feature = "kube")]
            Source::Api(api) => Ok(Self {
                statuses: Some(Statuses::start(api, holder.subscribe())?),
            }),
        }
    }

    /// Starts the watches of an API server. They wait for the pass over the objects cached on disk, which they would slow down:
    /// after a reboot, the kernel is empty and many machines may list at the same time.
    #[cfg_attr(
        not(feature = "kube"),
        expect(
            unused_variables,
            clippy::unused_self,
            reason = "files are watched already"
        )
    )]
    pub(super) fn watch(&self, source: &mut Source) {
        #[cfg(feature = "kube")]
        if let (Some(statuses), Source::Api(api)) = (&self.statuses, source) {
            statuses.watch(api);
        }
    }

    /// Publishes the result of a pass over the objects that were read last.
    #[cfg_attr(
        not(feature = "kube"),
        expect(unused_variables, clippy::unused_self, reason = "files have no status")
    )]
    pub(super) fn publish(&self, source: &Source, result: Result<&Applied, &PassError>) {
        #[cfg(feature = "kube")]
        if let (Some(statuses), Source::Api(api)) = (&self.statuses, source) {
            statuses.report(api.objects(), result);
        }
    }
}
