//! Rope tables on a device, one for all layers that use the same.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::RopeTable;

/// What a device made of rope tables, by the host's table that it was made from. Neither side is kept alive by it.
#[derive(Debug)]
pub struct DeviceRopeTables<T> {
    known: Mutex<Vec<(Weak<RopeTable>, Weak<T>)>>,
}

impl<T> Default for DeviceRopeTables<T> {
    fn default() -> Self {
        Self { known: Mutex::default() }
    }
}

impl<T> DeviceRopeTables<T> {
    /// What was made of `table`, by `upload` where nobody holds it yet.
    ///
    /// # Errors
    /// Those of `upload`.
    pub fn get<E>(&self, table: &Arc<RopeTable>, upload: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(host, device)| host.strong_count() > 0 && device.strong_count() > 0);
        let same = known.iter().find(|(host, _)| host.as_ptr() == Arc::as_ptr(table));
        if let Some(device) = same.and_then(|(_, device)| device.upgrade()) {
            return Ok(device);
        }
        let device = Arc::new(upload()?);
        known.push((Arc::downgrade(table), Arc::downgrade(&device)));
        Ok(device)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::config::RopeConfig;

    #[test]
    fn layers_share_what_is_in_use_and_failures_leave_nothing() {
        let table = |max_len| Arc::new(RopeTable::new(&RopeConfig { theta: 1e4, yarn: None }, 4, max_len));
        let (first, second) = (table(2), table(2));
        let tables = DeviceRopeTables::default();
        assert_eq!(tables.get(&first, || Err("full")), Err("full"));
        let made = tables.get::<()>(&first, || Ok(1)).unwrap();
        assert!(Arc::ptr_eq(&made, &tables.get::<()>(&first, || Ok(2)).unwrap()));
        assert_eq!(*tables.get::<()>(&second, || Ok(3)).unwrap(), 3, "another table, though it is equal");
        drop(made);
        assert_eq!(*tables.get::<()>(&first, || Ok(4)).unwrap(), 4, "nobody held the first one");
    }
}
