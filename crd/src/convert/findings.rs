//! Collects what is wrong with one object.

use std::{fmt, ops::RangeInclusive};

use lvs_model::{ObjectRef, Rejection};

/// The rejections of one object, in the order in which they were found.
///
/// Paths are `fmt::Arguments`, which are formatted only for a rejection: a file may hold 100,000 endpoints.
pub(super) struct Findings {
    object: Option<ObjectRef>,
    /// The name of the object in messages if its name is invalid.
    what: String,
    rejections: Vec<Rejection>,
}

impl Findings {
    pub(super) const fn of(object: ObjectRef) -> Self {
        Self {
            object: Some(object),
            what: String::new(),
            rejections: Vec::new(),
        }
    }

    /// Creates the findings of an object with an invalid name.
    pub(super) const fn of_unnamed(what: String) -> Self {
        Self {
            object: None,
            what,
            rejections: Vec::new(),
        }
    }

    /// Adds a rejection.
    pub(super) fn refuse(&mut self, field: impl fmt::Display, reason: impl Into<String>) {
        self.rejections.push(Rejection {
            object: self.object.clone(),
            origin: self.what.clone(),
            field: field.to_string(),
            reason: reason.into(),
        });
    }

    /// Returns the value, or adds its error.
    pub(super) fn take<T, E: fmt::Display>(
        &mut self,
        field: impl fmt::Display,
        result: Result<T, E>,
    ) -> Option<T> {
        result
            .map_err(|error| self.refuse(field, error.to_string()))
            .ok()
    }

    /// Returns the number if it is in the range; adds a rejection otherwise.
    pub(super) fn number<T: TryFrom<i64>>(
        &mut self,
        field: impl fmt::Display,
        value: i64,
        range: RangeInclusive<i64>,
    ) -> Option<T> {
        let number = if range.contains(&value) {
            T::try_from(value).ok()
        } else {
            None
        };
        if number.is_none() {
            let (low, high) = (range.start(), range.end());
            self.refuse(
                field,
                format!("must be between {low} and {high}, not '{value}'"),
            );
        }
        number
    }

    /// Returns the port if it is between 1 and 65535; adds a rejection otherwise.
    pub(super) fn port(&mut self, field: impl fmt::Display, value: i64) -> Option<u16> {
        self.number(field, value, 1..=i64::from(u16::MAX))
    }

    /// Returns the rejections as an error, if there are any.
    pub(super) fn finish(self) -> Result<(), Vec<Rejection>> {
        if self.rejections.is_empty() {
            Ok(())
        } else {
            Err(self.rejections)
        }
    }
}
