//! Ranks: devices that run one model together.
//!
//! All ranks of a group live in one process, a thread each. Every rank runs the same ops in the same order over its share
//! of the weights; where sums are split, [`Backend::all_reduce`](super::Backend::all_reduce) adds them up.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::StepError;

/// A backend's place in its group. Cheap to clone.
#[derive(Clone, Default)]
pub struct Rank {
    index: usize,
    /// `None` alone.
    group: Option<Arc<Group>>,
}

type Hook = Box<dyn FnOnce() + Send>;

struct Group {
    world_size: usize,
    exchange: Mutex<Exchange>,
    changed: Condvar,
    on_failure: Mutex<Vec<Hook>>,
}

/// A sum under way, or the one before it.
#[derive(Default)]
struct Exchange {
    /// What each rank brought.
    contributions: Vec<Vec<f32>>,
    /// Their sum, valid while `num_to_leave` is not 0.
    total: Vec<f32>,
    num_arrived: usize,
    /// Ranks that have yet to take the total. Nobody arrives before they have.
    num_to_leave: usize,
    /// Who failed first, and why.
    failure: Option<StepError>,
}

/// Of a backend that is no part of a group.
pub(super) static ALONE: Rank = Rank { index: 0, group: None };

impl Rank {
    /// The only one.
    pub fn alone() -> Self {
        Self::default()
    }

    /// The ranks of one group of `world_size`, in order; of one, that is [`Rank::alone`].
    pub fn group(world_size: usize) -> Vec<Self> {
        if world_size == 1 {
            return vec![Self::alone()];
        }
        let contributions = (0..world_size).map(|_| Vec::new()).collect();
        let group = Arc::new(Group {
            world_size,
            exchange: Mutex::new(Exchange { contributions, ..Exchange::default() }),
            changed: Condvar::new(),
            on_failure: Mutex::default(),
        });
        (0..world_size).map(|index| Self { index, group: Some(group.clone()) }).collect()
    }

    /// Whether these are all ranks of one group, in order.
    pub fn is_group<'a>(ranks: impl ExactSizeIterator<Item = &'a Self>) -> bool {
        let world_size = ranks.len();
        let mut ranks = ranks.enumerate();
        let Some((_, first)) = ranks.next() else { return false };
        let same = |group: &Option<Arc<Group>>| match (group, &first.group) {
            (Some(group), Some(first)) => Arc::ptr_eq(group, first),
            (None, None) => true,
            _ => false,
        };
        first.index == 0
            && first.world_size() == world_size
            && ranks.all(|(i, rank)| rank.index == i && same(&rank.group))
    }

    /// Which one this is, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// How many there are.
    pub fn world_size(&self) -> usize {
        self.group.as_ref().map_or(1, |group| group.world_size)
    }

    /// Puts the sum over all ranks in the place of `values`, the same bits on every rank, and waits until every rank has
    /// brought its own.
    ///
    /// It goes through the host's memory, in f64 and rank by rank: the specification of
    /// [`Backend::all_reduce`](super::Backend::all_reduce). Once its buffers have the size of the largest sum it allocates
    /// nothing.
    ///
    /// # Errors
    /// [`StepError::Communicator`]: a rank has failed, or brought another number of values.
    pub fn all_reduce(&self, values: &mut [f32]) -> Result<(), StepError> {
        let Some(group) = &self.group else { return Ok(()) };
        let mut exchange = group.wait_until(group.lock(), |exchange| exchange.num_to_leave == 0)?;
        let contribution = &mut exchange.contributions[self.index];
        contribution.clear();
        contribution.extend_from_slice(values);
        exchange.num_arrived += 1;
        if exchange.num_arrived == group.world_size {
            exchange.num_arrived = 0;
            if let Err(reason) = exchange.add_up() {
                drop(exchange);
                return Err(self.fail(reason));
            }
            exchange.num_to_leave = group.world_size;
            group.changed.notify_all();
        } else {
            exchange = group.wait_until(exchange, |exchange| exchange.num_to_leave > 0)?;
        }
        values.copy_from_slice(&exchange.total);
        exchange.num_to_leave -= 1;
        if exchange.num_to_leave == 0 {
            group.changed.notify_all();
        }
        Ok(())
    }

    /// Breaks the group: every rank that waits for the others, now or later, gets the error that this returns, and what was
    /// given to [`Rank::on_failure`] runs. Only the first failure counts.
    pub fn fail(&self, reason: String) -> StepError {
        let error = StepError::Communicator { rank: self.index, reason };
        let Some(group) = &self.group else { return error };
        let first = group.lock().failure.get_or_insert(error).clone();
        group.changed.notify_all();
        let hooks = std::mem::take(&mut *group.on_failure.lock().unwrap_or_else(PoisonError::into_inner));
        hooks.into_iter().for_each(|hook| hook());
        first
    }

    /// What broke the group.
    pub fn failure(&self) -> Option<StepError> {
        self.group.as_ref().and_then(|group| group.lock().failure.clone())
    }

    /// Runs `hook` once when the group breaks, on the thread of whoever fails first: for devices that wait for each other,
    /// so that they stop. It is dropped unused with the group.
    pub fn on_failure(&self, hook: impl FnOnce() + Send + 'static) {
        if let Some(group) = &self.group {
            group.on_failure.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(hook));
        }
    }
}

impl Group {
    /// A rank that panicked inside has written a contribution at most; its runner breaks the group.
    fn lock(&self) -> MutexGuard<'_, Exchange> {
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until<'a>(
        &self,
        exchange: MutexGuard<'a, Exchange>,
        is_reached: impl Fn(&Exchange) -> bool,
    ) -> Result<MutexGuard<'a, Exchange>, StepError> {
        let waits = |exchange: &mut Exchange| exchange.failure.is_none() && !is_reached(exchange);
        let exchange = self.changed.wait_while(exchange, waits).unwrap_or_else(PoisonError::into_inner);
        match &exchange.failure {
            Some(error) => Err(error.clone()),
            None => Ok(exchange),
        }
    }
}

impl Exchange {
    /// Sums what the ranks brought; the reason if they do not agree on its size.
    fn add_up(&mut self) -> Result<(), String> {
        let Self { contributions, total, .. } = self;
        let expected = contributions[0].len();
        for (rank, contribution) in contributions.iter().enumerate() {
            let found = contribution.len();
            if found != expected {
                return Err(format!("rank {rank} brought {found} values to a sum, rank 0 brought {expected}"));
            }
        }
        total.clear();
        total
            .extend((0..expected).map(|i| contributions.iter().map(|values| f64::from(values[i])).sum::<f64>() as f32));
        Ok(())
    }
}

impl fmt::Debug for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rank({self})")
    }
}

impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.index, self.world_size())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    /// Each rank on its own thread; what it returned, in order.
    fn on_each<T: Send>(world_size: usize, run: impl Fn(Rank) -> T + Sync) -> Vec<T> {
        thread::scope(|scope| {
            let threads: Vec<_> = Rank::group(world_size).into_iter().map(|rank| scope.spawn(|| run(rank))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn sums_follow_each_other_and_are_the_same_on_every_rank() {
        let results = on_each(3, |rank| {
            let mut sums = Vec::new();
            for round in 0..200 {
                let mut values = vec![(rank.index() + round) as f32; round % 5];
                rank.all_reduce(&mut values).unwrap();
                sums.push(values);
            }
            sums
        });
        for (round, sums) in results[0].iter().enumerate() {
            assert_eq!(sums, &vec![(3 * round + 3) as f32; round % 5], "round {round}");
        }
        assert!(results.iter().all(|sums| *sums == results[0]));
    }

    /// In f32, rank by rank, the middle rank's share would be lost.
    #[test]
    fn the_sum_is_rounded_once() {
        let shares = [1e8_f32, 3.0, -1e8];
        let sums = on_each(3, |rank| {
            let mut values = [shares[rank.index()]];
            rank.all_reduce(&mut values).unwrap();
            values[0]
        });
        assert_eq!(sums, [3.0; 3]);
    }

    #[test]
    fn a_failure_reaches_those_who_wait_and_those_who_come_later() {
        let hooks = Arc::new(AtomicUsize::new(0));
        let all_have_hooks = Barrier::new(3);
        let errors = on_each(3, |rank| {
            let counter = hooks.clone();
            rank.on_failure(move || {
                counter.fetch_add(1, Ordering::Relaxed);
            });
            // Not a sum: who has not left that when another fails hears of the failure there.
            all_have_hooks.wait();
            match rank.index() {
                1 => rank.fail("lost".into()),
                _ => rank.all_reduce(&mut [1.0]).unwrap_err(),
            }
        });
        assert!(errors.iter().all(|error| *error == errors[0]), "{errors:?}");
        assert_eq!(errors[0].to_string(), "rank 1: communication failed (lost); restart all ranks");
        assert_eq!(hooks.load(Ordering::Relaxed), 3, "each once");
    }

    #[test]
    fn ranks_that_bring_different_sizes_break_the_group() {
        let errors = on_each(2, |rank| {
            let mut values = vec![0.0; 4 + rank.index()];
            (rank.all_reduce(&mut values).unwrap_err().to_string(), rank.failure().is_some())
        });
        assert!(
            errors.iter().all(|(error, failed)| *failed && error.contains("rank 1 brought 5 values")),
            "{errors:?}"
        );
    }

    #[test]
    fn a_group_is_whole_and_in_order() {
        let [a, b] = <[Rank; 2]>::try_from(Rank::group(2)).unwrap();
        let [_, other] = <[Rank; 2]>::try_from(Rank::group(2)).unwrap();
        let alone = Rank::alone();
        assert!(Rank::is_group([&a, &b].into_iter()) && Rank::is_group([&alone].into_iter()));
        for ranks in [vec![&b, &a], vec![&a], vec![&a, &other], vec![&a, &alone], vec![&alone, &alone], vec![]] {
            assert!(!Rank::is_group(ranks.iter().copied()), "{ranks:?}");
        }
    }

    #[test]
    fn alone_there_is_nothing_to_add() {
        let [rank] = <[Rank; 1]>::try_from(Rank::group(1)).unwrap();
        let mut values = [1.5];
        rank.all_reduce(&mut values).unwrap();
        assert_eq!((values, rank.index(), rank.world_size(), rank.failure()), ([1.5], 0, 1, None));
    }
}
